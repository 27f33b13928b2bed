//! Redis' ACL rules, word by word; a later one wins.

use super::Wrong;
use super::access::{READ, WRITE};
use super::commands::Commands;
use crate::command::{self, Spec};
use crate::units::{Expected, MASK};

/// What rules come to.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) enabled: bool,
    pub(super) commands: Commands,
    /// `None`: all keys.
    pub(super) keys: Option<Vec<KeyPattern>>,
    /// `None`: all channels.
    pub(super) channels: Option<Vec<Box<[u8]>>>,
}

/// Keys, and what may be done with them.
#[derive(Clone, Debug)]
pub(super) struct KeyPattern {
    pub(super) glob: Box<[u8]>,
    /// [`READ`], [`WRITE`] or both.
    pub(super) access: u8,
}

const RULE: &str = "a rule such as `+@read`, `-flushall`, `~app:*`, `%R~app:*`, `&news:*`, `on` or `off`";
const COMMAND: &str = "a command, or a subcommand such as `config|get`";
const NO_PASSWORD: &str = "rules without passwords; these stand beside `rules`";

impl Rules {
    /// Reads rules with blanks between them, and tells which are none. Without any the user is on and may do nothing.
    pub(super) fn read(text: &str) -> (Self, Vec<Wrong>) {
        let mut rules =
            Self { enabled: true, commands: Commands::none(), keys: Some(Vec::new()), channels: Some(Vec::new()) };
        let mut wrong = Vec::new();
        for word in text.split_ascii_whitespace() {
            if let Err(expected) = rules.apply(word) {
                wrong.push(Wrong { read: shown(word), expected });
            }
        }
        (rules, wrong)
    }

    fn apply(&mut self, word: &str) -> Result<(), Expected> {
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        if let Some(rest) = word.strip_prefix('+') {
            return self.command(rest, true);
        } else if let Some(rest) = word.strip_prefix('-') {
            return self.command(rest, false);
        } else if is("allkeys") || word == "~*" {
            self.keys = None;
        } else if let Some(glob) = word.strip_prefix('~') {
            return self.key(glob, READ | WRITE);
        } else if let Some(rest) = word.strip_prefix('%') {
            return self.limited_key(rest);
        } else if is("resetkeys") {
            self.keys = Some(Vec::new());
        } else if is("allchannels") || word == "&*" {
            self.channels = None;
        } else if let Some(glob) = word.strip_prefix('&') {
            let channels = self.channels.as_mut().ok_or_else(|| {
                Expected::new("no further pattern: all channels are allowed, `resetchannels` takes that back")
            })?;
            channels.push(glob.as_bytes().into());
        } else if is("resetchannels") {
            self.channels = Some(Vec::new());
        } else if is("allcommands") {
            self.commands.set_all(true);
        } else if is("nocommands") {
            self.commands.set_all(false);
        } else if is("on") || is("off") {
            self.enabled = is("on");
        } else if is("sanitize-payload") || is("skip-sanitize-payload") {
            // What ACL LIST says of each user; RESTORE's payload is looked at by the server.
        } else if word.starts_with(['>', '<', '#', '!']) || is("nopass") || is("resetpass") {
            return Err(Expected::new(NO_PASSWORD));
        } else {
            return Err(Expected::new(RULE));
        }
        Ok(())
    }

    fn command(&mut self, rest: &str, allow: bool) -> Result<(), Expected> {
        if let Some(category) = rest.strip_prefix('@') {
            if category.eq_ignore_ascii_case("all") {
                self.commands.set_all(allow);
                return Ok(());
            }
            let names = || Expected::new(format!("a category: `@all`, `@{}`", command::category_names().join("`, `@")));
            self.commands.set_category(command::category(category).ok_or_else(names)?, allow);
            return Ok(());
        }
        if let Some(spec) = find(rest) {
            self.commands.set(spec, allow);
            return Ok(());
        }
        // Not a command or subcommand: a command that may have this one first argument.
        let unknown = || Expected::new(COMMAND);
        let (name, argument) = rest.rsplit_once('|').ok_or_else(unknown)?;
        let spec = command::lookup(name.as_bytes()).filter(|spec| spec.subcommands.is_empty()).ok_or_else(unknown)?;
        if !allow || argument.is_empty() {
            return Err(Expected::new(format!("{COMMAND}; first arguments can be allowed, not denied")));
        }
        self.commands.allow_argument(spec, argument);
        Ok(())
    }

