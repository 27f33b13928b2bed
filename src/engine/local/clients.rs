//! CLIENT INFO and LIST, KILL and UNBLOCK: the sessions of this pool on this worker.
//!
//! Several workers know nothing of each other's sessions; where one must see them all there is to be one worker. What
//! hotring does not know of a session is told as 0 or -1, as Redis does for what does not apply.

use super::{Answer, Asked, SYNTAX, quoted, syntax};
use crate::command;
use crate::engine::channels::Kind;
use crate::engine::port::Port;
use crate::engine::special::mode;
use crate::engine::window::Session;
use crate::engine::{Engine, SessionId};
use crate::resp::write;
use std::fmt::Write as _;

const BAD_ID: &str = "ERR client-id should be greater than 0";

pub(super) fn info(engine: &Engine, asked: &mut Asked<'_>, port: &impl Port) {
    let mut text = String::new();
    line(engine, asked.id, Some(asked.spec.name), port, &mut text);
    write::text(&mut asked.out, text.as_bytes(), asked.resp3);
}

pub(super) fn list(engine: &Engine, asked: &mut Asked<'_>, port: &impl Port) -> Answer {
    let mut text = String::new();
    let options: Vec<&[u8]> = asked.request.args().skip(2).collect();
    let mut wanted: Box<dyn Fn(&Session) -> bool> = Box::new(|_| true);
    match options.as_slice() {
        [] => {}
        [option, kind] if option.eq_ignore_ascii_case(b"TYPE") => {
            let kind = Sort::named(kind)?;
            wanted = Box::new(move |session| kind.is(session));
        }
        [option, ids @ ..] if option.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
            let number = |id: &&[u8]| command::integer(id).ok_or_else(|| syntax("ERR Invalid client ID"));
            let ids = ids.iter().map(number).collect::<Answer<Vec<i64>>>()?;
            wanted = Box::new(move |session| i64::try_from(session.id).is_ok_and(|id| ids.contains(&id)));
        }
        _ => return Err(syntax(SYNTAX)),
    }
    let mut found: Vec<(u64, SessionId)> =
        fellows(engine, asked.id).filter(|(_, session)| wanted(session)).map(|(id, s)| (s.id, id)).collect();
    found.sort_unstable();
    for (_, id) in found {
        line(engine, id, (id == asked.id).then_some(asked.spec.name), port, &mut text);
    }
    write::text(&mut asked.out, text.as_bytes(), asked.resp3);
    Ok(())
}

/// The open sessions of the same pool, the one that asks included; to one with a prefix, of those that have the same.
fn fellows(engine: &Engine, id: SessionId) -> impl Iterator<Item = (SessionId, &Session)> {
    let asking = engine.sessions.get(id as usize);
    let (pool, prefix) = (asking.map(|session| session.pool), asking.and_then(|session| session.prefix()));
    let all = engine.sessions.iter().map(|(id, session)| (id as SessionId, session.as_ref()));
    let own = move |session: &Session| prefix.is_none() || session.prefix() == prefix;
    all.filter(move |(_, session)| {
        Some(session.pool) == pool && !session.killed && !session.is_branch() && own(session)
    })
}

/// What there is to tell of a session. `command` is what it asks now, where that is known.
fn line(engine: &Engine, id: SessionId, command: Option<&str>, port: &impl Port, out: &mut String) {
    let Some(session) = engine.sessions.get(id as usize) else { return };
    let (address, local) = port.addresses(id);
    let special = session.special.as_deref();
    // Of a session whose keys live in another pool it is there that a transaction is, or something is waited for.
    let busy = engine.special_there(id).or(special);
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut flags = String::new();
    for (set, flag) in [
        (session.mode & mode::LISTENING != 0, 'P'),
        (busy.is_some_and(|s| s.multi), 'x'),
        (busy.is_some_and(|s| s.blocked), 'b'),
        (busy.is_some_and(|s| s.watch_lost), 'd'),
        (session.closing, 'c'),
        (address.starts_with('/'), 'U'),
    ] {
        if set {
            flags.push(flag);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let listens = |kind: Kind| special.map_or(0, |s| s.listens.iter().filter(|(other, _)| *other == kind).count());
    let multi = busy.filter(|s| s.multi).map_or(-1, |s| i64::from(s.queued));
    let waiting = session.waiting();
    let _ = writeln!(
        out,
        "id={} addr={address} laddr={local} fd=-1 name={} age=0 idle=0 flags={flags} db={} sub={} psub={} ssub={} \
         multi={multi} qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={waiting} oll=0 omem={waiting} \
         tot-mem={} events={} cmd={} user={} redir=-1 resp={} lib-name={} lib-ver={}",
        session.id,
        told(session.name()),
        session.db(),
        listens(Kind::Channel),
        listens(Kind::Pattern),
        listens(Kind::Sharded),
        size_of::<Session>().saturating_add(session.output.capacity()),
        if waiting > 0 { "rw" } else { "r" },
        command.or_else(|| busy.filter(|s| s.blocked).map(|s| s.waits_in)).unwrap_or("NULL"),
        engine.user_name(id),
        if session.resp3 { 3 } else { 2 },
        told(special.map_or(&[], |s| &s.lib_name)),
        told(special.map_or(&[], |s| &s.lib_ver)),
    );
}

/// A sort of client, as LIST and KILL know them.
#[derive(Clone, Copy)]
enum Sort {
    Normal,
    Subscriber,
    /// Masters and replicas, of which there are none here.
    Nobody,
}

impl Sort {
    fn named(name: &[u8]) -> Answer<Self> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Self::Normal),
            b"pubsub" => Ok(Self::Subscriber),
            b"master" | b"slave" | b"replica" => Ok(Self::Nobody),
            _ => Err(quoted("ERR Unknown client type", name)),
        }
    }

    fn is(self, session: &Session) -> bool {
        let listens = session.mode & mode::LISTENING != 0;
        match self {
            Self::Normal => !listens,
            Self::Subscriber => listens,
            Self::Nobody => false,
        }
    }
}

