//! What is shown, as lines of text: for a terminal of any size, and for pipes.

use super::News;
use crate::admin::status::{HotKey, Pool, Rates, Shard, Status};
use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Style, Stylize};
use ratatui::text::{Line, Text};
use std::time::{Duration, Instant};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The process and its pools.
    Overview,
    /// Its servers.
    Shards,
    /// Keys that are asked for more than others.
    HotKeys,
    /// What went wrong.
    Errors,
}

const VIEWS: [(View, &str); 4] =
    [(View::Overview, "overview"), (View::Shards, "shards"), (View::HotKeys, "hot keys"), (View::Errors, "errors")];
const HELP: &str = "left, right, tab  the views\nup, down          the lines\ns                 sorts shards, or hot keys, by something else\n\
p                 holds what is shown, and lets it go on\nq, Ctrl-C         the end\n?                 this";
/// By what shards are sorted: their order in the file, requests, what waits, their state.
const SHARD_SORTS: [&str; 4] = ["the file", "requests", "waiting", "state"];
/// By what hot keys are, of all pools: the share of their pool's requests or bytes, requests, reads that were spared, writes.
const KEY_SORTS: [&str; 4] = ["share", "requests", "saved", "writes"];
/// A column is no wider, however long a name is: a format has no room for more than 65535.
const WIDEST: usize = 1000;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What is shown, and of what.
#[derive(Debug)]
pub struct Screen {
    admin: String,
    status: Option<Box<Status>>,
    /// Why there is no newer answer.
    lost: Option<String>,
    /// When there was the last answer, or when it began.
    heard: Instant,
    view: usize,
    /// By which of its ways each view is sorted.
    sorts: [usize; VIEWS.len()],
    top: usize,
    paused: bool,
    help: bool,
    over: bool,
}

/// A line, and whether it is to be seen first.
struct Row(String, bool);

impl Screen {
    /// Of the process at this admin address, of which nothing is known yet.
    #[must_use]
    pub fn new(admin: String, now: Instant) -> Self {
        Self {
            admin,
            status: None,
            lost: None,
            heard: now,
            view: 0,
            sorts: [0; VIEWS.len()],
            top: 0,
            paused: false,
            help: false,
            over: false,
        }
    }

    /// Takes an answer, or why there is none.
    pub fn take(&mut self, told: News, now: Instant) {
        match told {
            Ok(_) if self.paused => self.heard = now,
            Ok(status) => (self.status, self.lost, self.heard) = (Some(status), None, now),
            Err(why) => self.lost = Some(why),
        }
    }

    /// A key was pressed.
    pub fn press(&mut self, key: KeyEvent) {
        let views = VIEWS.len();
        match key.code {
            KeyCode::Char('q') => self.over = true,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => self.over = true,
            KeyCode::Right | KeyCode::Tab => (self.view, self.top) = ((self.view + 1) % views, 0),
            KeyCode::Left | KeyCode::BackTab => (self.view, self.top) = ((self.view + views - 1) % views, 0),
            KeyCode::Down => self.top = self.top.saturating_add(1),
            KeyCode::Up => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown => self.top = self.top.saturating_add(10),
            KeyCode::PageUp => self.top = self.top.saturating_sub(10),
            KeyCode::Home => self.top = 0,
            KeyCode::Char('s') => {
                let ways = sorts_of(VIEWS[self.view].0).len().max(1);
                (self.sorts[self.view], self.top) = ((self.sorts[self.view] + 1) % ways, 0);
            }
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Esc => self.help = false,
            _ => {}
        }
    }

    /// Whether it is to end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Draws it.
    pub fn draw(&mut self, frame: &mut Frame<'_>, now: Instant) {
        let area = frame.area();
        let mut lines = vec![self.head(now), self.tabs()];
        let room = usize::from(area.height).saturating_sub(lines.len());
        let rows = if self.help {
            HELP.lines().map(|line| Row(line.to_owned(), false)).collect()
        } else {
            match &self.status {
                None => vec![Row("nothing is known yet".into(), false)],
                Some(status) => rows(status, VIEWS[self.view].0, self.sorts[self.view], usize::from(area.width)),
            }
        };
        self.top = self.top.min(rows.len().saturating_sub(room));
        let shown = rows.into_iter().skip(self.top).take(room);
        lines.extend(shown.map(|Row(text, first)| if first { Line::from(text).bold() } else { Line::from(text) }));
        frame.render_widget(Text::from(lines), area);
    }

