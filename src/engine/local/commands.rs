//! COMMAND: the table told to clients.
//!
//! DOCS says what hotring does with a command, in place of what it does: that is in Redis' own documentation.

use super::{Answer, Asked, SYNTAX, syntax};
use crate::command::{self, Access, Keys, Spec, flag};
use crate::glob;
use crate::resp::control::Control;
use crate::resp::{Request, write};

pub(super) fn command(asked: &mut Asked<'_>) -> Answer {
    let named: Vec<&[u8]> = asked.request.args().skip(2).collect();
    match asked.spec.name {
        "command" => asked.reply(&Control::Array(command::all().map(command::describe).collect())),
        "command|count" => write::integer(&mut asked.out, command::all().count() as i64),
        "command|list" => list(&named, asked)?,
        "command|docs" => {
            let told = if named.is_empty() {
                command::all().map(command::document).collect()
            } else {
                named.iter().filter_map(|name| find(name)).map(command::document).collect()
            };
            asked.reply(&Control::Map(told));
        }
        "command|info" => {
            let told = if named.is_empty() {
                command::all().map(command::describe).collect()
            } else {
                named.iter().map(|name| find(name).map_or(Control::Null, command::describe)).collect()
            };
            asked.reply(&Control::Array(told));
        }
        _ => keys(&named, asked)?,
    }
    Ok(())
}

/// A command by its name, or a subcommand by its whole one: `config|get`.
fn find(name: &[u8]) -> Option<&'static Spec> {
    let Some(bar) = name.iter().position(|&b| b == b'|') else { return command::lookup(name) };
    let container = command::lookup(name.get(..bar)?)?;
    container.subcommands.iter().find(|sub| sub.name.as_bytes().eq_ignore_ascii_case(name))
}

fn list(options: &[&[u8]], asked: &mut Asked<'_>) -> Answer {
    let all = || command::all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    let found: Vec<&Spec> = match options {
        [] => all().collect(),
        [by, what, wanted] if by.eq_ignore_ascii_case(b"FILTERBY") => match what.to_ascii_lowercase().as_slice() {
            b"module" => Vec::new(),
            b"aclcat" => {
                let bit = std::str::from_utf8(wanted).ok().and_then(command::category).unwrap_or(0);
                all().filter(|spec| spec.categories() & bit != 0).collect()
            }
            b"pattern" => all().filter(|spec| glob::matches(wanted, spec.name.as_bytes())).collect(),
            _ => return Err(syntax(SYNTAX)),
        },
        _ => return Err(syntax(SYNTAX)),
    };
    write::array(&mut asked.out, found.len());
    for spec in found {
        write::bulk(&mut asked.out, spec.name.as_bytes());
    }
    Ok(())
}

/// COMMAND GETKEYS and GETKEYSANDFLAGS: which keys hotring goes by. What is done to a key is known by the command only:
/// that it is read, or that it is read and changed.
fn keys(args: &[&[u8]], asked: &mut Asked<'_>) -> Answer {
    let mut wire = Vec::new();
    write::request(&mut wire, args);
    let Some(about) = Request::parse(&wire) else { return Err(syntax("ERR Invalid command specified")) };
    let (spec, well_formed) = match command::identify(&about) {
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
    let found = command::each_key(spec, &about, &mut |_, key| keys.push(key));
    let may_have_none = spec.flags & flag::NO_MANDATORY_KEYS != 0;
    if (found.is_err() || keys.is_empty()) && !may_have_none {
        return Err(syntax("ERR Invalid arguments specified for command"));
    }
    let flags: Option<&[&str]> = match (asked.spec.name, spec.access) {
        ("command|getkeys", _) => None,
        (_, Access::Read) => Some(&["RO", "access"]),
        _ => Some(&["RW", "access", "update"]),
    };
    write::array(&mut asked.out, keys.len());
    for key in keys {
        let Some(flags) = flags else {
            write::bulk(&mut asked.out, key);
            continue;
        };
        write::array(&mut asked.out, 2);
        write::bulk(&mut asked.out, key);
        write::set(&mut asked.out, flags.len(), asked.resp3);
        flags.iter().for_each(|flag| write::simple(&mut asked.out, flag.as_bytes()));
    }
    Ok(())
}
