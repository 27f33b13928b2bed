//! The query of `POST /faults`: a rule by which faults are injected, and for how long.
//!
//! Promises: a rule that is read is whole and within its bounds; each ends by itself within [`LONGEST`].

use super::query::decode;
use crate::stages::fault::{Effect, Rule, WHOLE};
use crate::units::Millis;
use std::time::Duration;

/// How long a rule lasts where nothing is said.
const TERM: Duration = Duration::from_secs(300);
/// How long it may.
const LONGEST: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_secs(1);
/// How long a request or a reply may be held back.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// The longest text of an error, and beginning of a key, in bytes.
const MOST: usize = 256;
/// Most commands of a rule.
const COMMANDS: usize = 64;

/// What a peer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The pool; the only one where none is named.
    pub pool: Option<String>,
    /// The rule; its number is still to be given.
    pub rule: Rule,
    /// How long it lasts.
    pub term: Duration,
}

/// What may be said.
pub(super) const USAGE: &str = "?delay=200ms[&where=request|reply] or ?error=TEXT or ?drop, and [&pool=P][&command=GET,SET][&prefix=P][&share=0.1][&ttl=5m]";

/// Reads a rule.
pub(super) fn parse(query: &str) -> Result<Wanted, String> {
    let (mut pool, mut commands, mut prefix, mut share, mut term) = (None, Vec::new(), None, WHOLE, TERM);
    let (mut delay, mut error, mut drop, mut at_request) = (None, None, false, None);
    let mut seen = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or_else(|| format!("`{name}` has a percent sign without two hex digits"))?;
        if seen.contains(&name) {
            return Err(format!("`{name}` is given twice"));
        }
        seen.push(name);
        let text = || String::from_utf8(value.clone()).map_err(|_| format!("`{name}` is not UTF-8"));
        match name {
            "pool" => pool = Some(text()?),
            "command" => {
                let names = text()?.to_ascii_lowercase();
                let named: Vec<Box<str>> = names.split(',').map(|name| name.trim().into()).collect();
                if named.len() > COMMANDS || named.iter().any(|name| unknown(name)) {
                    return Err("`command` is a list of commands such as `get,set`".to_owned());
                }
                commands = named;
            }
            "prefix" if !value.is_empty() && value.len() <= MOST => prefix = Some(value.into()),
            "share" => {
                share = thousandths(&text()?).ok_or("`share` is a number from 0.001 to 1 such as `0.1`")?;
            }
            "ttl" => {
                term = span(&text()?, SHORTEST, LONGEST).ok_or("`ttl` is a duration from `1s` to `1h` such as `5m`")?;
            }
            "delay" => {
                let least = Duration::from_millis(1);
                let span = span(&text()?, least, LONGEST_DELAY).ok_or("`delay` is a duration from `1ms` to `1m`")?;
                delay = Some(u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
            }
            "where" => match text()?.as_str() {
                "request" => at_request = Some(true),
                "reply" => at_request = Some(false),
                _ => return Err("`where` is `request` or `reply`".to_owned()),
            },
            "error" => {
                let text = text()?;
                if text.is_empty() || text.len() > MOST || text.contains(char::is_control) {
                    return Err(format!("`error` is a text of 1 to {MOST} bytes such as `ERR injected`, on one line"));
                }
                error = Some(text.into_boxed_str());
            }
            "drop" if value.is_empty() => drop = true,
            _ => return Err(format!("`{name}` is not what it takes: {USAGE}")),
        }
    }
    let effect = match (delay, error, drop) {
        (Some(span), None, false) if at_request == Some(true) => Effect::DelayRequest(span),
        (Some(span), None, false) => Effect::DelayReply(span),
        (None, Some(text), false) if at_request.is_none() => Effect::Error(text),
        (None, None, true) if at_request.is_none() => Effect::Drop,
        _ => return Err(format!("expected one of delay, error and drop: {USAGE}")),
    };
    Ok(Wanted { pool, rule: Rule { id: 0, commands, prefix, share, effect }, term })
}

/// Reads which rule is to be taken away: all where none is named.
pub(super) fn which(query: &str) -> Result<Option<u64>, String> {
    match query {
        "" => Ok(None),
        _ => query
            .strip_prefix("id=")
            .and_then(|id| id.parse().ok())
            .map(Some)
            .ok_or("expected ?id=N, or nothing".into()),
    }
}

fn unknown(name: &str) -> bool {
    crate::command::lookup(name.as_bytes()).is_none()
}

fn span(text: &str, least: Duration, most: Duration) -> Option<Duration> {
    text.parse::<Millis>().ok().map(Duration::from).filter(|span| (least..=most).contains(span))
}

fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let part: u32 = format!("{part:0<3}").parse().ok()?;
    let share = whole.parse::<u32>().ok()?.checked_mul(WHOLE)?.checked_add(part)?;
    (1..=WHOLE).contains(&share).then_some(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read() {
        let wanted =
            parse("pool=a%20b&command=GET,Set&prefix=user:&share=0.25&delay=200ms&where=request&ttl=10s").unwrap();
        let rule = Rule {
            id: 0,
            commands: vec!["get".into(), "set".into()],
            prefix: Some(b"user:"[..].into()),
            share: 250,
            effect: Effect::DelayRequest(200_000),
        };
        assert_eq!(wanted, Wanted { pool: Some("a b".into()), rule, term: Duration::from_secs(10) });
        let least = parse("drop").unwrap();
        assert_eq!((least.rule.effect, least.rule.share, least.term), (Effect::Drop, WHOLE, TERM));
        assert_eq!(parse("error=ERR+injected").unwrap().rule.effect, Effect::Error("ERR injected".into()));
        assert_eq!(parse("delay=1s").unwrap().rule.effect, Effect::DelayReply(1_000_000));
        assert_eq!((which("id=7"), which("")), (Ok(Some(7)), Ok(None)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for query in [
            "",
            "pool=a",
            "delay=1s&drop",
            "error=a&where=reply",
            "drop=1",
            "error=",
            "error=a%0d%0ab",
            "delay=0",
            "delay=2m",
            "delay=1s&ttl=2h",
            "delay=1s&ttl=0",
            "delay=1s&share=0",
            "delay=1s&share=1.5",
            "delay=1s&command=nosuch",
            "delay=1s&delay=1s",
            "delay=1s&where=there",
            "delay=1s&prefix=",
            "delay=%",
            "dealy=1s",
        ] {
            assert!(parse(query).is_err(), "{query}");
        }
        assert!(which("id=x").is_err() && which("all").is_err());
    }
}
