//! Commands that hotring answers by itself, in Redis' words. They take their turn among the session's replies.
//!
//! ```text
//! session.rs   what a session is: AUTH, HELLO, SELECT, RESET
//! client.rs    CLIENT, of the session itself
//! clients.rs   CLIENT, of others: LIST, KILL, UNBLOCK; those of this worker and pool
//! commands.rs  COMMAND
//! hotring.rs   HOTRING, hotring's own
//! info.rs      INFO, CONFIG
//! slowlog.rs   SLOWLOG
//! ```
//!
//! What differs between RESP2 and RESP3 is written in the session's protocol.

mod client;
mod clients;
mod commands;
mod hotring;
mod info;
mod session;
mod slowlog;

use super::port::Port;
use super::{Engine, SessionId};
use crate::command::{self, Local, Spec};
use crate::error::{Cause, NO_AUTH};
use crate::resp::control::{Control, encode, encode_for};
use crate::resp::{Request, write};
use crate::stages::Micros;

/// The version of Redis whose behaviour hotring shows, where clients ask for one.
pub const REDIS_VERSION: &str = "7.0.15";

/// What INFO, HELLO and TIME tell of the process.
#[derive(Debug, Default, Clone, Copy)]
pub struct About {
    /// Its process id.
    pub process: u32,
    /// The port of its first TCP listener; 0 if there is none.
    pub port: u16,
    /// The wall clock at the engine's time 0, in microseconds since 1970.
    pub epoch: Micros,
}

/// What was done, or the error reply with the cause it is counted under.
type Answer<T = ()> = Result<T, (Cause, Vec<u8>)>;

const SYNTAX: &str = "ERR syntax error";

fn syntax(text: impl Into<Vec<u8>>) -> (Cause, Vec<u8>) {
    (Cause::Syntax, text.into())
}

/// A request that hotring answers, and where the answer goes.
struct Asked<'a> {
    id: SessionId,
    spec: &'static Spec,
    request: &'a Request<'a>,
    /// Whether the reply is one in RESP3.
    resp3: bool,
    out: Vec<u8>,
}

impl Asked<'_> {
    fn ok(&mut self) {
        write::simple(&mut self.out, b"OK");
    }

    fn reply(&mut self, reply: &Control) {
        encode_for(self.resp3, reply, &mut self.out);
    }

    fn arg(&self, index: usize) -> &[u8] {
        self.request.arg(index).unwrap_or_default()
    }

    /// What Redis says where a subcommand that takes options is given too many of them.
    fn too_many(&self) -> (Cause, Vec<u8>) {
        let mut text = b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
        let sub = shown(self.arg(1));
        text.extend_from_slice(sub.get(..128).unwrap_or(sub));
        text.extend_from_slice(b"'. Try ");
        text.extend(self.spec.name.bytes().take_while(|&b| b != b'|').map(|b| b.to_ascii_uppercase()));
        text.extend_from_slice(b" HELP.");
        syntax(text)
    }
}

/// Answers the session's newest request.
pub(super) fn answer(
    engine: &mut Engine,
    id: SessionId,
    local: Local,
    spec: &'static Spec,
    request: &Request<'_>,
    port: &mut impl Port,
) {
    let resp3 = engine.sessions.get(id as usize).is_some_and(|session| session.resp3);
    let mut asked = Asked { id, spec, request, resp3, out: engine.spare.take() };
    let answered = match local {
        Local::Auth => session::auth(engine, &mut asked),
        Local::Client => client::client(engine, &mut asked, port),
        Local::Command => commands::command(&mut asked),
        Local::Config => info::config(engine, &mut asked),
        Local::Hello => session::hello(engine, &mut asked),
        Local::Hotring => hotring::hotring(engine, &mut asked),
        Local::Info => info::info(engine, &mut asked),
        Local::Ping => ping(&mut asked),
        Local::Select => session::select(engine, &mut asked),
        Local::Slowlog => slowlog::slowlog(engine, &mut asked),
        plain => {
            simple(engine, plain, &mut asked);
            Ok(())
        }
    };
    let mut out = asked.out;
    match answered {
        Ok(()) => engine.answer_with(id, None, |reply| std::mem::swap(reply, &mut out)),
        Err((cause, text)) => engine.answer_with(id, Some(cause), |reply| write::error(reply, &text)),
    }
    out.clear();
    engine.spare.put(out);
    if matches!(local, Local::Quit)
        && let Some(session) = engine.sessions.get_mut(id as usize)
    {
        session.closing = true;
    }
}

/// Commands that need no more than a line.
fn simple(engine: &mut Engine, local: Local, asked: &mut Asked<'_>) {
    match local {
        Local::Echo => write::bulk(&mut asked.out, asked.request.arg(1).unwrap_or_default()),
        Local::Help => asked.reply(&command::help(asked.spec)),
        Local::Reset => {
            session::reset(engine, asked.id);
            write::simple(&mut asked.out, b"RESET");
        }
        Local::Acl => {
            let name = engine.user_name(asked.id).to_owned();
            write::bulk(&mut asked.out, name.as_bytes());
        }
        Local::Role => {
            let role = Control::Array(vec![Control::bulk("master"), Control::Integer(0), Control::Array(vec![])]);
            encode(&role, &mut asked.out);
        }
        Local::Time => {
            let now = engine.about.epoch.saturating_add(engine.now);
            write::array(&mut asked.out, 2);
            for part in [now / 1_000_000, now % 1_000_000] {
                write::bulk(&mut asked.out, part.to_string().as_bytes());
            }
        }
        _ => asked.ok(),
    }
}

fn ping(asked: &mut Asked<'_>) -> Answer {
    match (asked.request.argc(), asked.request.arg(1)) {
        (1, _) => write::simple(&mut asked.out, b"PONG"),
        (2, Some(text)) => write::bulk(&mut asked.out, text),
        _ => return Err(syntax("ERR wrong number of arguments for 'ping' command")),
    }
    Ok(())
}

/// As much of an argument as Redis shows in an error: up to the first zero byte.
fn shown(argument: &[u8]) -> &[u8] {
    argument.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Such an error: what is wrong with an argument, and the argument between quotes.
fn quoted(text: &str, argument: &[u8]) -> (Cause, Vec<u8>) {
    let mut whole = text.as_bytes().to_vec();
    whole.extend_from_slice(b" '");
    whole.extend_from_slice(shown(argument));
    whole.push(b'\'');
    syntax(whole)
}

/// The error for a session that has not authenticated.
pub(super) fn not_authenticated(out: &mut Vec<u8>) {
    write::error(out, NO_AUTH.as_bytes());
}
