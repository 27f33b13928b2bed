//! HOTRING: what no Redis knows. HOTKEYS tells of the keys of this session's pool that are hot or warm, as all workers see
//! them, the hottest first; to a session with a prefix, of those that have it.

use super::{Answer, Asked, syntax};
use crate::command;
use crate::engine::Engine;
use crate::resp::control::Control;
use crate::stages::hot::{Level, Row, shown};

/// How many keys HOTKEYS tells of, if it is not told.
const USUAL: usize = 10;
const BAD_COUNT: &str = "ERR COUNT should be greater than 0";

pub(super) fn hotring(engine: &Engine, asked: &mut Asked<'_>) -> Answer {
    let most = match (asked.request.argc(), asked.request.arg(2)) {
        (2, _) => USUAL,
        (4, Some(word)) if word.eq_ignore_ascii_case(b"COUNT") => {
            let count = command::integer(asked.arg(3)).and_then(|count| usize::try_from(count).ok());
            count.filter(|&count| count > 0).ok_or_else(|| syntax(BAD_COUNT))?
        }
        _ => return Err(syntax(super::SYNTAX)),
    };
    let Some(session) = engine.sessions.get(asked.id as usize) else { return Ok(()) };
    let Some(pool) = engine.pools.get(usize::from(session.pool)) else { return Ok(()) };
    let prefix = session.prefix().map_or(&b""[..], |prefix| prefix.plain());
    let page = pool.config.path.hot.board().all();
    let names = &pool.config.shards;
    // Whoever has a prefix is told of his own keys, by their own names.
    let own = page.rows.iter().filter_map(|row| Some((row, row.key.strip_prefix(prefix)?)));
    let told = own.take(most).map(|(row, key)| tell(row, key, names)).collect();
    asked.reply(&Control::Array(told));
    Ok(())
}

/// A key, in pairs of words.
fn tell(row: &Row, key: &[u8], shards: &[String]) -> Control {
    let percent = |share: f64| format!("{:.2}%", share * 100.0);
    let rate = |rate: f64| format!("{rate:.1}");
    let pairs = [
        ("key", shown(key)),
        ("level", if row.level == Level::Hot { "hot" } else { "warm" }.to_owned()),
        ("share", percent(row.share.0)),
        ("share-at-most", percent(row.share.1)),
        ("share-of-bytes", percent(row.share_of_bytes)),
        ("requests-per-second", rate(row.requests)),
        ("bytes-per-second", rate(row.bytes)),
        ("reads-per-second", rate(row.reads)),
        ("writes-per-second", rate(row.writes)),
        ("shard", shards.get(usize::from(row.shard)).cloned().unwrap_or_default()),
        ("served-by", row.served_by()),
        ("why-not-more", row.why.to_owned()),
        ("saved-per-second", rate(row.saved)),
        ("seconds", (row.age / 1_000_000).to_string()),
    ];
    Control::Map(pairs.into_iter().map(|(word, value)| (Control::bulk(word), Control::bulk(value))).collect())
}
