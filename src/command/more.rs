//! Commands that the configuration describes: those of a server's modules, and of versions to come.
//!
//! A thread knows those it was taught. They live as long as the process: a [`Spec`] is handed on as one that does. The
//! static table comes first, so a command that hotring knows cannot be made another.

use super::table::row::named;
use super::{Access, Keys, Spec, Tag, all};
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

/// A command as the configuration describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name, in lower case.
    pub name: String,
    /// The first key's index, the last one's (negative: from the end) and the distance from key to key; `None` for a command
    /// without keys, which goes to the first shard.
    pub keys: Option<(u8, i16, u8)>,
    /// Whether it may change them.
    pub writes: bool,
}

thread_local! {
    static TAUGHT: Cell<Option<&'static HashMap<Vec<u8>, Spec>>> = const { Cell::new(None) };
}

/// Makes this thread know these commands, and no others beside the static table.
pub fn teach(commands: &[Described]) {
    let known = all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    let mut tags: HashSet<Tag> = known.map(|spec| spec.tag).collect();
    let mut taught = HashMap::new();
    for command in commands {
        let mut spec = spec(command);
        // No name but its own is to be found by it. There are 8192, and no file has as many commands.
        for _ in 0..1 << 13 {
            if tags.insert(spec.tag) {
                break;
            }
            spec.tag = spec.tag.next();
        }
        taught.insert(command.name.clone().into_bytes(), spec);
    }
    // Once for each start of a worker, and as large as the configuration.
    TAUGHT.set(if taught.is_empty() { None } else { Some(Box::leak(Box::new(taught))) });
}

/// All described commands.
pub(super) fn all_taught() -> impl Iterator<Item = &'static Spec> {
    TAUGHT.get().into_iter().flat_map(HashMap::values)
}

/// The described command of that name, in whatever case.
#[cold]
pub(super) fn taught(name: &[u8]) -> Option<&'static Spec> {
    TAUGHT.get()?.get(&name.to_ascii_lowercase())
}

fn spec(command: &Described) -> Spec {
    let name: &'static str = Box::leak(command.name.clone().into_boxed_str());
    let access = if command.writes { Access::Write } else { Access::Read };
    match command.keys {
        None => named(name, -1, Keys::None, access),
        Some((1, 1, _)) => named(name, -2, Keys::One, access),
        Some((first, last, step)) => {
            let least = last.max(i16::from(first)) + 1;
            named(name, -least, Keys::Range { first, last, step: step.max(1) }, access)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::words;
    use super::super::{Class, Treatment, each_key, identify, lookup};
    use super::*;
    use crate::resp::Request;

    #[test]
    fn a_described_command_is_found_by_its_tag() {
        // Many of these would have another's.
        let names: Vec<String> = (0..3000).map(|n| format!("m.{n}")).collect();
        let described = |name: &String| Described { name: name.clone(), keys: Some((1, 1, 1)), writes: false };
        teach(&names.iter().map(described).collect::<Vec<_>>());
        for name in &names {
            let tag = lookup(name.as_bytes()).expect("taught").tag;
            assert_eq!((tag.name(), tag.class()), (Some(name.as_str()), Class::Read));
        }
        assert_eq!(lookup(b"get").expect("a command").tag.name(), Some("get"));
        teach(&[]);
    }

    #[test]
    fn described_commands_are_known_to_the_thread_that_was_taught() {
        let described = |name: &str, keys, writes| Described { name: name.into(), keys, writes };
        teach(&[
            described("json.get", Some((1, 1, 1)), false),
            described("json.mget", Some((1, -2, 1)), false),
            described("get", None, true),
            described("m.info", None, false),
        ]);
        assert_eq!(lookup(b"GET").map(|spec| spec.access), Some(Access::Read));
        let spec = lookup(b"JSON.GET").expect("taught");
        assert_eq!((spec.treatment, spec.access), (Treatment::Forward, Access::Read));
        let wire = words("Json.Mget a b $.x");
        let request = Request::parse(&wire).expect("a request");
        let mut keys = Vec::new();
        let spec = identify(&request).expect("taught");
        each_key(spec, &request, &mut |_, key| keys.push(key)).expect("keys");
        assert_eq!(keys, [b"a", b"b"]);
        let short = words("json.get");
        assert!(identify(&Request::parse(&short).expect("a request")).is_err());
        teach(&[]);
        assert!(lookup(b"json.get").is_none());
    }
}
