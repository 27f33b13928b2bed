//! The tables of the manual, made from the lists of the code.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use hotring::command::{Why, rows};
use hotring::config::{KEYS, Place};
use hotring::metrics::{self, Cause, Label};

/// Every key of the configuration, by place.
pub(crate) fn keys() -> String {
    let mut text = String::new();
    for (place, title) in [
        (Place::Top, "At the top of the file:"),
        (Place::Drain, "Under `drain`:"),
        (Place::Tracing, "Under `tracing` (docs/tracing.md):"),
        (Place::AccessLog, "Under `access_log` (docs/tracing.md):"),
        (Place::Log, "Under `log`:"),
        (Place::Command, "Under `commands`, in a command:"),
        (Place::Pool, "In a pool:"),
        (Place::Server, "In an entry of `servers` that is a map:"),
        (Place::Auth, "Under `server_auth`, `sentinel_auth` and, but for `user`, under `client_auth`:"),
        (Place::Tls, "Under `tls`:"),
        (Place::Certificate, "In an entry of `certificates` under `tls`:"),
        (Place::ServerTls, "Under `server_tls` and `sentinel_tls`:"),
        (Place::User, "Under `users`, in a user:"),
        (Place::Limit, "In an entry of `rate_limits`:"),
        (Place::HotKeys, "Under `hot_keys`:"),
        (Place::HotPrefix, "In an entry of `prefixes` under `hot_keys`:"),
        (Place::Misses, "Under `misses`:"),
        (Place::MissPrefix, "In an entry of `prefixes` under `misses`:"),
        (Place::Mirror, "Under `mirror`:"),
    ] {
        text += &format!("{title}\n\n| Key | Default | Meaning |\n| --- | --- | --- |\n");
        for key in KEYS.iter().filter(|key| key.place == place) {
            let default = match key.default {
                "" => String::new(),
                "required" => "required".to_owned(),
                value => format!("`{value}`"),
            };
            let mark = if key.twemproxy { " ¹" } else { "" };
            text += &format!("| `{}`{mark} | {default} | {} |\n", key.name, cell(key.meaning));
        }
        text.push('\n');
    }
    text
}

/// Every metric.
pub(crate) fn all_metrics() -> String {
    metrics::table()
}

/// Every error of hotring's own.
pub(crate) fn errors() -> String {
    let mut text = String::from("| Cause | Text | What to know |\n| --- | --- | --- |\n");
    for cause in Cause::ALL {
        let (sent, advice) = cause.manual();
        text += &format!("| `{}` | `{}` | {} |\n", cause.as_str(), cell(sent), cell(advice));
    }
    text
}

/// What `--help` says.
pub(crate) fn help() -> String {
    let mut text = String::new();
    let all = [
        &["--help"][..],
        &["check", "--help"],
        &["route", "--help"],
        &["import", "--help"],
        &["bench", "--help"],
        &["top", "--help"],
        &["demo", "--help"],
        &["demo", "hot-key", "--help"],
        &["demo", "stampede", "--help"],
        &["demo", "connections", "--help"],
    ];
    for command in all {
        let done = Command::new(env!("CARGO_BIN_EXE_hotring")).args(command).output().unwrap();
        assert!(done.status.success(), "{command:?}");
        let said = String::from_utf8(done.stdout).unwrap();
        text += &format!("```text\n$ hotring {}\n{}\n```\n\n", command.join(" "), said.trim_end());
    }
    text
}

/// What is done with commands, in few lines: a container stands for its subcommands.
pub(crate) fn commands() -> String {
    let mut by: BTreeMap<String, (usize, BTreeSet<String>)> = BTreeMap::new();
    for row in rows() {
        // What arguments may change is told in the long table.
        let does = row.does.split(';').next().unwrap_or_default().to_owned();
        let (count, names) = by.entry(does).or_default();
        *count += 1;
        if !row.name.ends_with(" help") {
            names.insert(row.name.split(' ').next().unwrap_or_default().to_uppercase());
        }
    }
    let mut text = String::from("| What hotring does | How many | Which |\n| --- | ---: | --- |\n");
    for (does, (count, names)) in by {
        const MOST: usize = 24;
        let shown: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
        let more = if names.len() > MOST { " ..." } else { "" };
        text += &format!("| {does} | {count} | {}{more} |\n", shown.join(", "));
    }
    text
}

/// Every command.
pub(crate) fn all_commands() -> String {
    let mut rows: Vec<_> = rows().collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    let mut text = String::from("| Command | Arity | What hotring does |\n| --- | ---: | --- |\n");
    for row in rows {
        text += &format!("| {} | {} | {} |\n", row.name.to_uppercase(), row.arity, cell(&row.does));
    }
    text
}

/// Every reason for a refusal.
pub(crate) fn refusals() -> String {
    let mut text = String::from("| Reason | Error |\n| --- | --- |\n");
    // Never sent: an unknown subcommand has Redis' own error.
    for why in Why::ALL.into_iter().filter(|why| !matches!(why, Why::Subcommand)) {
        text += &format!("| {} | {} |\n", cell(why.in_short()), cell(why.text()));
    }
    text
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
