//! How long a command that blocks may wait by its own words.
//!
//! Promises: an answer only where the words are understood. Does not promise that a server agrees to them.

use crate::resp::Request;

/// The time a blocking command gives itself, in microseconds; `None` where it waits without end, or says nothing that can be
/// understood.
#[must_use]
pub fn own_wait(name: &str, request: &Request<'_>) -> Option<u64> {
    let argc = request.argc();
    let (word, unit) = match name {
        "blpop" | "brpop" | "brpoplpush" | "blmove" | "bzpopmin" | "bzpopmax" => {
            (request.arg(argc.checked_sub(1)?)?, 1e6)
        }
        "blmpop" | "bzmpop" => (request.arg(1)?, 1e6),
        "wait" | "waitaof" => (request.arg(argc.checked_sub(1)?)?, 1e3),
        "xread" | "xreadgroup" => {
            let mut words = request.args().skip_while(|word| !word.eq_ignore_ascii_case(b"BLOCK"));
            (words.nth(1)?, 1e3)
        }
        _ => return None,
    };
    let wait = std::str::from_utf8(word).ok()?.parse::<f64>().ok()? * unit;
    (wait >= 1.0 && wait.is_finite()).then_some(wait as u64)
}

#[cfg(test)]
mod tests {
    use super::super::testing::words;
    use super::*;

    #[test]
    fn each_command_says_it_in_its_own_place() {
        for (line, wait) in [
            ("BLPOP a b 1.5", Some(1_500_000)),
            ("BLPOP a 0", None),
            ("BLPOP a -1", None),
            ("BLPOP a inf", None),
            ("BLPOP a soon", None),
            ("BLMOVE a b LEFT LEFT 2", Some(2_000_000)),
            ("BLMPOP 3 1 a LEFT", Some(3_000_000)),
            ("BZPOPMIN a 0.1", Some(100_000)),
            ("WAIT 1 250", Some(250_000)),
            ("WAITAOF 1 0 250", Some(250_000)),
            ("XREAD COUNT 2 block 40 STREAMS s $", Some(40_000)),
            ("XREADGROUP GROUP g c BLOCK 0 STREAMS s >", None),
            ("XREAD STREAMS s $", None),
            ("GET a", None),
        ] {
            let wire = words(line);
            let request = Request::parse(&wire).expect("a request");
            let spec = super::super::identify(&request).expect("a known command");
            assert_eq!(own_wait(spec.name, &request), wait, "{line}");
        }
    }
}
