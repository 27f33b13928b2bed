//! Commands on hashes, but for their counters and scan.

use super::commands::{Call, Outcome};
use super::number::integer;
use super::reply::{self, Refusal};
use super::value::{Hash, Value};

/// The most fields `HRANDFIELD` repeats at random. Redis has no such bound and fills its memory instead.
const MAX_REPEATED: u64 = 1_000_000;

/// `HSET key field value ...`
pub(super) fn hset(call: &mut Call<'_>) -> Outcome {
    let new = set_pairs(call)?;
    reply::length(call.out, new);
    Ok(())
}

/// `HMSET key field value ...`
pub(super) fn hmset(call: &mut Call<'_>) -> Outcome {
    set_pairs(call)?;
    reply::ok(call.out);
    Ok(())
}

/// `HSETNX key field value`
pub(super) fn hsetnx(call: &mut Call<'_>) -> Outcome {
    let pair = &call.args[2..4];
    let free = find_hash(call)?.is_none_or(|hash| hash.get(pair[0]).is_none());
    if free {
        set_fields(call, pair)?;
    }
    reply::boolean(call.out, free);
    Ok(())
}

/// `HGET key field`
pub(super) fn hget(call: &mut Call<'_>) -> Outcome {
    let hash = call.store.read(call.args[1]).map(Value::hash).transpose()?;
    let value = hash.and_then(|hash| hash.get(call.args[2]));
    reply::bulk_or_nil(call.out, value);
    Ok(())
}

/// `HMGET key field ...`
pub(super) fn hmget(call: &mut Call<'_>) -> Outcome {
    let hash = call.store.read(call.args[1]).map(Value::hash).transpose()?;
    reply::array(call.out, call.args.len() - 2);
    for field in &call.args[2..] {
        reply::bulk_or_nil(call.out, hash.and_then(|hash| hash.get(field)));
    }
    Ok(())
}

/// `HGETALL key`
pub(super) fn hgetall(call: &mut Call<'_>) -> Outcome {
    reply_all(call, true, true)
}

/// `HKEYS key`
pub(super) fn hkeys(call: &mut Call<'_>) -> Outcome {
    reply_all(call, true, false)
}

/// `HVALS key`
pub(super) fn hvals(call: &mut Call<'_>) -> Outcome {
    reply_all(call, false, true)
}

/// `HDEL key field ...`; the key goes with its last field.
pub(super) fn hdel(call: &mut Call<'_>) -> Outcome {
    let (key, fields) = (call.args[1], &call.args[2..]);
    // Who watches the key is told of a change only if there is one.
    if find_hash(call)?.is_none_or(|hash| fields.iter().all(|field| hash.get(field).is_none())) {
        reply::integer(call.out, 0);
        return Ok(());
    }
    let outcome = call.store.change(key, |value| match value {
        Value::Hash(hash) => (fields.iter().filter(|field| hash.remove(field)).count(), hash.len()),
        Value::Text(_) => (0, 1),
    });
    let (removed, left) = outcome.unwrap_or((0, 1));
    if left == 0 {
        call.store.take(key);
    }
    reply::length(call.out, removed);
    Ok(())
}

/// `HLEN key`
pub(super) fn hlen(call: &mut Call<'_>) -> Outcome {
    let length = read_hash(call)?.map_or(0, Hash::len);
    reply::length(call.out, length);
    Ok(())
}

/// `HEXISTS key field`
pub(super) fn hexists(call: &mut Call<'_>) -> Outcome {
    let field = call.args[2];
    let found = read_hash(call)?.is_some_and(|hash| hash.get(field).is_some());
    reply::boolean(call.out, found);
    Ok(())
}

/// `HSTRLEN key field`
pub(super) fn hstrlen(call: &mut Call<'_>) -> Outcome {
    let field = call.args[2];
    let length = read_hash(call)?.and_then(|hash| hash.get(field)).map_or(0, <[u8]>::len);
    reply::length(call.out, length);
    Ok(())
}

