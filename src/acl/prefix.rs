//! How all names of a user's keys begin on the servers, where they share those with others.
//!
//! What is done with it, to which arguments and in which replies, is the engine's (`engine::tenant`).

use crate::units::Expected;

/// The longest, in bytes.
const LONGEST: usize = 128;

/// What prefixes must not begin with: names of servers' own channels, and of keys that hotring writes for itself.
const TAKEN: [&str; 3] = ["__key", "hk1:", "hotring:"];

/// A prefix, and as what it stands in patterns.
#[derive(Debug, PartialEq, Eq)]
pub struct Prefix {
    plain: Box<[u8]>,
    pattern: Box<[u8]>,
}

impl Prefix {
    /// None for an empty one: names are as the app writes them.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let escaped = |byte: u8| [b'\\', byte].into_iter().skip(usize::from(!b"*?[]^-\\".contains(&byte)));
        let pattern = text.bytes().flat_map(escaped).collect();
        (!text.is_empty()).then(|| Self { plain: text.as_bytes().into(), pattern })
    }

    /// As it stands before a name.
    #[must_use]
    pub fn plain(&self) -> &[u8] {
        &self.plain
    }

    /// As it stands before a glob pattern, where all its bytes mean themselves.
    #[must_use]
    pub fn pattern(&self) -> &[u8] {
        &self.pattern
    }
}

/// Whether a text can be a prefix, or, being empty, none.
///
/// # Errors
/// What was expected in its place.
pub fn check_prefix(text: &str) -> Result<(), Expected> {
    // SORT puts what it finds in the place of a pattern's first star.
    let odd = |c: char| c == '*' || c.is_control() || c.is_whitespace();
    if text.len() > LONGEST || text.contains(odd) {
        return Err(Expected::new(format!("how keys begin, at most {LONGEST} bytes without blanks and `*`")));
    }
    // Nor may an app's name behind it make one of these.
    let begins = |taken: &&str| !text.is_empty() && (text.starts_with(taken) || taken.starts_with(text));
    match TAKEN.into_iter().find(begins) {
        Some(taken) => {
            Err(Expected::new(format!("nothing that could begin as `{taken}` does, as names not of apps do")))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glob;

    #[test]
    fn a_pattern_behind_it_matches_its_own_keys_only() {
        for text in ["team-a:", "a?[b-c]\\d^:", "{t}:"] {
            let prefix = Prefix::new(text).unwrap();
            let pattern = [prefix.pattern(), b"x*"].concat();
            assert!(glob::matches(&pattern, format!("{text}xyz").as_bytes()), "{text}");
            assert!(!glob::matches(&pattern, b"ab[b-c]\\d^:xyz"), "{text}");
        }
        assert_eq!(Prefix::new(""), None);
    }

    #[test]
    fn what_is_no_prefix_is_told() {
        for text in ["", "team-a:", "a{b", "\u{fc}:", "_a", "hot:"] {
            assert!(check_prefix(text).is_ok(), "{text}");
        }
        for text in
            ["a b", "a*", "\r", "__keyspace@0__:", "__ke", "_", "hk1:", "h", "hotring:lease:x", &"x".repeat(129)]
        {
            assert!(check_prefix(text).is_err(), "{text}");
        }
    }
}
