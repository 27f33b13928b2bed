//! Counters: strings and hash fields that are numbers.

use super::commands::{Call, Outcome};
use super::hashes::{find_hash, set_fields};
use super::long_double::LongDouble;
use super::number::{self, integer};
use super::reply::{self, Refusal};
use super::strings::replace;
use super::value::Text;

/// `INCR key`
pub(super) fn incr(call: &mut Call<'_>) -> Outcome {
    add(call, 1)
}

/// `DECR key`
pub(super) fn decr(call: &mut Call<'_>) -> Outcome {
    add(call, -1)
}

/// `INCRBY key increment`
pub(super) fn incrby(call: &mut Call<'_>) -> Outcome {
    add(call, integer(call.args[2])?)
}

/// `DECRBY key decrement`
pub(super) fn decrby(call: &mut Call<'_>) -> Outcome {
    let decrement = integer(call.args[2])?;
    add(call, decrement.checked_neg().ok_or("ERR decrement would overflow")?)
}

/// `INCRBYFLOAT key increment`
pub(super) fn incrbyfloat(call: &mut Call<'_>) -> Outcome {
    let text = call.store.find(call.args[1]).map_or(Ok(&b"0"[..]), |value| value.text().map(Text::bytes))?;
    let value = LongDouble::parse(text).ok_or(Refusal::NOT_A_FLOAT)?;
    let increment = LongDouble::parse(call.args[2]).ok_or(Refusal::NOT_A_FLOAT)?;
    let sum = value.add(&increment).ok_or(Refusal::NOT_FINITE)?.to_string();
    replace(call, Text::computed(sum.as_bytes()))?;
    reply::bulk(call.out, sum.as_bytes());
    Ok(())
}

/// `HINCRBY key field increment`
pub(super) fn hincrby(call: &mut Call<'_>) -> Outcome {
    let (field, increment) = (call.args[2], integer(call.args[3])?);
    let value = match find_hash(call)?.and_then(|hash| hash.get(field)) {
        Some(value) => number::parse(value).ok_or("ERR hash value is not an integer")?,
        None => 0,
    };
    let sum = value.checked_add(increment).ok_or(Refusal::OVERFLOW)?;
    set_fields(call, &[field, sum.to_string().as_bytes()])?;
    reply::integer(call.out, sum);
    Ok(())
}

/// `HINCRBYFLOAT key field increment`
pub(super) fn hincrbyfloat(call: &mut Call<'_>) -> Outcome {
    let field = call.args[2];
    let increment = LongDouble::parse(call.args[3]).ok_or(Refusal::NOT_A_FLOAT)?;
    if !increment.is_finite() {
        return Err(Refusal::text("ERR value is NaN or Infinity"));
    }
    let value = match find_hash(call)?.and_then(|hash| hash.get(field)) {
        Some(value) => LongDouble::parse(value).ok_or("ERR hash value is not a float")?,
        None => LongDouble::ZERO,
    };
    let sum = value.add(&increment).ok_or(Refusal::NOT_FINITE)?.to_string();
    set_fields(call, &[field, sum.as_bytes()])?;
    reply::bulk(call.out, sum.as_bytes());
    Ok(())
}

fn add(call: &mut Call<'_>, increment: i64) -> Outcome {
    let value = match call.store.find(call.args[1]) {
        Some(value) => integer(value.text()?.bytes())?,
        None => 0,
    };
    let sum = value.checked_add(increment).ok_or(Refusal::OVERFLOW)?;
    replace(call, Text::integer(sum))?;
    reply::integer(call.out, sum);
    Ok(())
}
