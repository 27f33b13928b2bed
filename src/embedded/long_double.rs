//! The floats of `INCRBYFLOAT`: x87 extended precision (64 bits of mantissa, 15 of exponent), which is C's `long double`
//! where Redis usually runs, read like `strtold` and written like `%.17Lf` with the zeros taken off.
//!
//! Promises results equal to the last digit, by exact arithmetic on large integers and one rounding to nearest, ties to
//! even. Does not know NaN: what would be one is `None`.

use std::fmt;

/// The exponent of the lowest bit of the least number above zero.
const LEAST_EXPONENT: i32 = -16_445;
/// Every number is below two to this power.
const TOP_EXPONENT: i32 = 16_384;
/// The longest text Redis reads as a number, in bytes.
const MAX_TEXT: usize = 5 * 1_024 - 1;

/// A number, mantissa times two to the exponent, or infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LongDouble {
    negative: bool,
    infinite: bool,
    mantissa: u64,
    exponent: i32,
}

impl LongDouble {
    /// Zero.
    pub(super) const ZERO: LongDouble = LongDouble { negative: false, infinite: false, mantissa: 0, exponent: 0 };

    /// Reads decimal (`-1.5e3`) and hexadecimal (`0x1.8p3`) numbers and infinity, all of `text` and no spaces. What is too
    /// large for a number or, not being zero, too small is none.
    pub(super) fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let (negative, rest) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let lower = rest.to_ascii_lowercase();
        match lower.as_slice() {
            b"inf" | b"infinity" => Some(LongDouble { negative, infinite: true, ..LongDouble::ZERO }),
            [b'0', b'x', hexadecimal @ ..] => parse_hexadecimal(negative, hexadecimal),
            decimal => parse_decimal(negative, decimal),
        }
    }

    /// Whether it is a number.
    pub(super) fn is_finite(&self) -> bool {
        !self.infinite
    }

    /// The sum, if that is a number.
    pub(super) fn add(&self, other: &LongDouble) -> Option<LongDouble> {
        if self.infinite || other.infinite {
            return None;
        }
        if self.mantissa == 0 || other.mantissa == 0 {
            let zeros = self.mantissa == 0 && other.mantissa == 0;
            let sum = if self.mantissa == 0 { other } else { self };
            return Some(LongDouble { negative: sum.negative && (!zeros || self.negative == other.negative), ..*sum });
        }
        let exponent = self.exponent.min(other.exponent);
        let aligned = |number: &LongDouble| {
            let mut large = Large::from(number.mantissa);
            large.shift_left((number.exponent - exponent) as usize);
            large
        };
        let (mut one, mut two) = (aligned(self), aligned(other));
        let sum = if self.negative == other.negative {
            one.add(&two);
            round(self.negative, &one, exponent, false)
        } else if one.is_less(&two) {
            two.subtract(&one);
            round(other.negative, &two, exponent, false)
        } else {
            one.subtract(&two);
            round(self.negative && !one.is_zero(), &one, exponent, false)
        };
        sum.is_finite().then_some(sum)
    }
}

/// As Redis writes it: up to 17 decimals, no exponent, no zeros at the end, no negative zero.
impl fmt::Display for LongDouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DECIMALS: u32 = 17;
        const SCALE: u128 = 10_u128.pow(DECIMALS);
        let (whole, fraction) = if self.exponent >= 0 {
            let mut whole = Large::from(self.mantissa);
            whole.shift_left(self.exponent as usize);
            (whole.into_decimal(), 0)
        } else {
            // Below 2^121, so that a shift by more leaves less than a half.
            let scaled = u128::from(self.mantissa) * SCALE;
            let shift = self.exponent.unsigned_abs();
            let rounded = if shift > 125 {
                0
            } else {
                let (kept, cut, half) = (scaled >> shift, scaled & ((1 << shift) - 1), 1_u128 << (shift - 1));
                kept + u128::from(cut > half || (cut == half && kept & 1 == 1))
            };
            ((rounded / SCALE).to_string(), rounded % SCALE)
        };
        let fraction = format!("{fraction:017}");
        let fraction = fraction.trim_end_matches('0');
        let sign = if self.negative && (whole != "0" || !fraction.is_empty()) { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        write!(f, "{sign}{whole}{point}{fraction}")
    }
}

/// Splits `text` at the exponent's letter, reads the exponent, and gives the digits without their point, how many of them
/// stood behind it, and the exponent, which is held to a range that no rounding comes near.
fn split(text: &[u8], letter: u8, is_digit: fn(&u8) -> bool) -> Option<(Vec<u8>, i32, i32)> {
    const BOUND: i32 = 100_000;
    let (digits, exponent) = match text.iter().position(|&byte| byte == letter) {
        None => (text, 0),
        Some(at) => {
            let (negative, number) = match &text[at + 1..] {
                [b'-', number @ ..] => (true, number),
                [b'+', number @ ..] => (false, number),
                number => (false, number),
            };
            if number.is_empty() || !number.iter().all(u8::is_ascii_digit) {
                return None;
            }
            let number = number.iter().fold(0_i32, |sum, digit| (sum * 10 + i32::from(digit - b'0')).min(BOUND));
            (&text[..at], if negative { -number } else { number })
        }
    };
    let point = digits.iter().position(|&byte| byte == b'.');
    let behind = point.map_or(0, |point| digits.len() - point - 1);
    let digits: Vec<u8> =
        digits.iter().enumerate().filter(|&(at, _)| Some(at) != point).map(|(_, &digit)| digit).collect();
    (!digits.is_empty() && digits.iter().all(is_digit)).then_some((digits, behind as i32, exponent))
}

