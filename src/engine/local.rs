//! Commands that hotring answers by itself, in Redis' words. They take their turn among the session's replies.
//!
//! What differs between RESP2 and RESP3 is written in the session's protocol.

use super::{Engine, SessionId};
use crate::command::{self, Keys, Local, Spec, Why, flag};
use crate::error::{Cause, NO_AUTH};
use crate::resp::control::{Control, encode};
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

fn syntax(text: impl Into<Vec<u8>>) -> (Cause, Vec<u8>) {
    (Cause::Syntax, text.into())
}

/// Answers the session's newest request.
pub(super) fn answer(engine: &mut Engine, id: SessionId, local: Local, spec: &'static Spec, request: &Request<'_>) {
    let mut out = engine.spare.take();
    let answer = match local {
        Local::Ping => {
            match request.arg(1) {
                _ if request.argc() > 2 => {
                    write::error(&mut out, b"ERR wrong number of arguments for 'ping' command");
                }
                Some(text) => write::bulk(&mut out, text),
                None => write::simple(&mut out, b"PONG"),
            }
            Ok(())
        }
        Local::Echo => {
            write::bulk(&mut out, request.arg(1).unwrap_or_default());
            Ok(())
        }
        Local::Quit => {
            write::simple(&mut out, b"OK");
            Ok(())
        }
        Local::Reset => {
            reset(engine, id);
            write::simple(&mut out, b"RESET");
            Ok(())
        }
        Local::Readonly | Local::Readwrite => {
            write::simple(&mut out, b"OK");
            Ok(())
        }
        Local::Role => {
            encode(
                &Control::Array(vec![Control::bulk("master"), Control::Integer(0), Control::Array(vec![])]),
                &mut out,
            );
            Ok(())
        }
        Local::Time => {
            let now = engine.about.epoch + engine.now;
            let parts = [now / 1_000_000, now % 1_000_000];
            encode(&Control::Array(parts.iter().map(|n| Control::bulk(n.to_string())).collect()), &mut out);
            Ok(())
        }
        Local::Select => select(engine, id, request, &mut out),
        Local::Auth => auth(engine, id, request, &mut out),
        Local::Hello => hello(engine, id, request, &mut out),
        Local::Client => client(engine, id, spec, request, &mut out),
        Local::Command => about_commands(spec, request, &mut out),
        Local::Info => {
            write::bulk(&mut out, info(engine, id, request).as_bytes());
            Ok(())
        }
        Local::Help => {
            encode(&command::help(spec), &mut out);
            Ok(())
        }
    };
    match answer {
        Ok(()) => engine.answer_with(id, None, |reply| reply.extend_from_slice(&out)),
        Err((cause, text)) => engine.answer_with(id, Some(cause), |reply| write::error(reply, &text)),
    }
    engine.spare.put(out);
    if matches!(local, Local::Quit)
        && let Some(session) = engine.sessions.get_mut(id as usize)
    {
        session.closing = true;
    }
}

fn reset(engine: &mut Engine, id: SessionId) {
    let Some(session) = engine.sessions.get_mut(id as usize) else { return };
    (session.special, session.mode, session.resp3, session.base) = (None, 0, false, 0);
    engine.be_nobody(id);
}

fn select(engine: &mut Engine, id: SessionId, request: &Request<'_>, out: &mut Vec<u8>) -> Answer {
    let index = match command::integer(request.arg(1).unwrap_or_default()) {
        Some(index) if i32::try_from(index).is_err() => {
            return Err(syntax("ERR value is out of range, value must between -2147483648 and 2147483647"));
        }
        Some(index) => u16::try_from(index).ok(),
        None => return Err(syntax("ERR value is not an integer or out of range")),
    };
    let Some(session) = engine.sessions.get_mut(id as usize) else { return Ok(()) };
    let databases = engine.pools.get(usize::from(session.pool)).map_or(1, |pool| pool.config.databases);
    let Some(db) = index.filter(|&db| db < databases) else { return Err(syntax("ERR DB index is out of range")) };
    if db != session.db() {
        session.special().db = db;
        engine.settle(id);
    }
    write::simple(out, b"OK");
    Ok(())
}

fn auth(engine: &mut Engine, id: SessionId, request: &Request<'_>, out: &mut Vec<u8>) -> Answer {
    let (user, password) = match (request.argc(), request.arg(1), request.arg(2)) {
        (2, Some(password), _) => (None, password),
        (3, Some(user), Some(password)) => (Some(user), password),
        _ => return Err(syntax("ERR syntax error")),
    };
    engine.log_in(id, user, password)?;
    write::simple(out, b"OK");
    Ok(())
}

