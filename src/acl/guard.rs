//! What nobody may do in a pool, whoever they are: commands that are denied, writes, keys and values that are too long.
//!
//! Promises: a request that is refused is refused as a whole, before anything of it is sent; a request within the bounds costs
//! a look at its command's bit and at its length, and a walk over its arguments only where one of them may be too long.
//!
//! Does not: look into scripts. What a script may write is told by its command: EVAL, EVALSHA and FCALL may, EVAL_RO,
//! EVALSHA_RO and FCALL_RO may not, since the server itself holds these to it.

use super::commands::Commands;
use super::rules::find;
use crate::command::{self, Access, Described, Keys, Spec, flag};
use crate::resp::{Arriving, Request};
use crate::units::{Expected, Size};

/// What nobody may do in a pool, as the configuration has it: words that are checked, but still words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denials {
    /// Commands (`keys`), subcommands (`config|set`), categories (`@dangerous`) and commands of modules that the configuration
    /// describes; in lower case, as [`denial`] reads them.
    pub commands: Vec<String>,
    /// Whatever may write is refused.
    pub read_only: bool,
    /// Bytes that a key may have.
    pub max_key: Option<u64>,
    /// Bytes that an argument of a write may have that is no key.
    pub max_value: Option<u64>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// Its command is denied.
    Command,
    /// It may write.
    Write,
    /// A key is too long.
    Key {
        /// Bytes that it has.
        bytes: u64,
        /// Bytes that it may have.
        most: u64,
    },
    /// What is written is too long.
    Value {
        /// Bytes that it has.
        bytes: u64,
        /// Bytes that it may have.
        most: u64,
    },
}

impl Barred {
    /// The key of the configuration that says so.
    #[must_use]
    pub const fn by(self) -> &'static str {
        match self {
            Self::Command => "deny_commands",
            Self::Write => "read_only",
            Self::Key { .. } => "max_key",
            Self::Value { .. } => "max_value",
        }
    }

    /// Appends the error's text, without the `-` before and the line break after it. `spec` is what [`command::identify`] gave.
    pub fn write(self, spec: &Spec, out: &mut Vec<u8>) {
        if spec.name == "exec" {
            // An EXEC that is denied ends the transaction all the same.
            out.extend(b"EXECABORT Transaction discarded because of: ");
        }
        let text = match self {
            Self::Command => {
                format!(
                    "NOPERM the '{}' command is denied by 'deny_commands' of this pool; nothing was sent",
                    spec.name
                )
            }
            // The first words are what clients know a replica by.
            Self::Write => {
                "READONLY You can't write against a read only pool: 'read_only' is set; nothing was sent".to_owned()
            }
            Self::Key { bytes, most } => too_long("key", bytes, "max_key", most),
            Self::Value { bytes, most } => too_long("value", bytes, "max_value", most),
        };
        out.extend(text.as_bytes());
    }
}

fn too_long(what: &str, bytes: u64, by: &str, most: u64) -> String {
    format!("ERR a {what} of {bytes} bytes is longer than '{by}' of this pool ({}); nothing was sent", Size::from(most))
}

/// What [`Denials`] come to. Immutable.
#[derive(Clone, Debug)]
pub struct Guard {
    /// What is not denied; `None` is everything.
    commands: Option<Commands>,
    /// Denied commands that the configuration describes.
    described: Vec<Box<str>>,
    read_only: bool,
    /// No bound is as many as there can be.
    max_key: u64,
    max_value: u64,
}

impl Guard {
    /// `None` where nothing is denied.
    #[must_use]
    pub fn new(denials: &Denials) -> Option<Self> {
        if *denials == Denials::default() {
            return None;
        }
        let (mut commands, mut described) = (None, Vec::new());
        for word in &denials.commands {
            let allowed = commands.get_or_insert_with(|| {
                let mut all = Commands::none();
                all.set_all(true);
                all
            });
            if word == "@all" {
                allowed.set_all(false);
            } else if let Some(category) = word.strip_prefix('@').and_then(command::category) {
                allowed.set_category(category, false);
            } else if let Some(spec) = find(word).filter(|spec| spec.number().is_some()) {
                allowed.set(spec, false);
            } else {
                described.push(word.as_str().into());
            }
        }
        let (max_key, max_value) = (denials.max_key.unwrap_or(u64::MAX), denials.max_value.unwrap_or(u64::MAX));
        Some(Self { commands, described, read_only: denials.read_only, max_key, max_value })
    }

