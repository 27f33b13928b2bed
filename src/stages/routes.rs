//! Which keys of a pool live in other pools (`routes`): by how they begin.
//!
//! Promises: of several beginnings the longest counts, whatever order they were written in. A look-up compares a key with each
//! beginning at most once; there are a few hundred at the most, which the configuration sees to.

/// Beginnings of keys, and the pool that each leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// The longest first, so that the first that fits counts.
    all: Vec<(Box<[u8]>, String)>,
}

impl Routes {
    /// From beginnings and names of pools; of two that are alike the first counts.
    #[must_use]
    pub fn new(mut all: Vec<(Box<[u8]>, String)>) -> Self {
        // Stable: those of the same length stay as they were written.
        all.sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        Self { all }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Beginnings and names of pools, the longest beginning first.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &str)> {
        self.all.iter().map(|(beginning, pool)| (beginning.as_ref(), pool.as_str()))
    }

    /// The place of the route that a key takes, as [`Self::iter`] counts; `None` where it stays in its pool.
    #[must_use]
    #[inline]
    pub fn of(&self, key: &[u8]) -> Option<usize> {
        self.all.iter().position(|(beginning, _)| key.starts_with(beginning))
    }

    /// The same of what a pattern (as KEYS and SCAN take it) begins with, so that all it stands for takes that route or a longer one;
    /// `None` where some of it may stay.
    #[must_use]
    pub fn of_pattern(&self, pattern: &[u8]) -> Option<usize> {
        let literal = pattern.iter().position(|byte| b"*?[\\".contains(byte)).unwrap_or(pattern.len());
        self.of(pattern.get(..literal)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(all: &[(&str, &str)]) -> Routes {
        Routes::new(all.iter().map(|(beginning, pool)| (beginning.as_bytes().into(), (*pool).to_owned())).collect())
    }

    fn pool<'a>(routes: &'a Routes, key: &str) -> Option<&'a str> {
        routes.of(key.as_bytes()).and_then(|at| routes.iter().nth(at)).map(|(_, pool)| pool)
    }

    #[test]
    fn the_longest_beginning_counts_in_whatever_order() {
        for all in [
            [("user:", "users"), ("user:session:", "sessions"), ("u", "rest")],
            [("u", "rest"), ("user:session:", "sessions"), ("user:", "users")],
        ] {
            let routes = routes(&all);
            assert_eq!(pool(&routes, "user:session:1"), Some("sessions"));
            assert_eq!(pool(&routes, "user:session"), Some("users"));
            assert_eq!(pool(&routes, "user:"), Some("users"));
            assert_eq!(pool(&routes, "user"), Some("rest"));
            assert_eq!(pool(&routes, "xuser:"), None);
            assert_eq!(pool(&routes, ""), None);
        }
    }

    #[test]
    fn a_pattern_takes_a_route_where_all_it_stands_for_do() {
        let routes = routes(&[("a:", "one")]);
        for (pattern, to) in [
            ("a:*", Some(0)),
            ("a:", Some(0)),
            ("a:[bc]?", Some(0)),
            ("a*", None),
            ("*", None),
            ("[a]:*", None),
            ("", None),
        ] {
            assert_eq!(routes.of_pattern(pattern.as_bytes()), to, "{pattern}");
        }
    }
}
