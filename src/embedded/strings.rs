//! Commands on strings: the `SET` and `GET` families, ranges and appending.

use super::commands::{Call, Outcome};
use super::number::{self, MAX_BULK, integer};
use super::reply::{self, Refusal};
use super::value::{Text, Value};

/// An expire time as given: its number and what the number means.
#[derive(Clone, Copy)]
struct Lifetime<'a> {
    number: &'a [u8],
    seconds: bool,
    absolute: bool,
}

impl<'a> Lifetime<'a> {
    /// What an option means by its number; `None` if it is no option of time.
    fn option(option: &[u8], number: &'a [u8]) -> Option<Lifetime<'a>> {
        let (seconds, absolute) = match option.to_ascii_uppercase().as_slice() {
            b"EX" => (true, false),
            b"PX" => (false, false),
            b"EXAT" => (true, true),
            b"PXAT" => (false, true),
            _ => return None,
        };
        Some(Lifetime { number, seconds, absolute })
    }

    /// The deadline in Unix milliseconds. Zero, negative times and what overflows are refused.
    fn deadline(&self, command: &str, now: i64) -> Result<i64, Refusal> {
        let number = integer(self.number)?;
        let scale = if self.seconds { 1_000 } else { 1 };
        let base = if self.absolute { 0 } else { now };
        (number > 0)
            .then(|| number.checked_mul(scale)?.checked_add(base))
            .flatten()
            .ok_or_else(|| Refusal::expire_time(command))
    }
}

/// `GET key`
pub(super) fn get(call: &mut Call<'_>) -> Outcome {
    reply_value(call)
}

/// `SET key value [NX|XX] [GET] [EX seconds|PX ms|EXAT seconds|PXAT ms|KEEPTTL]`
pub(super) fn set(call: &mut Call<'_>) -> Outcome {
    let (mut nx, mut xx, mut get, mut keep, mut lifetime) = (false, false, false, false, None);
    let mut options = call.args[3..].iter();
    while let Some(option) = options.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"NX" if !xx => nx = true,
            b"XX" if !nx => xx = true,
            b"GET" => get = true,
            b"KEEPTTL" if lifetime.is_none() => keep = true,
            _ => lifetime = Some(lifetime_option(option, &mut options, lifetime, keep)?),
        }
    }
    let deadline = lifetime.map(|(_, lifetime)| lifetime.deadline(call.name, call.store.now())).transpose()?;
    if get {
        reply_value(call)?;
    }
    let key = call.args[1];
    let found = call.store.find(key).is_some();
    if (nx && found) || (xx && !found) {
        if !get {
            reply::nil(call.out);
        }
        return Ok(());
    }
    let deadline = if keep { call.store.peek(key).and_then(|entry| entry.deadline) } else { deadline };
    put(call, call.args[2], deadline)?;
    if !get {
        reply::ok(call.out);
    }
    Ok(())
}

/// `SETNX key value`
pub(super) fn setnx(call: &mut Call<'_>) -> Outcome {
    let found = call.store.find(call.args[1]).is_some();
    if !found {
        put(call, call.args[2], None)?;
    }
    reply::boolean(call.out, !found);
    Ok(())
}

/// `SETEX key seconds value`
pub(super) fn setex(call: &mut Call<'_>) -> Outcome {
    set_for(call, true)
}

/// `PSETEX key ms value`
pub(super) fn psetex(call: &mut Call<'_>) -> Outcome {
    set_for(call, false)
}

/// `GETSET key value`
pub(super) fn getset(call: &mut Call<'_>) -> Outcome {
    reply_value(call)?;
    put(call, call.args[2], None)
}

/// `GETDEL key`
pub(super) fn getdel(call: &mut Call<'_>) -> Outcome {
    reply_value(call)?;
    call.store.take(call.args[1]);
    Ok(())
}

/// `GETEX key [EX seconds|PX ms|EXAT seconds|PXAT ms|PERSIST]`
pub(super) fn getex(call: &mut Call<'_>) -> Outcome {
    let (mut persist, mut lifetime) = (false, None);
    let mut options = call.args[2..].iter();
    while let Some(option) = options.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"PERSIST" if lifetime.is_none() => persist = true,
            _ => lifetime = Some(lifetime_option(option, &mut options, lifetime, persist)?),
        }
    }
    let (key, now) = (call.args[1], call.store.now());
    reply_value(call)?;
    if call.store.peek(key).is_none() {
        return Ok(());
    }
    if let Some((_, lifetime)) = lifetime {
        let deadline = lifetime.deadline(call.name, now)?;
        if lifetime.absolute && deadline <= now {
            call.store.take(key);
        } else {
            call.store.set_deadline(key, Some(deadline));
        }
    } else if persist {
        call.store.set_deadline(key, None);
    }
    Ok(())
}

/// `MGET key ...`; a hash counts as no value.
pub(super) fn mget(call: &mut Call<'_>) -> Outcome {
    reply::array(call.out, call.args.len() - 1);
    for key in &call.args[1..] {
        let text = call.store.read(key).and_then(|value| value.text().ok());
        reply::bulk_or_nil(call.out, text.map(Text::bytes));
    }
    Ok(())
}

/// `MSET key value ...`
pub(super) fn mset(call: &mut Call<'_>) -> Outcome {
    check_pairs(call)?;
    put_pairs(call);
    reply::ok(call.out);
    Ok(())
}

/// `MSETNX key value ...`: all or, if one of them is there, none.
pub(super) fn msetnx(call: &mut Call<'_>) -> Outcome {
    check_pairs(call)?;
    let free = call.args[1..].chunks_exact(2).all(|pair| call.store.find(pair[0]).is_none());
    if free {
        put_pairs(call);
    }
    reply::boolean(call.out, free);
    Ok(())
}

