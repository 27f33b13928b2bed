//! Commands on the time to live of keys.

use super::commands::{Call, Outcome};
use super::number::integer;
use super::reply::{self, Refusal};

/// `EXPIRE key seconds [NX|XX|GT|LT]`
pub(super) fn expire(call: &mut Call<'_>) -> Outcome {
    set_deadline(call, call.store.now(), 1_000)
}

/// `PEXPIRE key ms [NX|XX|GT|LT]`
pub(super) fn pexpire(call: &mut Call<'_>) -> Outcome {
    set_deadline(call, call.store.now(), 1)
}

/// `EXPIREAT key seconds [NX|XX|GT|LT]`
pub(super) fn expireat(call: &mut Call<'_>) -> Outcome {
    set_deadline(call, 0, 1_000)
}

/// `PEXPIREAT key ms [NX|XX|GT|LT]`
pub(super) fn pexpireat(call: &mut Call<'_>) -> Outcome {
    set_deadline(call, 0, 1)
}

/// `TTL key`
pub(super) fn ttl(call: &mut Call<'_>) -> Outcome {
    let now = call.store.now();
    reply_deadline(call, |deadline| seconds((deadline - now).max(0)))
}

/// `PTTL key`
pub(super) fn pttl(call: &mut Call<'_>) -> Outcome {
    let now = call.store.now();
    reply_deadline(call, |deadline| (deadline - now).max(0))
}

/// `EXPIRETIME key`
pub(super) fn expiretime(call: &mut Call<'_>) -> Outcome {
    reply_deadline(call, seconds)
}

/// `PEXPIRETIME key`
pub(super) fn pexpiretime(call: &mut Call<'_>) -> Outcome {
    reply_deadline(call, |deadline| deadline)
}

/// `PERSIST key`
pub(super) fn persist(call: &mut Call<'_>) -> Outcome {
    let key = call.args[1];
    call.store.touch(key);
    let had = call.store.peek(key).is_some_and(|entry| entry.deadline.is_some());
    call.store.set_deadline(key, None);
    reply::boolean(call.out, had);
    Ok(())
}

/// What may keep a deadline from being set.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(options: &[&[u8]]) -> Result<Conditions, Refusal> {
        let mut conditions = Conditions::default();
        for option in options {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => conditions.nx = true,
                b"XX" => conditions.xx = true,
                b"GT" => conditions.gt = true,
                b"LT" => conditions.lt = true,
                _ => {
                    let mut text = b"ERR Unsupported option ".to_vec();
                    text.extend(option.iter().take_while(|&&byte| byte != 0));
                    return Err(text.into());
                }
            }
        }
        let Conditions { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            return Err(Refusal::text("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if gt && lt {
            return Err(Refusal::text("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// Whether `new` may take the place of `old`. No deadline counts as one that never comes.
    fn allow(&self, old: Option<i64>, new: i64) -> bool {
        !(self.nx && old.is_some()
            || self.xx && old.is_none()
            || self.gt && old.is_none_or(|old| new <= old)
            || self.lt && old.is_some_and(|old| new >= old))
    }
}

/// Sets a deadline given in units of `scale` milliseconds from `base` on. One that has come already removes the key.
fn set_deadline(call: &mut Call<'_>, base: i64, scale: i64) -> Outcome {
    let conditions = Conditions::parse(&call.args[3..])?;
    let deadline = integer(call.args[2])?
        .checked_mul(scale)
        .and_then(|relative| relative.checked_add(base))
        .ok_or_else(|| Refusal::expire_time(call.name))?;
    let (key, now) = (call.args[1], call.store.now());
    call.store.touch(key);
    let allowed = call.store.peek(key).is_some_and(|entry| conditions.allow(entry.deadline, deadline));
    if allowed {
        if deadline <= now {
            call.store.take(key);
        } else {
            call.store.set_deadline(key, Some(deadline));
        }
    }
    reply::boolean(call.out, allowed);
    Ok(())
}

/// Replies with a key's deadline in the form asked for, -1 if it has none, -2 if there is no such key.
fn reply_deadline(call: &mut Call<'_>, form: impl FnOnce(i64) -> i64) -> Outcome {
    let number = match call.store.peek(call.args[1]) {
        Some(entry) => entry.deadline.map_or(-1, form),
        None => -2,
    };
    reply::integer(call.out, number);
    Ok(())
}

/// Milliseconds in seconds, rounded to the nearest.
fn seconds(ms: i64) -> i64 {
    ms / 1_000 + i64::from(ms % 1_000 >= 500)
}