    fn head(&self, now: Instant) -> Line<'static> {
        let ago = now.saturating_duration_since(self.heard);
        let held = if self.paused { ", held (p)" } else { "" };
        let text = match &self.lost {
            Some(why) => format!("NO ANSWER for {} from {}: {}", span(ago), self.admin, clean(why)),
            None if self.status.is_none() => format!("asking {}", self.admin),
            None => format!("hotring at {}{held}  ? for help", self.admin),
        };
        Line::styled(text, Style::new().bold())
    }

    fn tabs(&self) -> Line<'static> {
        let names = VIEWS.iter().enumerate();
        let told = names.map(|(at, (_, name))| if at == self.view { format!("[{name}]") } else { format!(" {name} ") });
        let by = sorts_of(VIEWS[self.view].0).get(self.sorts[self.view]);
        let sorted = by.map_or(String::new(), |by| format!("  by {by}"));
        Line::from(told.collect::<Vec<_>>().join(" ") + &sorted)
    }
}

/// All of it, for pipes.
#[must_use]
pub fn text(status: &Status) -> String {
    let mut text = String::new();
    for (view, name) in VIEWS {
        text += &format!("{}\n", name.to_uppercase());
        for Row(line, _) in rows(status, view, 0, usize::MAX) {
            text += line.trim_end();
            text.push('\n');
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

/// By what a view can be sorted; nothing where it cannot.
fn sorts_of(view: View) -> &'static [&'static str] {
    match view {
        View::Shards => &SHARD_SORTS,
        View::HotKeys => &KEY_SORTS,
        View::Overview | View::Errors => &[],
    }
}

fn rows(status: &Status, view: View, sort: usize, width: usize) -> Vec<Row> {
    match view {
        View::Overview => overview(status, width),
        View::Shards => shards(status, sort, width),
        View::HotKeys => hot_keys(status, sort, width),
        View::Errors => errors(status),
    }
}

fn overview(status: &Status, width: usize) -> Vec<Row> {
    let process = &status.process;
    let memory = match process.memory_limit_bytes {
        Some(limit) => format!("{} of {}", size(process.memory_bytes), size(limit)),
        None => size(process.memory_bytes),
    };
    let mut all = vec![Row(
        format!(
            "hotring {}  process {}  up {}  workers {}  memory {memory}",
            clean(&process.hotring),
            process.process,
            span(Duration::from_secs(process.uptime_seconds)),
            process.workers
        ),
        false,
    )];
    all.extend(process.not_ready.iter().map(|why| Row(format!("NOT READY: {}", clean(why)), true)));
    if process.panics > 0 {
        all.push(Row(format!("{} panics: the log has them; please report this", process.panics), true));
    }
    let reload = process.last_reload.as_ref();
    if let Some(reload) = reload {
        let ago = span(Duration::from_millis(status.now.saturating_sub(reload.at)));
        let done = if reload.taken { "taken" } else { "REFUSED, see errors" };
        all.push(Row(format!("configuration {}: {done} {ago} ago", clean(&process.config_path)), !reload.taken));
    }
    let mut table = Table::new(&[
        "POOL",
        "REQ/S",
        "P99 US",
        "ERR/S",
        "APPS",
        "CONNS",
        "SHARDS UP",
        "HOT",
        "SPARED/S",
        "P50 US",
        "PENDING",
        "STAMPEDES/S",
        "BUSIEST",
    ]);
    for pool in &status.pools {
        let primaries: Vec<&Shard> = pool.shards.iter().filter(|shard| shard.role == "primary").collect();
        let up = primaries.iter().filter(|shard| is_well(shard)).count();
        let spared = &pool.spared;
        let saved: f64 = [spared.from_memory, spared.by_copies, spared.by_replicas, spared.joined]
            .iter()
            .map(|r| r.per_second)
            .sum();
        let micros = |value: Option<u32>| value.map_or("-".into(), |value| value.to_string());
        table.add(
            &[
                clean(&pool.name),
                rate(pool.requests),
                micros(pool.latency.p99_micros),
                rate(pool.errors),
                pool.apps.to_string(),
                pool.server_connections.to_string(),
                format!("{up}/{}", primaries.len()),
                pool.hot_keys_count.to_string(),
                number(saved),
                micros(pool.latency.p50_micros),
                pool.pending.to_string(),
                rate(pool.misses.stampedes),
                format!("x{:.1}", pool.imbalance),
            ],
            up < primaries.len(),
        );
    }
    all.push(Row(String::new(), false));
    all.extend(table.rows(width));
    all.push(Row(String::new(), false));
    for pool in &status.pools {
        let room = width.saturating_sub(32).clamp(8, 120);
        all.push(Row(format!("{:<20} {} requests/s", clean(&pool.name), bars(&pool.history.requests, room)), false));
        all.extend(observed(pool).map(|line| Row(line, false)));
    }
    all
}

/// What would be done, were it not only observed.
fn observed(pool: &Pool) -> Option<String> {
    let seen = &pool.observed;
    let all = [
        ("served from elsewhere", seen.hot_would_serve),
        ("waited", seen.lease_would_wait),
        ("told stale", seen.stale_would_tell),
        ("loaded early", seen.early_would_load),
    ];
    let told: Vec<String> =
        all.iter().filter(|(_, r)| r.total > 0).map(|(what, r)| format!("{} {what}", rate(*r))).collect();
    (!told.is_empty()).then(|| format!("  observed, a second: {}", told.join(", ")))
}

fn shards(status: &Status, sort: usize, width: usize) -> Vec<Row> {
    let mut table =
        Table::new(&["SHARD", "STATE", "REQ/S", "SHARE", "OUT", "IN", "CONNS", "EJECTS", "ROLE", "POOL", "ADDRESS"]);
    let mut all: Vec<(&Pool, &Shard)> =
        status.pools.iter().flat_map(|pool| pool.shards.iter().map(move |shard| (pool, shard))).collect();
    match sort {
        1 => all.sort_by(|(_, a), (_, b)| b.requests.per_second.total_cmp(&a.requests.per_second)),
        2 => all.sort_by_key(|(_, shard)| std::cmp::Reverse(shard.in_queue.saturating_add(shard.out_queue))),
        3 => all.sort_by_key(|(_, shard)| is_well(shard)),
        _ => {}
    }
    for (pool, shard) in all {
        table.add(
            &[
                clean(&shard.name),
                clean(&shard.state),
                rate(shard.requests),
                format!("{:.1}%", 100.0 * shard.share),
                shard.out_queue.to_string(),
                shard.in_queue.to_string(),
                shard.connections.to_string(),
                shard.ejects.to_string(),
                clean(&shard.role),
                clean(&pool.name),
                clean(&shard.address),
            ],
            !is_well(shard),
        );
    }
    table.rows(width)
}

fn hot_keys(status: &Status, sort: usize, width: usize) -> Vec<Row> {
    let mut table = Table::new(&[
        "KEY",
        "LEVEL",
        "SHARE",
        "REQ/S",
        "SAVED/S",
        "SERVED BY",
        "SHARD",
        "WRITES/S",
        "POOL",
        "WHY NOT MORE",
    ]);
    let mut all: Vec<(&Pool, &HotKey)> =
        status.pools.iter().flat_map(|pool| pool.hot_keys.iter().map(move |key| (pool, key))).collect();
    if all.is_empty() {
        return vec![Row("no key is hot".into(), false)];
    }
    let by: fn(&HotKey) -> f64 = match sort {
        1 => |key| key.requests,
        2 => |key| key.saved,
        3 => |key| key.writes,
        _ => |key| key.share.max(key.share_of_bytes),
    };
    all.sort_by(|(_, a), (_, b)| by(b).total_cmp(&by(a)));
    for (pool, key) in all {
        table.add(
            &[
                short(&clean(&key.key), 40),
                clean(&key.level),
                format!("{:.1}%", 100.0 * key.share),
                number(key.requests),
                number(key.saved),
                clean(&key.served_by),
                clean(&key.shard),
                number(key.writes),
                clean(&pool.name),
                clean(&key.why),
            ],
            key.level == "hot",
        );
    }
    table.rows(width)
}

fn errors(status: &Status) -> Vec<Row> {
    let mut all = Vec::new();
    for pool in &status.pools {
        let name = clean(&pool.name);
        for (cause, count) in &pool.errors_by_cause {
            let line = format!("pool {name}: {} {}/s, {} in all", clean(cause), rate(*count), count.total);
            all.push(Row(line, count.per_second > 0.0));
        }
        if pool.server_errors.total > 0 {
            let count = pool.server_errors;
            all.push(Row(format!("pool {name}: errors of servers {}/s, {} in all", rate(count), count.total), false));
        }
        for shard in pool.shards.iter().filter(|shard| !shard.last_error.is_empty()) {
            let line =
                format!("{name}/{} is {}: last {}", clean(&shard.name), clean(&shard.state), clean(&shard.last_error));
            all.push(Row(line, !is_well(shard)));
        }
        if let Some(error) = pool.topology.as_ref().and_then(|topology| topology.error.as_ref()) {
            all.push(Row(format!("pool {name}: its topology is not known anew: {}", clean(error)), true));
        }
    }
    if let Some(reload) = status.process.last_reload.as_ref().filter(|reload| !reload.taken) {
        all.push(Row("the configuration was not taken:".into(), true));
        all.extend(reload.told.lines().map(|line| Row(format!("  {}", clean(line)), false)));
    }
    if all.is_empty() {
        all.push(Row("no errors".into(), false));
    }
    all
}

fn is_well(shard: &Shard) -> bool {
    matches!(shard.state.as_str(), "up" | "idle")
}

/// Columns as wide as what stands in them; those that do not fit are left out, the last ones first.
struct Table(Vec<(Vec<String>, bool)>);

impl Table {
    fn new(head: &[&str]) -> Self {
        Self(vec![(head.iter().map(|&name| name.to_owned()).collect(), false)])
    }

    fn add(&mut self, cells: &[String], first: bool) {
        self.0.push((cells.to_vec(), first));
    }

    fn rows(self, width: usize) -> Vec<Row> {
        let columns = self.0.first().map_or(0, |(head, _)| head.len());
        let wide = |at: usize| self.0.iter().filter_map(|(row, _)| row.get(at)).map(|c| c.chars().count()).max();
        let mut widths: Vec<usize> = Vec::new();
        for wide in (0..columns).map(|at| wide(at).unwrap_or(0).min(WIDEST)) {
            let used: usize = widths.iter().map(|wide| wide + 2).sum();
            if !widths.is_empty() && used + wide > width {
                break;
            }
            widths.push(wide);
        }
        let line = |row: &[String]| {
            let cells = row.iter().zip(&widths).map(|(cell, &wide)| format!("{cell:wide$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.0.iter().map(|(row, first)| Row(line(row), *first)).collect()
    }
}

/// Without what a terminal would take for a command, or for another order of what stands there.
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars() {
        let turns =
            matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || turns {
            clean.extend(c.escape_unicode());
        } else {
            clean.push(c);
        }
    }
    clean
}

fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(3)).chain("...".chars()).collect()
}

/// The last values, each as high as it is of the greatest.
fn bars(values: &[f64], most: usize) -> String {
    let last = &values[values.len().saturating_sub(most)..];
    let top = last.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let at = if top > 0.0 { (value / top * 7.0).round() as usize } else { 0 };
        BARS.get(at).copied().unwrap_or(' ')
    };
    last.iter().map(bar).collect()
}

fn rate(rates: Rates) -> String {
    number(rates.per_second)
}

fn number(value: f64) -> String {
    if value > 0.0 && value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        10_000..=9_999_999 => format!("{} kB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