    /// Whether a request may be carried out. `spec` is what [`command::identify`] gave.
    ///
    /// # Errors
    /// What is against it.
    pub fn check(&self, spec: &'static Spec, request: &Request<'_>) -> Result<(), Barred> {
        let spec = spec.leaf(request);
        self.check_command(spec, request)?;
        // No argument is longer than the request.
        if request.wire().len() as u64 > self.max_key.min(self.max_value) {
            self.check_lengths(spec, request)?;
        }
        Ok(())
    }

    /// The same for a request of which there is no more than its front, and whose keys get so many bytes put `before` them: `None`
    /// where it has to be looked at as a whole. Of the arguments before the one that is arriving the key is looked at where there is
    /// but one.
    #[must_use]
    pub fn check_front(&self, spec: &'static Spec, front: &Arriving<'_>, before: u64) -> Option<Result<(), Barred>> {
        if !spec.subcommands.is_empty() {
            return None;
        }
        if let Err(barred) = self.check_command(spec, &Request::parse(b"*1\r\n$0\r\n\r\n")?) {
            return Some(Err(barred));
        }
        let value = if may_write(spec) { self.max_value } else { u64::MAX };
        let key = if spec.flags & flag::PUBSUB == 0 { self.max_key } else { u64::MAX };
        let long_key = |bytes: u64| {
            let bytes = bytes.saturating_add(before);
            (bytes > key).then_some(Barred::Key { bytes, most: key })
        };
        if matches!(spec.keys, Keys::One)
            && front.index > 1
            && let Some(barred) = front.args().nth(1).and_then(|key| long_key(key.len() as u64))
        {
            return Some(Err(barred));
        }
        let barred_key = || long_key(front.bytes);
        let barred_value = || (front.bytes > value).then_some(Barred::Value { bytes: front.bytes, most: value });
        let barred = match is_key(spec, front) {
            Some(true) => barred_key(),
            Some(false) => barred_value(),
            // Too long for either.
            None if front.bytes > key.max(value) => barred_value(),
            None if front.bytes > key.min(value) => return None,
            None => None,
        };
        match barred {
            Some(barred) => Some(Err(barred)),
            // What is to come behind it may be too long.
            None if front.more > 0 && key.min(value) < u64::MAX => None,
            None => Some(Ok(())),
        }
    }

    fn check_command(&self, spec: &Spec, request: &Request<'_>) -> Result<(), Barred> {
        // How a session says who it is, and how it ends, cannot be denied.
        if spec.flags & flag::NO_AUTH != 0 {
            return Ok(());
        }
        let denied = self.commands.as_ref().is_some_and(|allowed| !allowed.allow(spec, request))
            || self.described.iter().any(|name| name.as_bytes() == spec.name.as_bytes());
        if denied {
            return Err(Barred::Command);
        }
        if self.read_only && may_write(spec) { Err(Barred::Write) } else { Ok(()) }
    }

