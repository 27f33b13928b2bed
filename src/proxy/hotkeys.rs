//! The hot keys of all pools, as JSON for `/hotkeys`.

use crate::config::quoted;
use crate::live::LivePool;
use crate::stages::hot::{Level, Page, Row};

/// All pools that are configured.
pub(super) fn json<'a>(pools: impl Iterator<Item = &'a LivePool>) -> String {
    let pools: Vec<String> = pools.map(|pool| of_pool(pool, &pool.board.all())).collect();
    format!("{{\"pools\":[{}]}}\n", pools.join(","))
}

fn of_pool(pool: &LivePool, page: &Page) -> String {
    let keys: Vec<String> = page.rows.iter().map(|row| of_key(row, pool)).collect();
    format!(
        "\n{{\"pool\":{},\"requests_per_second\":{:.1},\"bytes_per_second\":{:.1},\"hot_keys\":{},\"imbalance\":{:.3},\"keys\":[{}]}}",
        quoted(&pool.pool.name),
        page.requests,
        page.bytes,
        page.keys,
        page.imbalance(&pool.order),
        keys.join(",")
    )
}

fn of_key(row: &Row, pool: &LivePool) -> String {
    let words = [
        ("key", row.shown()),
        ("pool", pool.pool.name.clone()),
        ("shard", pool.name_of(row.shard).to_owned()),
        ("level", if row.level == Level::Hot { "hot" } else { "warm" }.to_owned()),
        ("served_by", row.served_by()),
        ("why_not_more", row.why.to_owned()),
    ];
    let numbers = [
        ("share", row.share.0),
        ("share_at_most", row.share.1),
        ("share_of_bytes", row.share_of_bytes),
        ("requests_per_second", row.requests),
        ("bytes_per_second", row.bytes),
        ("reads_per_second", row.reads),
        ("writes_per_second", row.writes),
        ("saved_per_second", row.saved),
        ("seconds", row.age as f64 / 1e6),
    ];
    let words = words.iter().map(|(name, word)| format!("\"{name}\":{}", quoted(word)));
    let numbers = numbers.iter().map(|(name, number)| format!("\"{name}\":{number:.4}"));
    format!("\n {{{}}}", words.chain(numbers).collect::<Vec<_>>().join(","))
}