fn hello(engine: &mut Engine, id: SessionId, request: &Request<'_>, out: &mut Vec<u8>) -> Answer {
    let args: Vec<&[u8]> = request.args().skip(1).collect();
    let mut rest = args.as_slice();
    let Some(session) = engine.sessions.get(id as usize) else { return Ok(()) };
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
    let mut name = None;
    while let [option, tail @ ..] = rest {
        rest = match tail {
            [user, password, tail @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                engine.log_in(id, Some(user), password)?;
                tail
            }
            [wanted, tail @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                name = Some(valid_name(wanted)?);
                tail
            }
            _ => {
                let mut text = b"ERR Syntax error in HELLO option '".to_vec();
                text.extend_from_slice(shown(option));
                text.push(b'\'');
                return Err(syntax(text));
            }
        };
    }
    let Some(session) = engine.sessions.get_mut(id as usize) else { return Ok(()) };
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
    let (count, start) = (fields.len(), out.len());
    encode(&Control::Array(fields.into_iter().flat_map(|(k, v)| [Control::bulk(k), v]).collect()), out);
    if resp3 {
        let array = write_header(b'*', count * 2);
        out.splice(start..start + array.len(), write_header(b'%', count));
    }
    if changed {
        engine.settle(id);
    }
    Ok(())
}

fn write_header(kind: u8, count: usize) -> Vec<u8> {
    let mut header = vec![kind];
    header.extend_from_slice(format!("{count}\r\n").as_bytes());
    header
}

