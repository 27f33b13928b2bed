//! Commands on keys whatever they hold: deleting, asking, renaming, copying, emptying the node.

use super::commands::{self, Call, Outcome};
use super::number::small_integer;
use super::reply::{self, Refusal};
use super::store::Entry;

/// How many databases Redis has unless told otherwise; the node has the first.
const DATABASES: i32 = 16;

/// `DEL key ...` and `UNLINK key ...`
pub(super) fn del(call: &mut Call<'_>) -> Outcome {
    let removed = call.args[1..].iter().filter(|key| call.store.take(key).is_some()).count();
    reply::length(call.out, removed);
    Ok(())
}

/// `EXISTS key ...`; a key named twice counts twice.
pub(super) fn exists(call: &mut Call<'_>) -> Outcome {
    let found = call.args[1..].iter().filter(|key| call.store.peek(key).is_some()).count();
    reply::length(call.out, found);
    Ok(())
}

/// `TOUCH key ...`
pub(super) fn touch(call: &mut Call<'_>) -> Outcome {
    let found = call.args[1..].iter().filter(|key| call.store.touch(key)).count();
    reply::length(call.out, found);
    Ok(())
}

/// `TYPE key`
pub(super) fn kind(call: &mut Call<'_>) -> Outcome {
    reply::status(call.out, call.store.peek(call.args[1]).map_or("none", |entry| entry.value.kind()));
    Ok(())
}

/// `RENAME key newkey`
pub(super) fn rename(call: &mut Call<'_>) -> Outcome {
    if move_key(call, true)? {
        reply::ok(call.out);
    }
    Ok(())
}

/// `RENAMENX key newkey`
pub(super) fn renamenx(call: &mut Call<'_>) -> Outcome {
    let moved = move_key(call, false)?;
    reply::boolean(call.out, moved);
    Ok(())
}

/// `COPY source destination [DB number] [REPLACE]`
pub(super) fn copy(call: &mut Call<'_>) -> Outcome {
    let (source, destination) = (call.args[1], call.args[2]);
    let mut replace = false;
    let mut options = call.args[3..].iter();
    while let Some(option) = options.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"REPLACE" => replace = true,
            b"DB" => database(options.next().ok_or(Refusal::SYNTAX)?, "copy db")?,
            _ => return Err(Refusal::SYNTAX),
        }
    }
    if source == destination {
        return Err(Refusal::text("ERR source and destination objects are the same"));
    }
    let taken = call.store.find(destination).is_some();
    if call.store.read(source).is_none() || (taken && !replace) {
        reply::integer(call.out, 0);
        return Ok(());
    }
    if let Some(Entry { value, deadline }) = call.store.peek(source) {
        let (value, deadline) = (value.clone(), *deadline);
        call.store.check_room(destination, value.size())?;
        call.store.put(destination, value, deadline);
    }
    reply::integer(call.out, 1);
    Ok(())
}

/// `OBJECT ENCODING key`; what the arguments must be, [`object_part`] has seen.
pub(super) fn object(call: &mut Call<'_>) -> Outcome {
    match call.args.get(2).and_then(|key| call.store.peek(key)) {
        Some(entry) => reply::bulk(call.out, entry.value.encoding().as_bytes()),
        None => reply::nil(call.out),
    }
    Ok(())
}

/// Refuses what is not `OBJECT ENCODING key`: as with names of commands, before a transaction would take it.
pub(super) fn object_part(args: &[&[u8]]) -> Outcome {
    const OTHERS: [&str; 4] = ["freq", "help", "idletime", "refcount"];
    let part = args[1].to_ascii_lowercase();
    if part == b"encoding" {
        return if args.len() == 3 { Ok(()) } else { Err(Refusal::arity("object|encoding")) };
    }
    match OTHERS.iter().find(|other| other.as_bytes() == part) {
        Some(other) => Err(commands::absent(&format!("object|{other}"))),
        None => {
            let mut text = b"ERR unknown subcommand '".to_vec();
            let quoted = args[1].iter().take(128).take_while(|&&byte| byte != 0);
            text.extend(quoted);
            text.extend(b"'. Try OBJECT HELP.");
            Err(text.into())
        }
    }
}

/// `DBSIZE`
pub(super) fn dbsize(call: &mut Call<'_>) -> Outcome {
    reply::length(call.out, call.store.len());
    Ok(())
}

/// `FLUSHALL [ASYNC|SYNC]` and `FLUSHDB [ASYNC|SYNC]`
pub(super) fn flush(call: &mut Call<'_>) -> Outcome {
    match &call.args[1..] {
        [] => {}
        [option] if option.eq_ignore_ascii_case(b"ASYNC") || option.eq_ignore_ascii_case(b"SYNC") => {}
        _ => return Err(Refusal::SYNTAX),
    }
    call.store.clear();
    reply::ok(call.out);
    Ok(())
}

/// Accepts database 0; refuses those Redis would have and those it would not. `what` names the command.
pub(super) fn database(number: &[u8], what: &str) -> Outcome {
    match small_integer(number)? {
        0 => Ok(()),
        number if (1..DATABASES).contains(&number) => Err(commands::absent(&format!("{what} {number}"))),
        _ => Err(Refusal::text("ERR DB index is out of range")),
    }
}

/// Moves a value with its deadline to another key, over what is there if `replace`; whether it did. Under its own name a
/// key moves only if it may be replaced.
fn move_key(call: &mut Call<'_>, replace: bool) -> Result<bool, Refusal> {
    let (from, to) = (call.args[1], call.args[2]);
    let size = call.store.find(from).ok_or(Refusal::NO_SUCH_KEY)?.size();
    if from == to {
        return Ok(replace);
    }
    if call.store.find(to).is_some() && !replace {
        return Ok(false);
    }
    call.store.check_room(to, size)?;
    if let Some(Entry { value, deadline }) = call.store.take(from) {
        call.store.put(to, value, deadline);
    }
    Ok(true)
}