/// Whom KILL is about.
#[derive(Default)]
struct Filter {
    id: Option<i64>,
    address: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    kind: Option<Sort>,
    user: Option<Vec<u8>>,
    not_me: bool,
}

impl Filter {
    fn of(options: &[&[u8]], engine: &Engine, asked: &Asked<'_>) -> Answer<Self> {
        let mut filter = Self { not_me: true, ..Self::default() };
        let mut rest = options;
        while let [option, tail @ ..] = rest {
            let [value, tail @ ..] = tail else { return Err(syntax(SYNTAX)) };
            rest = tail;
            match option.to_ascii_lowercase().as_slice() {
                b"id" => {
                    let id = command::integer(value).filter(|&id| id > 0);
                    filter.id = Some(id.ok_or_else(|| syntax(BAD_ID))?);
                }
                b"type" => filter.kind = Some(Sort::named(value)?),
                b"addr" => filter.address = Some(value.to_vec()),
                b"laddr" => filter.local = Some(value.to_vec()),
                b"user" => {
                    let pool = engine.sessions.get(asked.id as usize).map(|session| session.pool);
                    let pool = pool.and_then(|pool| engine.pools.get(usize::from(pool)));
                    if pool.is_none_or(|pool| pool.config.users.get(value).is_none()) {
                        return Err(quoted("ERR No such user", value));
                    }
                    filter.user = Some(value.to_vec());
                }
                b"skipme" if value.eq_ignore_ascii_case(b"yes") => filter.not_me = true,
                b"skipme" if value.eq_ignore_ascii_case(b"no") => filter.not_me = false,
                _ => return Err(syntax(SYNTAX)),
            }
        }
        Ok(filter)
    }

    fn takes(&self, id: SessionId, engine: &Engine, asking: SessionId, port: &impl Port) -> bool {
        let Some(session) = engine.sessions.get(id as usize) else { return false };
        if self.user.as_ref().is_some_and(|user| user != engine.user_name(id).as_bytes())
            || (self.not_me && id == asking)
            || self.id.is_some_and(|wanted| u64::try_from(wanted) != Ok(session.id))
            || self.kind.is_some_and(|kind| !kind.is(session))
        {
            return false;
        }
        if self.address.is_none() && self.local.is_none() {
            return true;
        }
        let (address, local) = port.addresses(id);
        let is = |wanted: &Option<Vec<u8>>, told: &str| wanted.as_ref().is_none_or(|w| w == told.as_bytes());
        is(&self.address, &address) && is(&self.local, &local)
    }
}

pub(super) fn kill(engine: &mut Engine, asked: &mut Asked<'_>, port: &impl Port) -> Answer {
    let options: Vec<&[u8]> = asked.request.args().skip(2).collect();
    let old = options.len() == 1;
    let filter = match options.as_slice() {
        // The old form: an address, and one's own does, too.
        [address] => Filter { address: Some(address.to_vec()), ..Filter::default() },
        several => Filter::of(several, engine, asked)?,
    };
    let found: Vec<SessionId> =
        fellows(engine, asked.id).map(|(id, _)| id).filter(|&id| filter.takes(id, engine, asked.id, port)).collect();
    if old && found.is_empty() {
        return Err(syntax("ERR No such client"));
    }
    for &id in &found {
        if id == asked.id {
            // It still gets its answer.
            if let Some(session) = engine.sessions.get_mut(id as usize) {
                session.closing = true;
            }
        } else {
            engine.end_session(id);
        }
    }
    if old {
        asked.ok();
    } else {
        write::integer(&mut asked.out, found.len() as i64);
    }
    Ok(())
}

pub(super) fn unblock(engine: &mut Engine, asked: &mut Asked<'_>, port: &mut impl Port) -> Answer {
    let with_error = match asked.request.arg(3) {
        _ if asked.request.argc() > 4 => return Err(asked.too_many()),
        None => false,
        Some(reason) if reason.eq_ignore_ascii_case(b"timeout") => false,
        Some(reason) if reason.eq_ignore_ascii_case(b"error") => true,
        Some(_) => return Err(syntax("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    };
    let wanted = command::integer(asked.arg(2)).ok_or_else(|| syntax("ERR value is not an integer or out of range"))?;
    let found = fellows(engine, asked.id).find(|(_, session)| u64::try_from(wanted) == Ok(session.id));
    let waits = |id| engine.bound_branch(id).unwrap_or(id);
    let ended = found.map(|(id, _)| waits(id)).is_some_and(|id| engine.unblock(id, with_error, port));
    write::integer(&mut asked.out, i64::from(ended));
    Ok(())
}
