//! SLOWLOG: the slow requests of this pool on this worker, in Redis' form.
//!
//! In the place of a command's arguments there are its name and, word for word, what hotring knows of its way:
//!
//! ```text
//! shard=NAME      whose reply came; of a request to several shards, the one whose reply came last
//! shards=N        how many shards it went to, if several
//! reply_bytes=N   the length of its reply
//! joined          it shared the reply to an equal request (`merge`, `coalesce`)
//! error           the reply was an error
//! gone            the app had left before
//! ```

use super::{Answer, Asked, syntax};
use crate::command;
use crate::engine::slow::Entry;
use crate::engine::{Engine, Pool};
use crate::resp::write;

/// How many entries GET tells, if it does not say, as in Redis.
const USUAL: usize = 10;
const BAD_COUNT: &str = "ERR count should be greater than or equal to -1";

pub(super) fn slowlog(engine: &mut Engine, asked: &mut Asked<'_>) -> Answer {
    let number = engine.sessions.get(asked.id as usize).map(|session| session.pool);
    let pool = number.and_then(|number| engine.pools.get_mut(usize::from(number)));
    let Some(pool) = pool else { return Ok(()) };
    match asked.spec.name {
        "slowlog|len" => write::integer(&mut asked.out, pool.slow.len() as i64),
        "slowlog|reset" => {
            pool.slow.reset();
            asked.ok();
        }
        _ => get(pool, asked)?,
    }
    Ok(())
}

fn get(pool: &Pool, asked: &mut Asked<'_>) -> Answer {
    let most = match asked.request.arg(2) {
        _ if asked.request.argc() > 3 => return Err(asked.too_many()),
        None => USUAL,
        Some(count) => match command::integer(count) {
            Some(-1) => usize::MAX,
            Some(count) => usize::try_from(count).map_err(|_| syntax(BAD_COUNT))?,
            None => return Err(syntax(BAD_COUNT)),
        },
    };
    write::array(&mut asked.out, pool.slow.len().min(most));
    for entry in pool.slow.newest().take(most) {
        tell(entry, pool, &mut asked.out);
    }
    Ok(())
}

fn tell(entry: &Entry, pool: &Pool, out: &mut Vec<u8>) {
    let mut words = vec![entry.tag.name().unwrap_or("unknown").replace('|', " ")];
    let shard = pool.config.shards.get(usize::from(entry.shard)).map_or("", String::as_str);
    words.push(format!("shard={shard}"));
    if entry.shards > 1 {
        words.push(format!("shards={}", entry.shards));
    }
    words.push(format!("reply_bytes={}", entry.reply_bytes));
    for (is, word) in [(entry.joined, "joined"), (entry.failed, "error"), (entry.gone, "gone")] {
        if is {
            words.push(word.to_owned());
        }
    }
    write::array(out, 6);
    write::integer(out, entry.id as i64);
    write::integer(out, entry.time as i64);
    write::integer(out, i64::from(entry.took));
    write::array(out, words.len());
    for word in words {
        write::bulk(out, word.as_bytes());
    }
    write::bulk(out, entry.address.as_bytes());
    write::bulk(out, &entry.name);
}
