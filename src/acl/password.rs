//! Passwords: nothing but their SHA-256 is kept, as in Redis.

use sha2::{Digest as _, Sha256};
use std::fmt;

use crate::units::{Expected, MASK};

/// The SHA-256 of a password.
#[derive(Clone)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// Of a password itself.
    pub(super) fn of(password: &[u8]) -> Self {
        Self(Sha256::digest(password).into())
    }

    /// Of a password as it is written down: plain, `sha256:` and its hash, or `#` and its hash.
    pub(super) fn written(text: &str) -> Result<Self, Expected> {
        let Some(hex) = text.strip_prefix("sha256:").or_else(|| text.strip_prefix('#')) else {
            return Ok(Self::of(text.as_bytes()));
        };
        let digits: Option<Vec<u8>> = hex.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
        match digits {
            Some(digits) if digits.len() == 64 => {
                let mut hash = [0; 32];
                for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
                }
                Ok(Self(hash))
            }
            _ => Err(Expected::new(
                "64 hexadecimal digits behind `sha256:` or `#`; a password that begins so is written as its own hash",
            )),
        }
    }

    /// Whether both are of one password, in a time that does not tell how much of them is alike.
    pub(super) fn is(&self, other: &Self) -> bool {
        let differs = self.0.iter().zip(&other.0).fold(0, |differs, (a, b)| differs | (a ^ b));
        std::hint::black_box(differs) == 0
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_password_it_is_of() {
        // FIPS 180-2, appendix B.1.
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for written in ["abc", &format!("sha256:{hash}"), &format!("#{hash}"), &format!("#{}", hash.to_uppercase())] {
            let digest = Digest::written(written).expect("a password");
            assert!(digest.is(&Digest::of(b"abc")), "{written}");
            assert!(!digest.is(&Digest::of(b"abd")) && !digest.is(&Digest::of(b"")), "{written}");
            assert_eq!(format!("{digest:?}"), MASK);
        }
    }

    #[test]
    fn a_wrong_hash_is_no_password() {
        let long = "0".repeat(65);
        for hex in ["", "abc", &long[1..64], &long, &"g".repeat(64), &"é".repeat(32)] {
            for sign in ["sha256:", "#"] {
                assert!(Digest::written(&format!("{sign}{hex}")).is_err(), "{sign}{hex}");
            }
        }
        assert!(Digest::written("sha256").is_ok() && Digest::written("a#").is_ok());
    }
}
