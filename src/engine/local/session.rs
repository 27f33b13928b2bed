//! What a session is: AUTH, HELLO, SELECT, RESET.
//!
//! A request that is wrong in any part changes nothing.

use super::{Answer, Asked, REDIS_VERSION, quoted, syntax};
use crate::command;
use crate::engine::{Engine, SessionId};
use crate::error::Cause;
use crate::resp::control::Control;

/// Back to what a session is when it is opened. Its transaction and its connection have been left before.
pub(super) fn reset(engine: &mut Engine, id: SessionId) {
    let Some(session) = engine.sessions.get_mut(id as usize) else { return };
    let failures = session.special.as_ref().map_or(0, |special| special.failures);
    (session.special, session.mode, session.resp3, session.base) = (None, 0, false, 0);
    if failures > 0 {
        // Else RESET between two tries would make them free.
        session.special().failures = failures;
    }
    engine.be_nobody(id);
    engine.mark_aside(id);
}

pub(super) fn select(engine: &mut Engine, asked: &mut Asked<'_>) -> Answer {
    let index = match command::integer(asked.arg(1)) {
        Some(index) if i32::try_from(index).is_err() => {
            return Err(syntax("ERR value is out of range, value must between -2147483648 and 2147483647"));
        }
        Some(index) => u16::try_from(index).ok(),
        None => return Err(syntax("ERR value is not an integer or out of range")),
    };
    let Some(session) = engine.sessions.get_mut(asked.id as usize) else { return Ok(()) };
    let databases = engine.pools.get(usize::from(session.pool)).map_or(1, |pool| pool.config.databases);
    let Some(db) = index.filter(|&db| db < databases) else { return Err(syntax("ERR DB index is out of range")) };
    if db != session.db() {
        session.special().db = db;
        engine.settle(asked.id);
    }
    asked.ok();
    Ok(())
}

pub(super) fn auth(engine: &mut Engine, asked: &mut Asked<'_>) -> Answer {
    let request = asked.request;
    let (user, password) = match (request.argc(), request.arg(1), request.arg(2)) {
        (2, Some(password), _) => (None, password),
        (3, Some(user), Some(password)) => (Some(user), password),
        _ => return Err(syntax(super::SYNTAX)),
    };
    engine.log_in(asked.id, user, password)?;
    asked.ok();
    Ok(())
}

pub(super) fn hello(engine: &mut Engine, asked: &mut Asked<'_>) -> Answer {
    let args: Vec<&[u8]> = asked.request.args().skip(1).collect();
    let mut rest = args.as_slice();
    let Some(session) = engine.sessions.get(asked.id as usize) else { return Ok(()) };
    let may = engine.pools.get(usize::from(session.pool)).is_some_and(|pool| pool.config.resp3);
    let mut resp3 = session.resp3;
    if let [version, tail @ ..] = rest {
        match command::integer(version) {
            None => return Err(syntax("ERR Protocol version is not an integer or out of range")),
            Some(2) => resp3 = false,
            Some(3) if may => resp3 = true,
            Some(_) => return Err((Cause::Unsupported, "NOPROTO unsupported protocol version".into())),
        }
        rest = tail;
    }
    let (mut name, mut credentials) = (None, None);
    while let [option, tail @ ..] = rest {
        rest = match tail {
            [user, password, tail @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                credentials = Some((*user, *password));
                tail
            }
            [wanted, tail @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                name = Some(valid_name(wanted)?);
                tail
            }
            _ => return Err(quoted("ERR Syntax error in HELLO option", option)),
        };
    }
    if let Some((user, password)) = credentials {
        engine.log_in(asked.id, Some(user), password)?;
    }
    let Some(session) = engine.sessions.get_mut(asked.id as usize) else { return Ok(()) };
    if !session.authenticated {
        return Err((
            Cause::Auth,
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> \
             option can be used to authenticate the client and select the RESP protocol version at the same time"
                .into(),
        ));
    }
    if let Some(name) = name {
        session.special().name = name;
    }
    let changed = std::mem::replace(&mut session.resp3, resp3) != resp3;
    let fields = [
        ("server", Control::bulk("redis")),
        ("version", Control::bulk(REDIS_VERSION)),
        ("proto", Control::Integer(if resp3 { 3 } else { 2 })),
        ("id", Control::Integer(i64::try_from(session.id).unwrap_or(i64::MAX))),
        ("mode", Control::bulk("standalone")),
        ("role", Control::bulk("master")),
        ("modules", Control::Array(vec![])),
    ];
    asked.resp3 = resp3;
    asked.reply(&Control::Map(fields.into_iter().map(|(key, value)| (Control::bulk(key), value)).collect()));
    if changed {
        engine.settle(asked.id);
    }
    Ok(())
}

/// A name for CLIENT SETNAME; an empty one takes the name away.
pub(super) fn valid_name(name: &[u8]) -> Answer<Vec<u8>> {
    if !is_plain(name) {
        return Err(syntax("ERR Client names cannot contain spaces, newlines or special characters."));
    }
    Ok(name.to_vec())
}

/// Whether a text can stand in CLIENT LIST.
pub(super) fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|b| (b'!'..=b'~').contains(b))
}