fn parse_decimal(negative: bool, text: &[u8]) -> Option<LongDouble> {
    let (digits, behind, exponent) = split(text, b'e', u8::is_ascii_digit)?;
    let power = exponent - behind;
    let mut large = Large::default();
    let mut significant = 0;
    for digit in digits {
        significant += i32::from(significant > 0 || digit != b'0');
        large.multiply_add(10, u32::from(digit - b'0'));
    }
    if significant == 0 {
        return Some(LongDouble { negative, ..LongDouble::ZERO });
    }
    // The number has so many digits before its point; the range ends at 1e4933 and at 1e-4951.
    if !(-5_000..=5_000).contains(&(significant + power)) {
        return None;
    }
    let number = if power >= 0 {
        powers_of_ten(power).for_each(|factor| large.multiply_add(factor, 0));
        round(negative, &large, 0, false)
    } else {
        // Enough bits that the quotient has more than a mantissa: 10 takes less than 10/3 of them and a bit.
        let shift = 80 + power.unsigned_abs() * 10 / 3 + power.unsigned_abs() / 10;
        large.shift_left(shift as usize);
        let mut sticky = false;
        powers_of_ten(-power).for_each(|divisor| sticky |= large.divide(divisor) != 0);
        round(negative, &large, -(shift as i32), sticky)
    };
    (number.is_finite() && number.mantissa != 0).then_some(number)
}

/// Factors that fit 32 bits and make up ten to the `power`.
fn powers_of_ten(power: i32) -> impl Iterator<Item = u32> {
    const MOST: u32 = 9;
    let power = power.unsigned_abs();
    let whole = std::iter::repeat_n(10_u32.pow(MOST), (power / MOST) as usize);
    whole.chain(std::iter::once(10_u32.pow(power % MOST)))
}

fn parse_hexadecimal(negative: bool, text: &[u8]) -> Option<LongDouble> {
    let (digits, behind, exponent) = split(text, b'p', u8::is_ascii_hexdigit)?;
    let mut large = Large::default();
    for digit in digits {
        large.multiply_add(16, char::from(digit).to_digit(16)?);
    }
    if large.is_zero() {
        return Some(LongDouble { negative, ..LongDouble::ZERO });
    }
    let number = round(negative, &large, exponent - 4 * behind, false);
    (number.is_finite() && number.mantissa != 0).then_some(number)
}

/// The nearest number to `magnitude` times two to the `exponent`; `sticky` says that a little more was cut off below.
fn round(negative: bool, magnitude: &Large, exponent: i32, sticky: bool) -> LongDouble {
    let shift = (magnitude.bits() as i32 - 64).max(LEAST_EXPONENT - exponent);
    let (mut mantissa, mut exponent) = (magnitude.window(shift.max(0) as usize), exponent + shift.max(0));
    if shift > 0 {
        let half = shift as usize - 1;
        let up = magnitude.bit(half) && (sticky || magnitude.any_below(half) || mantissa & 1 == 1);
        (mantissa, exponent) = match mantissa.checked_add(u64::from(up)) {
            Some(mantissa) => (mantissa, exponent),
            None => (1 << 63, exponent + 1),
        };
    }
    if mantissa == 0 {
        return LongDouble { negative, ..LongDouble::ZERO };
    }
    if exponent + 64 - mantissa.leading_zeros() as i32 > TOP_EXPONENT {
        return LongDouble { negative, infinite: true, ..LongDouble::ZERO };
    }
    LongDouble { negative, infinite: false, mantissa, exponent }
}

/// A natural number of any size, its lowest 32 bits first.
#[derive(Debug, Clone, Default)]
struct Large(Vec<u32>);

impl From<u64> for Large {
    fn from(number: u64) -> Large {
        Large(vec![number as u32, (number >> 32) as u32]).trimmed()
    }
}

