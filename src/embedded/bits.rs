//! Commands on the bits of strings. Bit 0 is the highest of the first byte.

use super::commands::{Call, Outcome};
use super::number::{self, MAX_BULK, integer};
use super::reply::{self, Refusal};
use super::strings::{check_length, edit};
use super::value::{Text, Value};

/// `SETBIT key offset 0|1`
pub(super) fn setbit(call: &mut Call<'_>) -> Outcome {
    let (byte, mask) = bit_offset(call.args[2])?;
    let on = match number::parse(call.args[3]) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(Refusal::text("ERR bit is not an integer or out of range")),
    };
    let text = call.store.find(call.args[1]).map_or(Ok(&b""[..]), |value| value.text().map(Text::bytes))?;
    let old = text.get(byte).copied().unwrap_or(0);
    let (before, new) = (text.len(), if on { old | mask } else { old & !mask });
    let length = before.max(byte + 1);
    check_length(call, length)?;
    let overwrite = |text: &mut Text| text.overwrite(byte, &[new]);
    if length > before || new != old {
        edit(call, overwrite);
    } else {
        // As in Redis, nothing has changed but how the string is kept.
        call.store.recode(call.args[1], |value| match value {
            Value::Text(text) => overwrite(text),
            Value::Hash(_) => {}
        });
    }
    reply::boolean(call.out, old & mask != 0);
    Ok(())
}

/// `GETBIT key offset`
pub(super) fn getbit(call: &mut Call<'_>) -> Outcome {
    let (byte, mask) = bit_offset(call.args[2])?;
    let text = call.store.read(call.args[1]).map_or(Ok(&b""[..]), |value| value.text().map(Text::bytes))?;
    reply::boolean(call.out, text.get(byte).is_some_and(|bits| bits & mask != 0));
    Ok(())
}

/// `BITCOUNT key [start end [BYTE|BIT]]`
pub(super) fn bitcount(call: &mut Call<'_>) -> Outcome {
    let Some(value) = call.store.read(call.args[1]) else {
        reply::integer(call.out, 0);
        return Ok(());
    };
    let text = value.text()?.bytes();
    let count = match call.args {
        [_, _] => ones(text),
        [_, _, start, end, unit @ ..] if unit.len() <= 1 => {
            let (start, end) = (integer(start)?, integer(end)?);
            // Redis answers a range that is plainly empty before it looks at the unit.
            if start < 0 && end < 0 && start > end {
                0
            } else {
                match unit.first().map(|unit| unit.to_ascii_uppercase()).as_deref() {
                    None | Some(b"BYTE") => {
                        number::range(start, end, text.len()).map_or(0, |(start, end)| ones(&text[start..=end]))
                    }
                    Some(b"BIT") => number::range(start, end, text.len() * 8)
                        .map_or(0, |(start, end)| ones_between(text, start, end)),
                    Some(_) => return Err(Refusal::SYNTAX),
                }
            }
        }
        _ => return Err(Refusal::SYNTAX),
    };
    reply::length(call.out, count);
    Ok(())
}

/// The byte a bit is in and its mask there.
fn bit_offset(text: &[u8]) -> Result<(usize, u8), Refusal> {
    match number::parse(text) {
        Some(offset) if (0..MAX_BULK * 8).contains(&offset) => Ok(((offset >> 3) as usize, 0x80 >> (offset & 7))),
        _ => Err(Refusal::text("ERR bit offset is not an integer or out of range")),
    }
}

fn ones(bytes: &[u8]) -> usize {
    bytes.iter().map(|byte| byte.count_ones() as usize).sum()
}

/// The ones from bit `start` to bit `end` of `bytes`, both included.
fn ones_between(bytes: &[u8], start: usize, end: usize) -> usize {
    let before = bytes[start / 8] & !(0xff_u8 >> (start % 8));
    let after = bytes[end / 8] & (0x7f_u8 >> (end % 8));
    ones(&bytes[start / 8..=end / 8]) - ones(&[before, after])
}