    fn limited_key(&mut self, rest: &str) -> Result<(), Expected> {
        let (kinds, glob) = rest.split_once('~').ok_or_else(|| Expected::new(RULE))?;
        let mut access = 0;
        for kind in kinds.bytes() {
            access |= match kind {
                b'R' | b'r' => READ,
                b'W' | b'w' => WRITE,
                _ => 0x80,
            };
        }
        if access == 0 || access & 0x80 != 0 {
            return Err(Expected::new("`%R~pattern` to read, `%W~pattern` to write or `%RW~pattern` for both"));
        }
        self.key(glob, access)
    }

    fn key(&mut self, glob: &str, access: u8) -> Result<(), Expected> {
        let keys = self
            .keys
            .as_mut()
            .ok_or_else(|| Expected::new("no further pattern: all keys are allowed, `resetkeys` takes that back"))?;
        // As in Redis `%R~x %W~x` is `~x`, whereas two patterns that are written differently never add up.
        match keys.iter_mut().find(|known| *known.glob == *glob.as_bytes()) {
            Some(known) => known.access |= access,
            None => keys.push(KeyPattern { glob: glob.as_bytes().into(), access }),
        }
        Ok(())
    }
}

/// A command, or a subcommand behind a bar.
pub(super) fn find(name: &str) -> Option<&'static Spec> {
    match name.split_once('|') {
        None => command::lookup(name.as_bytes()),
        Some((container, _)) => {
            command::lookup(container.as_bytes())?.subcommands.iter().find(|sub| sub.name.eq_ignore_ascii_case(name))
        }
    }
}

/// A rule in a message: of one that holds a password only the sign before it.
fn shown(word: &str) -> String {
    match word.chars().next() {
        Some(sign @ ('>' | '<' | '#' | '!')) => format!("{sign}{MASK}"),
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> Vec<String> {
        Rules::read(text).1.into_iter().map(|wrong| format!("{}: {}", wrong.read, wrong.expected)).collect()
    }

    #[test]
    fn every_rule_of_redis_is_read() {
        let text = "on off +@all -@ALL +@Read -@sortedset +get -GET +config|get -CONFIG|SET +client allcommands nocommands \
                    +select|0 ~a ~* resetkeys %R~a %W~a %rw~b %WR~c allkeys ResetKeys ~ &a &* resetchannels allchannels \
                    resetchannels & sanitize-payload skip-sanitize-payload";
        assert_eq!(wrong(text), [""; 0]);
        assert_eq!(wrong(" \t\n"), [""; 0]);
    }

    #[test]
    fn what_is_no_rule_is_told() {
        for word in [
            "x",
            "+",
            "-",
            "+@",
            "+@x",
            "++",
            "+nonsense",
            "-nonsense",
            "+config|x",
            "-config|x",
            "+get|",
            "-get|x",
            "+config|get|x",
            "+get|x|y",
            "%~x",
            "%X~x",
            "%RX~x",
            "%R",
            "%",
            "nopass",
            "resetpass",
            "(~a",
            "reset",
            "*",
        ] {
            let said = wrong(word);
            assert_eq!(said.len(), 1, "{word}: {said:?}");
            assert!(said[0].starts_with(&format!("{word}: ")), "{said:?}");
        }
        assert!(wrong("~* ~a")[0].contains("resetkeys"));
        assert!(wrong("allchannels &a")[0].contains("resetchannels"));
        assert!(wrong("+@x")[0].contains("`@sortedset`"));
    }

    #[test]
    fn passwords_in_rules_are_not_shown() {
        for sign in [">", "<", "#", "!"] {
            let said = wrong(&format!("{sign}hush"));
            assert_eq!(said.len(), 1);
            assert!(!said[0].contains("hush") && said[0].contains("beside `rules`"), "{said:?}");
        }
    }
}