    #[cold]
    fn check_lengths(&self, spec: &'static Spec, request: &Request<'_>) -> Result<(), Barred> {
        let value = if may_write(spec) { self.max_value } else { u64::MAX };
        let key = if spec.flags & flag::PUBSUB == 0 { self.max_key } else { u64::MAX };
        let least = key.min(value);
        if !request.args().skip(1).any(|argument| argument.len() as u64 > least) {
            return Ok(());
        }
        let mut keys = Vec::new();
        // One whose keys cannot be told is refused for that.
        let _ = command::each_key(spec, request, &mut |at, _| keys.push(at));
        keys.sort_unstable();
        let mut keys = keys.into_iter().peekable();
        for (at, argument) in request.args().enumerate() {
            let bytes = argument.len() as u64;
            match keys.next_if_eq(&at) {
                Some(_) if bytes > key => return Err(Barred::Key { bytes, most: key }),
                None if at > 0 && bytes > value => return Err(Barred::Value { bytes, most: value }),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a command may change what is stored.
fn may_write(spec: &Spec) -> bool {
    spec.access == Access::Write || spec.flags & flag::WRITE != 0
}

/// Whether the argument that is arriving is a key, as far as that can be told without those behind it.
fn is_key(spec: &Spec, front: &Arriving<'_>) -> Option<bool> {
    let (at, argc) = (i64::from(front.index), i64::from(front.argc));
    match spec.keys {
        Keys::None => Some(false),
        Keys::One => Some(at == 1),
        Keys::Range { first, last, step } => {
            let first = i64::from(first);
            let last = if last < 0 { argc.checked_add(i64::from(last))? } else { i64::from(last) };
            let from_first = at.checked_sub(first)?;
            Some((first..=last).contains(&at) && from_first.checked_rem(i64::from(step)) == Some(0))
        }
        Keys::Counted(counted) if at > i64::from(counted.at) => {
            let count = command::integer(front.args().nth(usize::from(counted.at))?)?;
            Some(at <= count.checked_add(i64::from(counted.at))?)
        }
        Keys::Counted(counted) => Some(counted.stores && at == 1),
        Keys::Streams { .. } | Keys::Movable(_) => None,
    }
}

/// One entry of `deny_commands`, in lower case and with a bar before a subcommand. `described` are the commands that the
/// configuration describes.
///
/// # Errors
/// It is no command, subcommand or category, or one that cannot be denied.
pub fn denial(text: &str, described: &[Described]) -> Result<String, Expected> {
    let word = text.split_ascii_whitespace().collect::<Vec<_>>().join("|").to_ascii_lowercase();
    if let Some(category) = word.strip_prefix('@') {
        let names = || Expected::new(format!("a category: `@all`, `@{}`", command::category_names().join("`, `@")));
        let known = category == "all" || command::category(category).is_some();
        return if known { Ok(word) } else { Err(names()) };
    }
    match find(&word) {
        Some(spec) if spec.flags & flag::NO_AUTH != 0 => {
            Err(Expected::new("no command by which a session says who it is, or ends"))
        }
        Some(_) => Ok(word),
        None if described.iter().any(|command| command.name.eq_ignore_ascii_case(&word)) => Ok(word),
        None => Err(Expected::new(
            "a command such as `KEYS`, a subcommand such as `CONFIG SET` or a category such as `@dangerous`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{Limits, Resume, Scan, arriving, scan};

    fn wire(line: &str) -> Vec<u8> {
        let args: Vec<&str> = line.split(' ').collect();
        let mut wire = format!("*{}\r\n", args.len());
        for arg in args {
            wire += &format!("${}\r\n{arg}\r\n", arg.len());
        }
        wire.into_bytes()
    }

    fn guard(denials: Denials) -> Guard {
        Guard::new(&denials).expect("something is denied")
    }

    fn check(guard: &Guard, line: &str) -> Result<(), Barred> {
        let wire = wire(line);
        let request = Request::parse(&wire).expect("a request");
        guard.check(command::identify(&request).unwrap_or_else(|fault| panic!("{line}: {fault:?}")), &request)
    }

    fn denied(words: &[&str]) -> Guard {
        let commands = words.iter().map(|word| denial(word, &[]).expect("a word")).collect();
        guard(Denials { commands, ..Denials::default() })
    }

    #[test]
    fn commands_subcommands_and_categories_are_denied() {
        let guard = denied(&["KEYS", "Config  Set", "@scripting"]);
        for line in ["KEYS *", "keys a", "CONFIG SET a b", "EVAL x 0", "FCALL x 0", "SCRIPT LOAD x"] {
            assert_eq!(check(&guard, line), Err(Barred::Command), "{line}");
        }
        for line in ["GET a", "CONFIG GET a", "SCAN 0", "FLUSHALL", "AUTH x"] {
            assert_eq!(check(&guard, line), Ok(()), "{line}");
        }
        assert_eq!(check(&denied(&["client"]), "CLIENT ID"), Err(Barred::Command), "a container with all it has");
        assert_eq!(check(&denied(&["@all"]), "PING"), Err(Barred::Command));
        assert_eq!(check(&denied(&["@all"]), "HELLO 3"), Ok(()));
    }

    #[test]
    fn what_is_no_command_cannot_be_denied() {
        for word in ["keyz", "", "@", "@nonsense", "config sett", "get set", "AUTH", "quit", "bf.add"] {
            assert!(denial(word, &[]).is_err(), "{word}");
        }
        let described = [Described { name: "bf.add".into(), keys: None, writes: true }];
        assert_eq!(denial("BF.ADD", &described).expect("described"), "bf.add");
    }

    #[test]
    fn read_only_refuses_what_a_replica_refuses() {
        let guard = guard(Denials { read_only: true, ..Denials::default() });
        for line in
            ["SET a 1", "DEL a", "GETEX a", "EVAL x 0", "EVALSHA x 0", "FCALL f 0", "SORT a", "FLUSHALL", "BLPOP a 0"]
        {
            assert_eq!(check(&guard, line), Err(Barred::Write), "{line}");
        }
        for line in [
            "GET a",
            "EVAL_RO x 0",
            "FCALL_RO f 0",
            "PUBLISH c m",
            "SORT_RO a",
            "MULTI",
            "EXEC",
            "WATCH a",
            "SCRIPT LOAD x",
        ] {
            assert_eq!(check(&guard, line), Ok(()), "{line}");
        }
    }

    #[test]
    fn lengths_count_what_they_are_of() {
        let guard = guard(Denials { max_key: Some(4), max_value: Some(8), ..Denials::default() });
        let key = |bytes| Err(Barred::Key { bytes, most: 4 });
        let value = |bytes| Err(Barred::Value { bytes, most: 8 });
        for (line, expected) in [
            ("SET abcd 12345678", Ok(())),
            ("SET abcde 1", key(5)),
            ("GET abcde", key(5)),
            ("SET a 123456789", value(9)),
            ("MSET a 1 b 2 c 123456789", value(9)),
            ("MSET a 1 abcde 2", key(5)),
            ("ECHO 123456789", Ok(())),
            ("PUBLISH channel 123456789", Ok(())),
            ("SUBSCRIBE a-long-channel", Ok(())),
            ("HSET a a-long-field 1", value(12)),
            ("GETRANGE a 0 123456789", Ok(())),
            ("EVAL return 1 abcde", key(5)),
            ("EVAL return 1 abcd 123456789", value(9)),
        ] {
            assert_eq!(check(&guard, line), expected, "{line}");
        }
    }

    #[test]
    fn the_front_says_what_the_whole_would() {
        let guard = guard(Denials { max_key: Some(4), max_value: Some(8), read_only: false, ..Denials::default() });
        let mut asked = 0;
        for line in [
            "SET a 123456789",
            "SET abcde 1",
            "MSET a 1 b 123456789 c 1",
            "MSET a 1 abcde 2",
            "EVAL 123456789 0",
            "EVAL x 1 abcde",
            "EVAL x 1 a 123456789",
            "GET abcde",
            "ECHO 123456789",
            "XADD a * f 123456789",
            "SINTERSTORE abcde b",
        ] {
            let wire = wire(line);
            let whole = check(&guard, line);
            let mut told = Ok(());
            let mut resume = Resume::default();
            for end in 1..wire.len() {
                let there = wire.get(..end).expect("a part");
                assert!(matches!(scan(there, &mut resume, &Limits::default()), Ok(Scan::Incomplete { .. })), "{line}");
                let Some(front) = arriving(there, &resume) else { continue };
                let spec = command::lookup(front.name).expect("a command");
                asked += 1;
                if let Some(Err(barred)) = guard.check_front(spec, &front, 0) {
                    told = Err(barred);
                    break;
                }
            }
            assert_eq!(told, whole, "{line}");
        }
        assert!(asked > 40, "{asked}");
    }
}