/// `HRANDFIELD key [count [WITHVALUES]]`: one field, that many different ones, or, for a negative count, that many.
pub(super) fn hrandfield(call: &mut Call<'_>) -> Outcome {
    let Some(&count) = call.args.get(2) else {
        let fields = read_hash(call)?.map_or(0, Hash::len);
        let chosen = if fields == 0 { None } else { Some(call.store.pick(fields)) };
        let field = chosen.and_then(|at| call.store.peek(call.args[1])?.value.hash().ok()?.at(at));
        reply::bulk_or_nil(call.out, field.map(|(field, _)| field));
        return Ok(());
    };
    let count = integer(count)?;
    if count == i64::MIN {
        let limit = i64::MAX;
        return Err(format!("ERR value is out of range, value must between -{limit} and {limit}").into());
    }
    let with_values = match &call.args[3..] {
        [] => false,
        [option] if option.eq_ignore_ascii_case(b"WITHVALUES") => true,
        _ => return Err(Refusal::SYNTAX),
    };
    if with_values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(Refusal::text("ERR value is out of range"));
    }
    let fields = read_hash(call)?.map_or(0, Hash::len);
    let chosen = choose(call, fields, count)?;
    if with_values {
        reply::pairs(call.out, chosen.len());
    } else {
        reply::array(call.out, chosen.len());
    }
    let Some(hash) = call.store.peek(call.args[1]).and_then(|entry| entry.value.hash().ok()) else { return Ok(()) };
    for (field, value) in chosen.iter().filter_map(|&at| hash.at(at)) {
        if with_values {
            reply::pair(call.out);
        }
        reply::bulk(call.out, field);
        if with_values {
            reply::bulk(call.out, value);
        }
    }
    Ok(())
}

/// Looks up the hash under the command's key for a command that writes it.
pub(super) fn find_hash<'c>(call: &'c mut Call<'_>) -> Result<Option<&'c Hash>, Refusal> {
    call.store.find(call.args[1]).map(Value::hash).transpose()
}

/// Looks up the hash under the command's key for a command that reads it.
fn read_hash<'c>(call: &'c mut Call<'_>) -> Result<Option<&'c Hash>, Refusal> {
    call.store.read(call.args[1]).map(Value::hash).transpose()
}

/// Sets fields, given in pairs with their values, of the hash under the command's key, a new one if there is none; returns
/// how many are new. The caller has looked the key up and knows that it holds no string.
pub(super) fn set_fields(call: &mut Call<'_>, pairs: &[&[u8]]) -> Result<usize, Refusal> {
    let key = call.args[1];
    let pairs = || pairs.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    let entry = call.store.peek(key);
    let exists = entry.is_some();
    let hash = entry.and_then(|entry| entry.value.hash().ok());
    let size = match hash {
        Some(hash) => hash.size() + pairs().map(|(field, value)| hash.growth(field, value)).sum::<u64>(),
        None => pairs().map(|(field, value)| Hash::new().growth(field, value)).sum(),
    };
    call.store.check_room(key, size)?;
    if !exists {
        call.store.put(key, Value::Hash(Box::new(Hash::new())), None);
    }
    let new = call.store.change(key, |value| match value {
        Value::Hash(hash) => {
            // One large value makes Redis convert the hash before it sets the first field.
            pairs().for_each(|(field, value)| hash.prepare(field, value));
            pairs().filter(|(field, value)| hash.set(field, value)).count()
        }
        Value::Text(_) => 0,
    });
    Ok(new.unwrap_or(0))
}

fn set_pairs(call: &mut Call<'_>) -> Result<usize, Refusal> {
    if !call.args.len().is_multiple_of(2) {
        return Err(Refusal::arity(call.name));
    }
    find_hash(call)?;
    set_fields(call, &call.args[2..])
}

fn reply_all(call: &mut Call<'_>, fields: bool, values: bool) -> Outcome {
    let hash = call.store.read(call.args[1]).map(Value::hash).transpose()?;
    let length = hash.map_or(0, Hash::len);
    if fields && values {
        reply::map(call.out, length);
    } else {
        reply::array(call.out, length);
    }
    for (field, value) in hash.into_iter().flat_map(Hash::iter) {
        if fields {
            reply::bulk(call.out, field);
        }
        if values {
            reply::bulk(call.out, value);
        }
    }
    Ok(())
}

/// Positions of `count` different fields out of `fields`, in order, or, for a negative count, of that many at random.
fn choose(call: &mut Call<'_>, fields: usize, count: i64) -> Result<Vec<usize>, Refusal> {
    if fields == 0 {
        return Ok(Vec::new());
    }
    if count < 0 {
        if count.unsigned_abs() > MAX_REPEATED {
            return Err(Refusal::text("ERR value is out of range"));
        }
        return Ok((0..count.unsigned_abs()).map(|_| call.store.pick(fields)).collect());
    }
    let mut wanted = usize::try_from(count).unwrap_or(usize::MAX).min(fields);
    // Selection sampling: each field is taken with the chance that what is wanted has among what is left.
    let mut chosen = Vec::with_capacity(wanted);
    for at in 0..fields {
        if call.store.pick(fields - at) < wanted {
            chosen.push(at);
            wanted -= 1;
        }
    }
    Ok(chosen)
}