/// As much of an argument as Redis shows in an error: up to the first zero byte.
fn shown(argument: &[u8]) -> &[u8] {
    argument.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A name for CLIENT SETNAME; an empty one takes the name away.
fn valid_name(name: &[u8]) -> Answer<Vec<u8>> {
    if name.iter().any(|b| !(b'!'..=b'~').contains(b)) {
        return Err(syntax("ERR Client names cannot contain spaces, newlines or special characters."));
    }
    Ok(name.to_vec())
}

fn client(engine: &mut Engine, id: SessionId, spec: &'static Spec, request: &Request<'_>, out: &mut Vec<u8>) -> Answer {
    let Some(session) = engine.sessions.get_mut(id as usize) else { return Ok(()) };
    match spec.name {
        "client|setname" => {
            session.special().name = valid_name(request.arg(2).unwrap_or_default())?;
            write::simple(out, b"OK");
        }
        "client|getname" => match session.name() {
            b"" => out.extend_from_slice(b"$-1\r\n"),
            name => write::bulk(out, name),
        },
        "client|id" => write::integer(out, i64::try_from(session.id).unwrap_or(i64::MAX)),
        "client|setinfo" => {
            let option = request.arg(2).unwrap_or_default();
            if !(option.eq_ignore_ascii_case(b"lib-name") || option.eq_ignore_ascii_case(b"lib-ver")) {
                let mut text = b"ERR Unrecognized option '".to_vec();
                text.extend_from_slice(shown(option));
                text.push(b'\'');
                return Err(syntax(text));
            }
            write::simple(out, b"OK");
        }
        "client|no-evict" | "client|no-touch" => {
            let switch = request.arg(2).unwrap_or_default();
            if !(switch.eq_ignore_ascii_case(b"on") || switch.eq_ignore_ascii_case(b"off")) {
                return Err(syntax("ERR syntax error"));
            }
            write::simple(out, b"OK");
        }
        "client|info" => {
            let name = String::from_utf8_lossy(session.name()).into_owned();
            let (session, db, resp) = (session.id, session.db(), if session.resp3 { 3 } else { 2 });
            let user = engine.user_name(id);
            write::bulk(out, format!("id={session} name={name} db={db} resp={resp} user={user}\n").as_bytes());
        }
        // The table refuses all others.
        _ => return Err((Cause::Unsupported, Why::Admin.text().into())),
    }
    Ok(())
}

fn about_commands(spec: &'static Spec, request: &Request<'_>, out: &mut Vec<u8>) -> Answer {
    match spec.name {
        "command" => encode(&Control::Array(command::all().map(command::describe).collect()), out),
        "command|count" => write::integer(out, command::all().count() as i64),
        "command|list" => {
            if request.argc() > 2 {
                return Err((Cause::Unsupported, NO_FILTER.into()));
            }
            encode(&Control::Array(command::all().map(|s| Control::bulk(s.name)).collect()), out);
        }
        // Clients that ask for documentation go on without it.
        "command|docs" => out.extend_from_slice(b"*0\r\n"),
        "command|info" => {
            let told = if request.argc() == 2 {
                command::all().map(command::describe).collect()
            } else {
                let named = request.args().skip(2);
                named.map(|name| command::lookup(name).map_or(Control::Null, command::describe)).collect()
            };
            encode(&Control::Array(told), out);
        }
        "command|getkeys" => return keys_of(request, out),
        _ => return Err((Cause::Unsupported, Why::OneServer.text().into())),
    }
    Ok(())
}

/// COMMAND LIST with a filter: no client asks for it.
const NO_FILTER: &str = "ERR hotring lists all commands only: COMMAND LIST FILTERBY is not carried";

/// COMMAND GETKEYS: which keys hotring goes by.
fn keys_of(request: &Request<'_>, out: &mut Vec<u8>) -> Answer {
    let args: Vec<&[u8]> = request.args().skip(2).collect();
    let mut wire = Vec::new();
    write::request(&mut wire, &args);
    let Some(asked) = Request::parse(&wire) else { return Err(syntax("ERR Invalid command specified")) };
    let (spec, well_formed) = match command::identify(&asked) {
        Ok(spec) => (spec, true),
        Err(command::Fault::Arity(spec)) => (spec, false),
        Err(command::Fault::Unknown) => return Err(syntax("ERR Invalid command specified")),
    };
    if matches!(spec.keys, Keys::None) {
        return Err(syntax("ERR The command has no key arguments"));
    }
    if !well_formed {
        return Err(syntax("ERR Invalid number of arguments specified for command"));
    }
    let mut keys = Vec::new();
    let found = command::each_key(spec, &asked, &mut |_, key| keys.push(key));
    let may_have_none = spec.flags & flag::NO_MANDATORY_KEYS != 0;
    if (found.is_err() || keys.is_empty()) && !may_have_none {
        return Err(syntax("ERR Invalid arguments specified for command"));
    }
    write::array(out, keys.len());
    for key in keys {
        write::bulk(out, key);
    }
    Ok(())
}

/// INFO: the fields that clients look at, and hotring's own.
fn info(engine: &Engine, id: SessionId, request: &Request<'_>) -> String {
    let wanted: Vec<String> = request.args().skip(1).map(|s| String::from_utf8_lossy(s).to_lowercase()).collect();
    let all = wanted.is_empty() || wanted.iter().any(|s| matches!(s.as_str(), "all" | "default" | "everything"));
    let about = engine.about;
    let pool = engine.sessions.get(id as usize).and_then(|s| engine.pools.get(usize::from(s.pool)));
    let (name, shards, connections) =
        pool.map_or(("", 0, 0), |p| (p.config.name.as_str(), p.config.shards.len(), p.config.lanes));
    let sections = [
        (
            "Server",
            format!(
                "redis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\nhotring_version:{}\r\nos:{}\r\narch_bits:{}\r\n\
                 process_id:{}\r\ntcp_port:{}\r\nuptime_in_seconds:{}\r\n",
                env!("CARGO_PKG_VERSION"),
                std::env::consts::OS,
                usize::BITS,
                about.process,
                about.port,
                engine.now / 1_000_000,
            ),
        ),
        ("Clients", format!("connected_clients:{}\r\n", engine.sessions.len())),
        ("Persistence", "loading:0\r\nasync_loading:0\r\n".into()),
        ("Stats", format!("total_commands_processed:{}\r\n", engine.requests)),
        ("Replication", "role:master\r\nconnected_slaves:0\r\n".into()),
        ("Cluster", "cluster_enabled:0\r\n".into()),
        (
            "Hotring",
            format!(
                "hotring_pool:{name}\r\nhotring_shards:{shards}\r\nhotring_connections_per_shard:{connections}\r\n\
                 hotring_in_flight:{}\r\n",
                engine.in_flight
            ),
        ),
    ];
    let mut text = String::new();
    for (section, body) in sections {
        if all || wanted.iter().any(|w| w.eq_ignore_ascii_case(section)) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            text.push_str("# ");
            text.push_str(section);
            text.push_str("\r\n");
            text.push_str(&body);
        }
    }
    text
}

/// The error for a session that has not authenticated.
pub(super) fn not_authenticated(out: &mut Vec<u8>) {
    write::error(out, NO_AUTH.as_bytes());
}
