//! The words with which requests are turned down: those of Redis where Redis has some.
//!
//! Texts begin with their code (`ERR`, mostly), are one line, and have neither the `-` before nor the line break after it.

use super::{Spec, Why, lookup};
use crate::resp::Request;

/// How many bytes of a name, and of the arguments in all, an error repeats.
const REPEATED: usize = 128;

/// Appends what Redis 7 says of a command, or of a subcommand, that it does not know.
pub fn unknown(request: &Request<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    let mut args = request.args().skip(1);
    match lookup(request.name()) {
        Some(container) if !container.subcommands.is_empty() => {
            out.extend(b"ERR unknown subcommand '");
            out.extend(shown(args.next().unwrap_or_default(), REPEATED));
            out.extend(b"'. Try ");
            out.extend(container.name.as_bytes().iter().map(u8::to_ascii_uppercase));
            out.extend(b" HELP.");
        }
        _ => {
            out.extend(b"ERR unknown command '");
            out.extend(shown(request.name(), REPEATED));
            out.extend(b"', with args beginning with: ");
            let first = out.len();
            // The quotes and spaces count too, but only from one argument to the next.
            while let Some(left) = REPEATED.checked_sub(out.len() - first).filter(|&left| left > 0) {
                let Some(arg) = args.next() else { break };
                out.push(b'\'');
                out.extend(shown(arg, left));
                out.extend(b"' ");
            }
        }
    }
    for byte in &mut out[start..] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

/// Appends what Redis 7 says of a wrong number of arguments.
pub fn wrong_arity(spec: &Spec, out: &mut Vec<u8>) {
    // A malformed EXEC ends the transaction all the same, and the error says so.
    let code: &[u8] = if spec.name == "exec" { b"EXECABORT Transaction discarded because of:" } else { b"ERR" };
    out.extend(code);
    out.extend(b" wrong number of arguments for '");
    out.extend(spec.name.as_bytes());
    out.extend(b"' command");
}

/// As much of an argument as Redis shows: up to the first zero byte, and no more than `most` bytes.
fn shown(argument: &[u8], most: usize) -> &[u8] {
    let end = argument.iter().position(|&byte| byte == 0).unwrap_or(argument.len());
    &argument[..end.min(most)]
}

impl Why {
    /// Every reason.
    pub const ALL: [Why; 6] = [Why::Admin, Why::OneServer, Why::Cluster, Why::Database, Why::Pattern, Why::Subcommand];

    /// The error the app gets: why, and what to do instead.
    pub const fn text(self) -> &'static str {
        match self {
            Why::Admin => {
                "ERR hotring does not carry administration: it would reach one server of many. Connect to that server \
                 directly"
            }
            Why::OneServer => {
                "ERR hotring stands for many servers and this is the state of one. Connect to that server directly"
            }
            // Redis' own words, which clients know.
            Why::Cluster => "ERR This instance has cluster support disabled",
            Why::Database => "ERR DB index is out of range",
            Why::Pattern => {
                "ERR hotring does not carry SORT with a BY or GET pattern: the keys it stands for may be on other \
                 shards. Use BY nosort and GET #, or sort in the application"
            }
            Why::Subcommand => "ERR unknown subcommand. Try HELP of its command",
        }
    }

    /// The reason in few words, for tables.
    pub const fn in_short(self) -> &'static str {
        match self {
            Why::Admin => "administration",
            Why::OneServer => "one server's own state",
            Why::Cluster => "Redis Cluster's own protocol",
            Why::Database => "one database only",
            Why::Pattern => "patterns name keys of other shards",
            Why::Subcommand => "unknown subcommand",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::wire;
    use super::*;

    fn unknown_text(args: &[&[u8]]) -> Vec<u8> {
        let wire = wire(args);
        let mut text = Vec::new();
        unknown(&Request::parse(&wire).expect("a request"), &mut text);
        text
    }

    #[test]
    fn unknown_commands_are_told_as_redis_tells_them() {
        assert_eq!(
            unknown_text(&[b"foo", b"a", b"b"]),
            b"ERR unknown command 'foo', with args beginning with: 'a' 'b' "
        );
        assert_eq!(unknown_text(&[b""]), b"ERR unknown command '', with args beginning with: ");
        assert_eq!(unknown_text(&[b"f\r\no\0o"]), b"ERR unknown command 'f  o', with args beginning with: ");
        let long = [b'x'; 300];
        let text = unknown_text(&[&long, &long, b"b"]);
        let x = "x".repeat(128);
        assert_eq!(text, format!("ERR unknown command '{x}', with args beginning with: '{x}' ").into_bytes());
        assert_eq!(unknown_text(&[b"object", b"Foo"]), b"ERR unknown subcommand 'Foo'. Try OBJECT HELP.");
    }

    #[test]
    fn every_refusal_is_one_line_with_a_code() {
        for why in Why::ALL {
            assert!(why.text().starts_with("ERR "), "{why:?}");
            assert!(!why.text().contains(['\r', '\n']) && !why.text().contains("  "), "{why:?}");
            assert!(!why.in_short().is_empty() && why.in_short().is_ascii());
        }
    }
}