/// `APPEND key value`
pub(super) fn append(call: &mut Call<'_>) -> Outcome {
    let (key, tail) = (call.args[1], call.args[2]);
    let Some(value) = call.store.find(key) else {
        put(call, tail, None)?;
        reply::length(call.out, tail.len());
        return Ok(());
    };
    let length = value.text()?.bytes().len() + tail.len();
    check_length(call, length)?;
    edit(call, |text| text.append(tail));
    reply::length(call.out, length);
    Ok(())
}

/// `STRLEN key`
pub(super) fn strlen(call: &mut Call<'_>) -> Outcome {
    let length = call.store.read(call.args[1]).map_or(Ok(0), |value| value.text().map(|text| text.bytes().len()))?;
    reply::length(call.out, length);
    Ok(())
}

/// `GETRANGE key start end`, and `SUBSTR`
pub(super) fn getrange(call: &mut Call<'_>) -> Outcome {
    let (start, end) = (integer(call.args[2])?, integer(call.args[3])?);
    let text = call.store.read(call.args[1]).map_or(Ok(&b""[..]), |value| value.text().map(Text::bytes))?;
    match number::range(start, end, text.len()) {
        Some((start, end)) => reply::bulk(call.out, &text[start..=end]),
        None => reply::bulk(call.out, b""),
    }
    Ok(())
}

/// `SETRANGE key offset value`
pub(super) fn setrange(call: &mut Call<'_>) -> Outcome {
    let (key, part) = (call.args[1], call.args[3]);
    let offset = usize::try_from(integer(call.args[2])?).map_err(|_| Refusal::text("ERR offset is out of range"))?;
    let length = call.store.find(key).map_or(Ok(0), |value| value.text().map(|text| text.bytes().len()))?;
    if part.is_empty() {
        reply::length(call.out, length);
        return Ok(());
    }
    let end = offset.saturating_add(part.len());
    check_length(call, end)?;
    edit(call, |text| text.overwrite(offset, part));
    reply::length(call.out, length.max(end));
    Ok(())
}

/// Refuses a string that would be longer than Redis allows or `maxmemory` holds.
pub(super) fn check_length(call: &Call<'_>, length: usize) -> Outcome {
    match i64::try_from(length) {
        Ok(short) if short <= MAX_BULK => call.store.check_room(call.args[1], length as u64),
        _ => Err(Refusal::TOO_LONG),
    }
}

/// Changes the string under the command's key in place, an empty one if there is none. The caller has checked that it is a
/// string and how long it will be.
pub(super) fn edit(call: &mut Call<'_>, edit: impl FnOnce(&mut Text)) {
    let key = call.args[1];
    if call.store.peek(key).is_none() {
        call.store.put(key, Value::Text(Text::buffer()), None);
    }
    call.store.change(key, |value| {
        if let Value::Text(text) = value {
            edit(text);
        }
    });
}

/// Puts another string under the command's key, which keeps its deadline.
pub(super) fn replace(call: &mut Call<'_>, text: Text) -> Outcome {
    let key = call.args[1];
    check_length(call, text.bytes().len())?;
    let deadline = call.store.peek(key).and_then(|entry| entry.deadline);
    call.store.put(key, Value::Text(text), deadline);
    Ok(())
}

/// Replies with the string under the command's key.
fn reply_value(call: &mut Call<'_>) -> Outcome {
    let text = call.store.read(call.args[1]).map(Value::text).transpose()?;
    reply::bulk_or_nil(call.out, text.map(Text::bytes));
    Ok(())
}

fn set_for(call: &mut Call<'_>, seconds: bool) -> Outcome {
    let lifetime = Lifetime { number: call.args[2], seconds, absolute: false };
    let deadline = lifetime.deadline(call.name, call.store.now())?;
    call.store.touch(call.args[1]);
    put(call, call.args[3], Some(deadline))?;
    reply::ok(call.out);
    Ok(())
}

fn put(call: &mut Call<'_>, value: &[u8], deadline: Option<i64>) -> Outcome {
    call.store.check_room(call.args[1], value.len() as u64)?;
    call.store.put(call.args[1], Value::Text(Text::given(value)), deadline);
    Ok(())
}

fn check_pairs(call: &Call<'_>) -> Outcome {
    if call.args.len().is_multiple_of(2) {
        return Err(Refusal::arity(call.name));
    }
    call.args[1..].chunks_exact(2).try_for_each(|pair| call.store.check_room(pair[0], pair[1].len() as u64))
}

fn put_pairs(call: &mut Call<'_>) {
    for pair in call.args[1..].chunks_exact(2) {
        call.store.touch(pair[0]);
        call.store.put(pair[0], Value::Text(Text::given(pair[1])), None);
    }
}

/// A lifetime option with the name it goes by.
type Named<'a> = (Vec<u8>, Lifetime<'a>);

/// The option of time that `option` is, with its number from `rest`. The same one may be given again, the last one counts;
/// two different ones are refused, and any beside an option that excludes them.
fn lifetime_option<'a>(
    option: &[u8],
    rest: &mut std::slice::Iter<'_, &'a [u8]>,
    previous: Option<Named<'a>>,
    excluded: bool,
) -> Result<Named<'a>, Refusal> {
    let name = option.to_ascii_uppercase();
    let repeats = previous.is_none_or(|(previous, _)| previous == name);
    let lifetime = rest.next().and_then(|number| Lifetime::option(option, number));
    match lifetime {
        Some(lifetime) if repeats && !excluded => Ok((name, lifetime)),
        _ => Err(Refusal::SYNTAX),
    }
}
