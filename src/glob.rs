//! Redis' glob patterns, for `KEYS`, `SCAN` and `HSCAN` and for the keys and channels of users: `*`, `?`, `[a-z]`, `[^a]` and
//! `\` before a literal.
//!
//! Promises time of at most pattern times text: only the last `*` is ever gone back to, which suffices because a later
//! star can take whatever an earlier one could have.

/// Whether all of `text` matches all of `pattern`. As in Redis no pattern but the empty one matches the empty text; the
/// commands treat a lone `*` as no pattern at all.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut p, mut t) = (0, 0);
    // Where to go on when a comparison fails: behind the last star, one byte later in the text.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            while pattern.get(p) == Some(&b'*') {
                p += 1;
            }
            if p == pattern.len() {
                return true;
            }
            retry = Some((p, t));
        } else if let Some(next) = step(pattern, p, text[t]) {
            p = next;
            t += 1;
            if t == text.len() {
                while pattern.get(p) == Some(&b'*') {
                    p += 1;
                }
                if p == pattern.len() {
                    return true;
                }
                // What is left of the pattern needs more text, and going back to a star leaves less of the pattern
                // matched, so a shorter remainder may still fit.
                match retry {
                    Some((star, from)) if from + 1 < text.len() => {
                        retry = Some((star, from + 1));
                        (p, t) = (star, from + 1);
                    }
                    _ => return false,
                }
            }
        } else {
            match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    (p, t) = (star, from + 1);
                }
                None => return false,
            }
        }
    }
    false
}

/// Matches one byte against the pattern's element at `at`, which is no star; where the next element is, if it matches.
fn step(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => class(pattern, at + 1, byte),
        b'\\' if at + 1 < pattern.len() => (pattern[at + 1] == byte).then_some(at + 2),
        literal => (literal == byte).then_some(at + 1),
    }
}

/// Matches one byte against the class whose first byte within the brackets is at `at`. A class without its closing
/// bracket ends with the pattern.
fn class(pattern: &[u8], mut at: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(at) == Some(&b'^');
    if negated {
        at += 1;
    }
    let mut found = false;
    loop {
        match &pattern[at.min(pattern.len())..] {
            [] => break,
            [b'\\', literal, ..] => {
                found |= *literal == byte;
                at += 2;
            }
            [b']', ..] => {
                at += 1;
                break;
            }
            [first, b'-', last, ..] => {
                // C's `char` is signed where Redis usually runs, and so are its ranges.
                let (first, last) = (first.cast_signed(), last.cast_signed());
                found |= (first.min(last)..=first.max(last)).contains(&byte.cast_signed());
                at += 3;
            }
            [literal, ..] => {
                found |= *literal == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "a", true),
            ("a*", "a", true),
            ("a**", "a", true),
            ("*a", "ba", true),
            ("*a", "ab", false),
            ("*ab", "aab", true),
            ("*a?", "aab", true),
            ("*a*b*c", "xaybzc", true),
            ("*a*b*c", "xaybz", false),
            ("a?c", "abc", true),
            ("a?", "a", false),
            ("[a-c]x", "bx", true),
            ("[c-a]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[\\]]", "]", true),
            ("[a", "a", true),
            ("[^", "a", true),
            ("[", "a", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\", "\\", true),
            ("", "a", false),
            ("", "", true),
            ("**", "", false),
            ("user:*:x", "user:1:2:x", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "a*".repeat(50) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(5_000).as_bytes()));
    }
}
