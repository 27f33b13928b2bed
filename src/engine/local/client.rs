//! CLIENT, as far as it is about the session that asks. [`clients`] has the rest.

use super::session::{is_plain, valid_name};
use super::{Answer, Asked, SYNTAX, clients, quoted, syntax};
use crate::command::Why;
use crate::engine::Engine;
use crate::engine::port::Port;
use crate::engine::special::Mute;
use crate::error::Cause;
use crate::resp::control::Control;
use crate::resp::write;

pub(super) fn client(engine: &mut Engine, asked: &mut Asked<'_>, port: &mut impl Port) -> Answer {
    let Some(session) = engine.sessions.get_mut(asked.id as usize) else { return Ok(()) };
    let argument = asked.request.arg(2).unwrap_or_default();
    match asked.spec.name {
        "client|setname" => {
            session.special().name = valid_name(argument)?;
            asked.ok();
        }
        "client|getname" => match session.name() {
            b"" => write::null(&mut asked.out, asked.resp3),
            name => write::bulk(&mut asked.out, name),
        },
        "client|id" => write::integer(&mut asked.out, i64::try_from(session.id).unwrap_or(i64::MAX)),
        "client|setinfo" => {
            let value = asked.request.arg(3).unwrap_or_default();
            let name = argument.eq_ignore_ascii_case(b"lib-name");
            if !name && !argument.eq_ignore_ascii_case(b"lib-ver") {
                return Err(quoted("ERR Unrecognized option", argument));
            }
            if !is_plain(value) {
                let text = b" cannot contain spaces, newlines or special characters.";
                return Err(syntax([b"ERR ", argument, text].concat()));
            }
            let special = session.special();
            *(if name { &mut special.lib_name } else { &mut special.lib_ver }) = value.to_vec();
            asked.ok();
        }
        "client|no-evict" | "client|no-touch" => {
            switch(argument)?;
            asked.ok();
        }
        "client|reply" => reply(engine, asked, argument)?,
        "client|trackinginfo" => {
            let fields = [
                ("flags", Control::Set(vec![Control::bulk("off")])),
                ("redirect", Control::Integer(-1)),
                ("prefixes", Control::Array(vec![])),
            ];
            asked.reply(&Control::Map(fields.into_iter().map(|(key, value)| (Control::bulk(key), value)).collect()));
        }
        "client|getredir" => write::integer(&mut asked.out, -1),
        "client|info" => clients::info(engine, asked, port),
        "client|list" => clients::list(engine, asked, port)?,
        "client|kill" => clients::kill(engine, asked, port)?,
        "client|unblock" => clients::unblock(engine, asked, port)?,
        // The table refuses all others.
        _ => return Err((Cause::Unsupported, Why::Admin.text().into())),
    }
    Ok(())
}

/// `on` or `off`.
fn switch(argument: &[u8]) -> Answer<bool> {
    match argument {
        on if on.eq_ignore_ascii_case(b"on") => Ok(true),
        off if off.eq_ignore_ascii_case(b"off") => Ok(false),
        _ => Err(syntax(SYNTAX)),
    }
}

/// CLIENT REPLY. It begins when all before it is answered, so that a session is muted as a whole.
fn reply(engine: &mut Engine, asked: &mut Asked<'_>, wanted: &[u8]) -> Answer {
    let Some(session) = engine.sessions.get_mut(asked.id as usize) else { return Ok(()) };
    let muted = session.special.as_ref().is_some_and(|special| special.mute == Mute::All);
    if wanted.eq_ignore_ascii_case(b"skip") {
        // Its own slot, which is the next, and the one behind it: neither is answered.
        if !muted {
            let slot = session.next_slot();
            session.mute(Mute::After(slot));
        }
    } else if switch(wanted)? {
        session.mute(Mute::Nothing);
        asked.ok();
    } else {
        session.mute(Mute::All);
    }
    Ok(())
}