impl Large {
    fn trimmed(mut self) -> Large {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    fn is_zero(&self) -> bool {
        self.0.iter().all(|&limb| limb == 0)
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    /// Divides by a number that is not 0 and returns the remainder.
    fn divide(&mut self, divisor: u32) -> u32 {
        let mut remainder = 0_u64;
        for limb in self.0.iter_mut().rev() {
            let part = remainder << 32 | u64::from(*limb);
            *limb = (part / u64::from(divisor)) as u32;
            remainder = part % u64::from(divisor);
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        remainder as u32
    }

    fn shift_left(&mut self, bits: usize) {
        if !bits.is_multiple_of(32) {
            self.multiply_add(1 << (bits % 32), 0);
        }
        self.0.splice(0..0, std::iter::repeat_n(0, bits / 32));
    }

    fn add(&mut self, other: &Large) {
        self.0.resize(self.0.len().max(other.0.len()) + 1, 0);
        let mut carry = 0_u64;
        for (at, limb) in self.0.iter_mut().enumerate() {
            carry += u64::from(*limb) + u64::from(other.0.get(at).copied().unwrap_or(0));
            *limb = carry as u32;
            carry >>= 32;
        }
    }

    /// Subtracts a number that is not greater.
    fn subtract(&mut self, other: &Large) {
        let mut borrow = 0_i64;
        for (at, limb) in self.0.iter_mut().enumerate() {
            borrow += i64::from(*limb) - i64::from(other.0.get(at).copied().unwrap_or(0));
            *limb = borrow as u32;
            borrow >>= 32;
        }
    }

    fn is_less(&self, other: &Large) -> bool {
        let limb = |number: &Large, at: usize| number.0.get(at).copied().unwrap_or(0);
        (0..self.0.len().max(other.0.len()))
            .rev()
            .map(|at| (limb(self, at), limb(other, at)))
            .find(|(one, two)| one != two)
            .is_some_and(|(one, two)| one < two)
    }

    fn bits(&self) -> usize {
        let top = self.0.iter().rposition(|&limb| limb != 0);
        top.map_or(0, |top| top * 32 + 32 - self.0[top].leading_zeros() as usize)
    }

    fn bit(&self, at: usize) -> bool {
        self.0.get(at / 32).is_some_and(|limb| limb >> (at % 32) & 1 == 1)
    }

    fn any_below(&self, bits: usize) -> bool {
        let whole = (bits / 32).min(self.0.len());
        self.0[..whole].iter().any(|&limb| limb != 0)
            || self.0.get(bits / 32).is_some_and(|limb| limb & ((1 << (bits % 32)) - 1) != 0)
    }

    /// The 64 bits from bit `from` upwards.
    fn window(&self, from: usize) -> u64 {
        let limb = |at: usize| u128::from(self.0.get(from / 32 + at).copied().unwrap_or(0));
        ((limb(0) | limb(1) << 32 | limb(2) << 64) >> (from % 32)) as u64
    }

    fn into_decimal(mut self) -> String {
        const GROUP: u32 = 1_000_000_000;
        let mut groups = Vec::new();
        while !self.is_zero() {
            groups.push(self.divide(GROUP));
        }
        let first = groups.pop().unwrap_or(0).to_string();
        groups.iter().rev().fold(first, |digits, group| digits + &format!("{group:09}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(one: &str, two: &str) -> Option<String> {
        Some(LongDouble::parse(one.as_bytes())?.add(&LongDouble::parse(two.as_bytes())?)?.to_string())
    }

    #[test]
    fn sums_are_those_of_a_long_double() {
        for (one, two, expected) in [
            ("10.5", "0.1", "10.6"),
            ("3.0e3", "200", "3200"),
            ("0.1", "0.2", "0.3"),
            ("5", "-5", "0"),
            ("-0.0", "0", "0"),
            ("-1", "0.5", "-0.5"),
            ("1e20", "3", "100000000000000000000"),
            ("1e20", "5", "100000000000000000008"),
            ("36893488147419103232", "1", "36893488147419103232"),
            ("9223372036854775807", "9223372036854775807", "18446744073709551614"),
            ("1", "1e-18", "1"),
            ("0x10", "0x1.8p1", "19"),
            ("-1e-30", "0", "0"),
        ] {
            assert_eq!(sum(one, two).as_deref(), Some(expected), "{one} + {two}");
        }
    }

    #[test]
    fn limits_are_those_of_a_long_double() {
        let reads = |text: &str| LongDouble::parse(text.as_bytes()).is_some();
        assert!(reads("1.18973149535723176502e4932") && !reads("1.18973149535723176509e4932"));
        assert!(reads("3.6e-4951") && !reads("1.8e-4951") && !reads("1e-99999999999"));
        assert!(reads("0e99999999999") && !reads("1e99999999999"));
        assert_eq!(sum("1e4932", "1e4932"), None);
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("1e4932", "0").map(|text| text.len()), Some(4_933));
        for text in ["", "-", ".", "e1", "1e", "1 ", " 1", "0x", "nan", "1e+", "1.2.3", "--1", "infinit"] {
            assert!(!reads(text), "{text:?}");
        }
        for text in ["1.", ".5", "+1", "1E5", "INF", "-Infinity", "0x.8"] {
            assert!(reads(text), "{text:?}");
        }
        assert!(!reads(&"1".repeat(MAX_TEXT + 1)));
        assert_eq!(LongDouble::parse("0".repeat(MAX_TEXT).as_bytes()), Some(LongDouble::ZERO));
    }
}
