//! Times to live that are shortened a little, each by chance, so that what is written together does not expire together.
//!
//! Promises: a time is never made longer, nor shorter than by the part that was asked for; all other bytes of the request stay
//! as they are. Only what says how long a key is to live from now on, 10 seconds at least, in SET, SETEX, PSETEX, EXPIRE and
//! PEXPIRE. Left alone: what is set only where there is nothing (SET or EXPIRE with NX), since that is how locks are held for a
//! time that somebody counts on; EXPIRE with GT or LT, which compares times that must not be moved against each other; moments
//! (EXAT, PXAT, EXPIREAT); GETEX; SET with an option that is not known here; and whatever is no number as Redis wants it.

use crate::resp::{Request, write};

/// Shorter times are left alone, in milliseconds.
pub const LEAST: u64 = 10_000;
const SECOND: u64 = 1000;

/// Appends the request with a time to live that is up to `part` thousandths shorter, as `draw` decides, a number drawn by lot.
/// Returns false, and appends nothing, where it is to stay as it is.
pub fn shorten(name: &str, request: &Request<'_>, part: u16, draw: u64, out: &mut Vec<u8>) -> bool {
    let Some((at, unit)) = place(name, request) else { return false };
    let mut args = request.args();
    for _ in 0..at {
        args.next();
    }
    let (start, text, end) = (args.at(), args.next().unwrap_or_default(), args.at());
    let Some(time) = number(text).filter(|time| time.saturating_mul(unit) >= LEAST) else { return false };
    let most = u128::from(time).saturating_mul(part.into()) / 1000;
    let less = u64::try_from(u128::from(draw).checked_rem(most.saturating_add(1)).unwrap_or(0)).unwrap_or(0);
    let wire = request.wire();
    let (Some(before), Some(behind)) = (wire.get(..start), wire.get(end..)) else { return false };
    if less == 0 {
        return false;
    }
    out.extend_from_slice(before);
    let mut digits = [0; 20];
    write::bulk(out, decimal(time.saturating_sub(less), &mut digits));
    out.extend_from_slice(behind);
    true
}

/// Which argument is the time, and how many milliseconds its unit is.
fn place(name: &str, request: &Request<'_>) -> Option<(usize, u64)> {
    match name {
        "setex" => Some((2, SECOND)),
        "psetex" => Some((2, 1)),
        "expire" | "pexpire" => {
            let fits = request.args().skip(3).all(|option| option.eq_ignore_ascii_case(b"xx"));
            fits.then_some((2, if name == "expire" { SECOND } else { 1 }))
        }
        "set" => {
            let mut found = None;
            let mut options = request.args().enumerate().skip(3);
            while let Some((at, option)) = options.next() {
                let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
                if found.is_none() && (is("ex") || is("px")) {
                    options.next()?;
                    found = Some((at.saturating_add(1), if is("ex") { SECOND } else { 1 }));
                } else if !(is("xx") || is("get")) {
                    return None;
                }
            }
            found
        }
        _ => None,
    }
}

/// The digits of a number, at the end of a buffer that any has room in.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut first = digits.len();
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = b'0' | (number % 10) as u8;
        (number, first) = (number / 10, at);
        if number == 0 {
            break;
        }
    }
    digits.get(first..).unwrap_or_default()
}

/// A number as Redis reads it: digits, without a zero in front.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let plain = (1..=18).contains(&text.len()) && text.iter().all(u8::is_ascii_digit) && !text.starts_with(b"0");
    plain.then(|| {
        text.iter().fold(0, |number: u64, digit| number.saturating_mul(10).saturating_add(u64::from(digit & 15)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::splitmix;

    fn wire(line: &str) -> Vec<u8> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = Vec::new();
        write::request(&mut out, &words);
        out
    }

    /// What is made of it, as words; `None` if it stays.
    fn made(line: &str, part: u16, draw: u64) -> Option<String> {
        let wire = wire(line);
        let request = Request::parse(&wire).unwrap();
        let name = String::from_utf8_lossy(request.name()).to_lowercase();
        let mut out = b"before".to_vec();
        let changed = shorten(&name, &request, part, draw, &mut out);
        assert!(changed || out == b"before", "{line}");
        let made = Request::parse(out.get(6..).filter(|_| changed)?).unwrap();
        Some(made.args().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn only_the_time_changes() {
        for (line, shorter) in [
            ("SET k v EX 60", "SET k v EX 55"),
            ("set k v px 100000", "set k v px 99995"),
            ("SET k EX xx eX 60 GET", "SET k EX xx eX 55 GET"),
            ("SET EX 60 GET EX 100", "SET EX 60 GET EX 95"),
            ("SETEX k 60 v", "SETEX k 55 v"),
            ("PSETEX k 100000 60", "PSETEX k 99995 60"),
            ("EXPIRE k 60", "EXPIRE k 55"),
            ("Expire k 60 xX", "Expire k 55 xX"),
            ("PEXPIRE k 100000", "PEXPIRE k 99995"),
        ] {
            assert_eq!(made(line, 100, 5).as_deref(), Some(shorter), "{line}");
        }
    }

    #[test]
    fn all_else_stays_as_it_is() {
        for line in [
            "SET k v",
            "SET k v EX 60 NX",
            "SET k v nx EX 60",
            "SET k v EX 9",
            "SET k v PX 9999",
            "SET k v EXAT 2000000000",
            "SET k v PXAT 2000000000000",
            "SET k v KEEPTTL",
            "SET k v EX 60 PX 60000",
            "SET k v EX 60 IFEQ x",
            "SET k v EX",
            "SET k v EX 060",
            "SET k v EX +60",
            "SET k v EX -60",
            "SET k v EX 60.0",
            "SET k v EX 99999999999999999999",
            "SETEX k 9 v",
            "SETEX k x v",
            "EXPIRE k 60 NX",
            "EXPIRE k 60 GT",
            "EXPIRE k 60 XX LT",
            "PEXPIRE k 60000 lt",
            "EXPIREAT k 2000000000",
            "GETEX k EX 60",
            "SETNX k 60",
            "HEXPIRE k 60 FIELDS 1 f",
        ] {
            assert_eq!(made(line, 500, 5), None, "{line}");
        }
    }

    #[test]
    fn never_longer_and_never_shorter_than_by_its_part() {
        for (time, part) in [(10, 1), (10, 500), (60, 100), (3600, 333), (999_999_999_999_999_999, 500)] {
            for draw in (0..2_000).map(splitmix).chain([0, u64::MAX]) {
                let Some(made) = made(&format!("SET k v EX {time}"), part, draw) else { continue };
                let made: u64 = made.rsplit(' ').next().unwrap().parse().unwrap();
                let least = u128::from(time) * u128::from(1000 - part) / 1000;
                assert!(made < time && u128::from(made) >= least, "{made} of {time}, part {part}");
            }
        }
    }

    #[test]
    fn every_second_is_as_likely() {
        let mut found = [0; 61];
        for draw in (0..70_000).map(splitmix) {
            let made =
                made("SET k v EX 60", 100, draw).map_or(60, |made| made.rsplit(' ').next().unwrap().parse().unwrap());
            found[made] += 1;
        }
        assert!(
            found[..54].iter().all(|&n| n == 0) && found[54..].iter().all(|n| (9_500..10_500).contains(n)),
            "{found:?}"
        );
    }
}
