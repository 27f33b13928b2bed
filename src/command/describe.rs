//! The table told to others: to clients (COMMAND INFO, HELP) and to the documentation.
//!
//! Deliberately absent: tips and key specifications of COMMAND INFO are empty; clients go by the first six elements.

use super::table::{CATEGORIES, FLAGS, flag};
use super::{Class, Keys, Merge, Need, Spec, Treatment, all};
use crate::resp::control::Control;

/// A command in the documentation's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Lower case; a subcommand's has a space where Redis has a bar: `xinfo stream`.
    pub name: String,
    /// As Redis counts: the number of arguments with the name, or, negative, the least number of them.
    pub arity: i16,
    /// What hotring does with it.
    pub does: String,
}

/// All commands, each followed by its subcommands, in the order of the table.
pub fn rows() -> impl Iterator<Item = Row> {
    all().flat_map(|spec| {
        // Most containers are nothing without a subcommand.
        let own = Some(spec).filter(|spec| spec.subcommands.is_empty() || spec.arity == -1);
        own.into_iter().chain(spec.subcommands).map(row)
    })
}

fn row(spec: &'static Spec) -> Row {
    let mut does = match spec.treatment {
        Treatment::Forward => match spec.keys {
            Keys::One | Keys::Range { first: 2, last: 2, .. } => "forwarded by its key".to_owned(),
            Keys::None => "forwarded to the first shard".to_owned(),
            Keys::Counted(_) if spec.class == Class::Script => {
                "forwarded if its keys are on one shard; without keys to the first shard".to_owned()
            }
            _ => "forwarded if its keys are on one shard".to_owned(),
        },
        Treatment::Split(Merge::Array) => "split by key, values gathered in order".to_owned(),
        Treatment::Split(Merge::Sum) => "split by key, counts added up".to_owned(),
        Treatment::Split(Merge::AllOk) => "split by key, OK once all shards have said so".to_owned(),
        Treatment::Split(_) => "split by key".to_owned(),
        Treatment::Broadcast(merge) => match merge {
            Merge::Sum => "sent to all shards, counts added up",
            Merge::AllOk => "sent to all shards, OK once all have said so",
            Merge::AnyOk => "sent to all shards, OK if one says so",
            Merge::Alike => "sent to all shards, which must answer alike",
            Merge::Least | Merge::Every => "sent to all shards, the least counts",
            Merge::Array | Merge::Concat | Merge::Union => "sent to all shards, their lists joined",
            Merge::Most => "sent to all shards, the greatest counts",
            Merge::Pairs => "sent to all shards, counts added up by name",
            Merge::Draw => "sent to all shards, one key drawn by their sizes",
            Merge::InTurn => "sent to one shard after the other, as the cursor tells",
        }
        .to_owned(),
        Treatment::Publish => "forwarded by its channel".to_owned(),
        Treatment::Own(Need::Transaction) => "on a connection of the app's own, to the shard of its keys".to_owned(),
        Treatment::Own(Need::Blocking) => "on a connection of the app's own, if its keys are on one shard".to_owned(),
        Treatment::Own(Need::Subscription) => "by subscriptions that all apps share".to_owned(),
        Treatment::Local(_) => "answered by hotring".to_owned(),
        Treatment::Refuse(why) => format!("refused: {}", why.in_short()),
    };
    if let Some(unless) = &spec.unless {
        does.push_str("; ");
        does.push_str(unless.words);
    }
    Row { name: spec.name.replace('|', " "), arity: spec.arity, does }
}

/// A command as COMMAND INFO tells it: an array of ten.
pub fn describe(spec: &Spec) -> Control {
    let (first, last, step) = spec.positions();
    Control::Array(vec![
        Control::bulk(spec.name),
        Control::Integer(spec.arity.into()),
        names(FLAGS, shown_flags(spec), ""),
        Control::Integer(first.into()),
        Control::Integer(last.into()),
        Control::Integer(step.into()),
        names(CATEGORIES, spec.categories(), "@"),
        Control::Set(vec![]),
        Control::Set(vec![]),
        match spec.subcommands {
            [] => Control::Set(vec![]),
            subcommands => Control::Array(subcommands.iter().map(describe).collect()),
        },
    ])
}

