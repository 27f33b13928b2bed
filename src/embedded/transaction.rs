//! `MULTI`, `EXEC`, `DISCARD`, `WATCH` and `UNWATCH`, by Redis' rules.

use super::commands::{self, Call, Outcome};
use super::reply::{self, Refusal};
use crate::resp::{Resume, Scan, scan};

/// Most bytes of the replies to one transaction: many short requests may have long replies.
const MOST_REPLIED: usize = 512 << 20;

/// `MULTI`
pub(super) fn multi(call: &mut Call<'_>) -> Outcome {
    if !call.connection.begin() {
        return Err(Refusal::text("ERR MULTI calls can not be nested"));
    }
    reply::ok(call.out);
    Ok(())
}

/// `DISCARD`
pub(super) fn discard(call: &mut Call<'_>) -> Outcome {
    if !call.connection.is_in_transaction() {
        return Err(Refusal::text("ERR DISCARD without MULTI"));
    }
    call.connection.leave();
    reply::ok(call.out);
    Ok(())
}

/// `EXEC`
pub(super) fn exec(call: &mut Call<'_>) -> Outcome {
    if !call.connection.is_in_transaction() {
        return Err(Refusal::text("ERR EXEC without MULTI"));
    }
    let changed = call.connection.has_changed(call.store);
    let Some(queue) = call.connection.leave() else { return Ok(()) };
    if queue.spoilt {
        return Err(Refusal::text("EXECABORT Transaction discarded because of previous errors."));
    }
    if changed {
        reply::no_array(call.out);
        return Ok(());
    }
    reply::array(call.out, queue.count);
    let begin = call.out.bytes.len();
    let mut rest = queue.requests.as_slice();
    // What was queued was cut out as whole requests, which it still is.
    while let Ok(Scan::Request(request)) = scan(rest, &mut Resume::default(), &super::LIMITS) {
        let start = call.out.bytes.len();
        commands::execute(call.store, call.connection, &request, call.out);
        if call.out.bytes.len() - begin > MOST_REPLIED {
            call.out.bytes.truncate(start);
            Refusal::text("ERR the transaction's replies are too long; the command has run").write(call.out);
        }
        rest = rest.get(request.wire().len()..).unwrap_or_default();
    }
    Ok(())
}

/// `WATCH key ...`
pub(super) fn watch(call: &mut Call<'_>) -> Outcome {
    if call.connection.is_in_transaction() {
        return Err(Refusal::text("ERR WATCH inside MULTI is not allowed"));
    }
    for key in &call.args[1..] {
        call.connection.watch(call.store, key)?;
    }
    reply::ok(call.out);
    Ok(())
}

/// `UNWATCH`
pub(super) fn unwatch(call: &mut Call<'_>) -> Outcome {
    call.connection.unwatch();
    reply::ok(call.out);
    Ok(())
}

/// What an EXEC with arguments is answered.
pub(super) fn malformed() -> Refusal {
    Refusal::text("EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command")
}