/// A command as COMMAND DOCS tells it, with its name: what hotring does with it, in Redis' groups.
pub fn document(spec: &'static Spec) -> (Control, Control) {
    use super::table::category as c;
    let group = [
        (c::STRING, "string"),
        (c::BITMAP, "bitmap"),
        (c::SORTED_SET, "sorted-set"),
        (c::SET, "set"),
        (c::LIST, "list"),
        (c::HASH, "hash"),
        (c::HYPERLOGLOG, "hyperloglog"),
        (c::GEO, "geo"),
        (c::STREAM, "stream"),
        (c::PUBSUB, "pubsub"),
        (c::TRANSACTION, "transactions"),
        (c::SCRIPTING, "scripting"),
        (c::CONNECTION, "connection"),
        (c::KEYSPACE, "generic"),
    ];
    let categories = spec.categories();
    let group = group.iter().find(|(bit, _)| categories & bit != 0).map_or("server", |(_, name)| name);
    let mut fields = vec![
        (Control::bulk("summary"), Control::bulk(row(spec).does)),
        (Control::bulk("since"), Control::bulk("")),
        (Control::bulk("group"), Control::bulk(group)),
    ];
    if !spec.subcommands.is_empty() {
        let subcommands = spec.subcommands.iter().map(document).collect();
        fields.push((Control::bulk("subcommands"), Control::Map(subcommands)));
    }
    (Control::bulk(spec.name), Control::Map(fields))
}

/// The lines with which a container of subcommands answers HELP.
pub fn help(container: &Spec) -> Control {
    let own = container.name.split('|').next().unwrap_or_default();
    let mut lines = vec![format!("{} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:", own.to_uppercase())];
    let subcommands = super::lookup(own.as_bytes()).map_or(&[] as &[Spec], |spec| spec.subcommands);
    lines.extend(subcommands.iter().map(|sub| sub.name[own.len() + 1..].to_uppercase()));
    Control::Array(lines.into_iter().map(Control::Simple).collect())
}

fn shown_flags(spec: &Spec) -> u32 {
    spec.flags | if spec.has_movable_keys() { flag::MOVABLE_KEYS } else { 0 }
}

impl Spec {
    /// The ACL categories of a command, bits of [`category`]: its own, and those that Redis derives from its flags.
    pub fn categories(&self) -> u32 {
        use super::table::category;
        let has = |bit: u32| self.flags & bit != 0;
        let mut set = self.categories;
        for (applies, implied) in [
            (has(flag::WRITE), category::WRITE),
            (has(flag::READONLY) && set & category::SCRIPTING == 0, category::READ),
            (has(flag::ADMIN), category::ADMIN | category::DANGEROUS),
            (has(flag::PUBSUB), category::PUBSUB),
            (has(flag::FAST), category::FAST),
            (!has(flag::FAST), category::SLOW),
            (has(flag::BLOCKING), category::BLOCKING),
        ] {
            if applies {
                set |= implied;
            }
        }
        set
    }
}

/// The bit that stands for an ACL category in [`Spec::categories`], by its name without `@`, in whatever case.
pub fn category(name: &str) -> Option<u32> {
    CATEGORIES.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|bit| 1 << bit)
}

/// The names of all ACL categories, without `@`, in the order of their bits.
pub fn category_names() -> &'static [&'static str] {
    CATEGORIES
}

fn names(all: &[&str], set: u32, prefix: &str) -> Control {
    let held = all.iter().enumerate().filter(|(bit, _)| set >> bit & 1 == 1);
    Control::Set(held.map(|(_, name)| Control::Simple(format!("{prefix}{name}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::super::lookup;
    use super::*;
    use crate::resp::control::encode;

    #[test]
    fn a_command_is_described_as_redis_does() {
        let mut wire = Vec::new();
        encode(&describe(lookup(b"zunionstore").expect("a command")), &mut wire);
        let text = "*10\r\n$11\r\nzunionstore\r\n:-4\r\n*3\r\n+write\r\n+denyoom\r\n+movablekeys\r\n:1\r\n:1\r\n:1\r\n\
                    *3\r\n+@write\r\n+@sortedset\r\n+@slow\r\n*0\r\n*0\r\n*0\r\n";
        assert_eq!(String::from_utf8_lossy(&wire), text);
    }

    #[test]
    fn help_names_the_subcommands() {
        let usage = "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:";
        let lines =
            [usage, "ENCODING", "FREQ", "HELP", "IDLETIME", "REFCOUNT"].map(|line| Control::Simple(line.into()));
        assert_eq!(help(lookup(b"object").expect("a command")), Control::Array(lines.to_vec()));
        let sub = &lookup(b"object").expect("a command").subcommands[0];
        assert_eq!(help(sub), Control::Array(lines.to_vec()));
    }

    #[test]
    fn rows_say_what_becomes_of_each() {
        let does = |name: &str| rows().find(|row| row.name == name).map(|row| row.does);
        assert_eq!(does("get").as_deref(), Some("forwarded by its key"));
        assert_eq!(does("xinfo stream").as_deref(), Some("forwarded by its key"));
        assert_eq!(
            does("xread").as_deref(),
            Some("forwarded if its keys are on one shard; with BLOCK on a connection of the app's own")
        );
        assert_eq!(does("del").as_deref(), Some("split by key, counts added up"));
        assert_eq!(does("scan").as_deref(), Some("sent to one shard after the other, as the cursor tells"));
        assert_eq!(does("object"), None);
        assert_eq!(does("command").as_deref(), Some("answered by hotring"));
        assert!(rows().count() > 350);
    }
}
