//! Users as a whole.

use super::*;
use crate::command::identify;

fn account(rules: &str) -> Account {
    let (name, rules) = ("app".to_owned(), rules.to_owned());
    Account {
        name,
        passwords: vec![Secret::new("secret")],
        nopass: false,
        rules,
        read_only: false,
        connections: None,
        prefix: None,
    }
}

fn wire(line: &str) -> Vec<u8> {
    let args: Vec<&str> = line.split(' ').collect();
    let mut wire = format!("*{}\r\n", args.len());
    for arg in args {
        wire += &format!("${}\r\n{arg}\r\n", arg.len());
    }
    wire.into_bytes()
}

/// The error for a line, or nothing.
fn said(user: &User, line: &str) -> String {
    let wire = wire(line);
    let request = Request::parse(&wire).expect("a request");
    let spec = identify(&request).unwrap_or_else(|fault| panic!("{line}: {fault:?}"));
    let mut out = Vec::new();
    if let Err(denied) = user.check(spec, &request) {
        denied.write(spec, &mut out);
    }
    String::from_utf8(out).expect("text")
}

fn allows(rules: &str, line: &str) -> bool {
    said(&User::new(&account(rules)).expect("rules"), line).is_empty()
}

#[test]
fn errors_have_redis_words() {
    let user = User::new(&account("+get +publish ~a &c")).expect("rules");
    for (line, text) in [
        ("GET a", ""),
        ("get b", "NOPERM this user has no permissions to access one of the keys used as arguments"),
        ("SET a 1", "NOPERM this user has no permissions to run the 'set' command"),
        ("Config Get x", "NOPERM this user has no permissions to run the 'config|get' command"),
        ("PUBLISH d m", "NOPERM this user has no permissions to access one of the channels used as arguments"),
        (
            "EXEC",
            "EXECABORT Transaction discarded because of: NOPERM this user has no permissions to run the 'exec' command",
        ),
        ("AUTH x", ""),
        ("HELLO 2", ""),
    ] {
        assert_eq!(said(&user, line), text, "{line}");
    }
}

#[test]
fn later_rules_win() {
    for (rules, line, allowed) in [
        ("+@all -@dangerous ~*", "GET a", true),
        ("+@all -@dangerous ~*", "KEYS a", false),
        ("-@dangerous +@all ~*", "KEYS a", true),
        ("+@all -config +config|get ~*", "CONFIG GET a", true),
        ("+@all -config +config|get ~*", "CONFIG SET a b", false),
        ("+config -config|set", "CONFIG SET a b", false),
        ("+select|0", "SELECT 0", true),
        ("+select|0", "SELECT 1", false),
        ("+select|0 -select", "SELECT 0", false),
        ("+select|0 -@all", "SELECT 0", false),
        ("+@all %R~a %W~a", "INCR a", true),
        ("+@all %R~a %W~a*", "INCR a", false),
        ("+@all %R~a", "COPY a b", false),
        ("+@all %R~a %W~b", "COPY a b", true),
        ("+@all %R~a %W~b", "COPY b a", false),
        ("+@all %W~a", "SET a 1", true),
        ("+@all %W~a", "SET a 1 GET", false),
        ("+@all %R~a", "BITFIELD a GET u8 0 OVERFLOW WRAP", true),
        ("+@all %R~a", "BITFIELD a GET u8 0 SET u8 0 1", false),
        ("+@all %R~a", "BITFIELD a GET u8", false),
        ("+@all ~a", "EVAL x 2 a b", false),
        ("+@all ~a", "EVAL x 1 a b", true),
        ("+@all &a*", "SUBSCRIBE a ab", true),
        ("+@all &a*", "SUBSCRIBE a b", false),
        ("+@all &a*", "PSUBSCRIBE a*", true),
        ("+@all &a*", "PSUBSCRIBE ab*", false),
        ("+@all &a*", "PUNSUBSCRIBE b*", true),
        ("+@all &a*", "SPUBLISH ab m", true),
        ("+@all ~b", "SPUBLISH b m", false),
    ] {
        assert_eq!(allows(rules, line), allowed, "{rules}: {line}");
    }
}

#[test]
fn read_only_wins_over_rules() {
    let user = User::new(&Account { read_only: true, ..account("allcommands ~* &* +set +set|x") }).expect("rules");
    for line in ["GET a", "EVAL_RO x 0", "PING", "PUBLISH c m", "AUTH x"] {
        assert_eq!(said(&user, line), "", "{line}");
    }
    for line in
        ["SET a 1", "SET x 1", "EVAL x 0", "FCALL x 0", "DEL a", "FLUSHALL", "FUNCTION FLUSH", "SORT a", "GETEX a"]
    {
        assert!(said(&user, line).contains("to run the"), "{line}");
    }
}

#[test]
fn passwords_open_the_door() {
    let hash = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let two = Account { passwords: vec![Secret::new("new"), Secret::new(hash)], ..account("+get") };
    let off = Account { name: "off".to_owned(), ..account("off") };
    let free = Account { name: "free".to_owned(), nopass: true, passwords: Vec::new(), ..account("+get") };
    let users = Users::new(&[two, off, free], Some(&Secret::new("#door"))).expect("users");
    let name =
        |user: Option<&[u8]>, password: &[u8]| users.authenticate(user, password).map(|user| user.name().to_owned());
    assert_eq!(name(Some(b"app"), b"new").as_deref(), Some("app"));
    assert_eq!(name(Some(b"app"), b"abc").as_deref(), Some("app"));
    assert_eq!(name(Some(b"free"), b"anything").as_deref(), Some("free"));
    // The pool's own password is never a hash.
    assert_eq!(name(None, b"#door").as_deref(), Some(DEFAULT));
    assert_eq!(name(Some(b"default"), b"#door").as_deref(), Some(DEFAULT));
    for (user, password) in [
        (Some(&b"app"[..]), &b""[..]),
        (Some(b"app"), b"old"),
        (Some(b"APP"), b"new"),
        (Some(b"app"), hash.as_bytes()),
        (Some(b"off"), b"secret"),
        (Some(b"nobody"), b"new"),
        (Some(b""), b"#door"),
        (None, b"new"),
        (None, b""),
    ] {
        assert_eq!(name(user, password), None, "{user:?} {password:?}");
    }
    assert!(users.opening().is_none() && !users.default_has_no_password());
}

#[test]
fn default_is_who_has_not_said_otherwise() {
    let users = Users::new(&[], None).expect("users");
    assert!(users.opening().is_some_and(|user| user.is_unlimited()));
    assert!(users.default_has_no_password());
    let default = |rules: &str| Account { name: DEFAULT.to_owned(), nopass: true, passwords: vec![], ..account(rules) };
    let users = Users::new(&[default("+get ~a")], None).expect("users");
    let user = users.opening().expect("a user");
    assert_eq!(said(&user, "GET a"), "");
    assert_ne!(said(&user, "GET b"), "");
    let users = Users::new(&[default("off")], None).expect("users");
    assert!(users.opening().is_none() && users.default_has_no_password());
}

#[test]
fn what_is_wrong_is_told_at_once_and_shows_no_secret() {
    let mut bad = account("+nonsense >hush ~*");
    bad.passwords.push(Secret::new("sha256:hush"));
    let wrong = Users::new(&[bad.clone(), bad.clone()], None).expect_err("wrong");
    assert_eq!(wrong.len(), 6);
    assert!(!format!("{wrong:?}{bad:?}").replace(">hush", "").contains("hush"), "{wrong:?}");
    assert!(!format!("{:?}", User::new(&account("+get")).expect("rules")).contains("secret"));
}

#[test]
fn what_is_not_in_the_table_is_judged_by_what_it_is_said_to_do() {
    let described = |name: &str, writes| command::Described { name: name.into(), keys: Some((1, 1, 1)), writes };
    command::teach(&[described("m.read", false), described("m.write", true)]);
    for (rules, read, write) in [
        ("+@all ~* &*", Ok(()), Ok(())),
        ("+@read ~* &*", Ok(()), Err(Denied::Command)),
        ("+@all -@read ~* &*", Err(Denied::Command), Ok(())),
        // All that the table has, one by one, is not all.
        ("+@all -@write -@read +get +set ~* &*", Err(Denied::Command), Err(Denied::Command)),
        ("+@all ~b &*", Err(Denied::Key), Err(Denied::Key)),
    ] {
        let user = User::new(&account(rules)).expect("rules");
        for (line, expected) in [("m.read a", read), ("m.write a", write)] {
            let wire = wire(line);
            let request = Request::parse(&wire).expect("a request");
            let spec = identify(&request).expect("taught");
            assert_eq!((spec.number(), user.check(spec, &request)), (None, expected), "{rules}: {line}");
        }
    }
    command::teach(&[]);
}

#[test]
fn no_request_however_short_is_a_panic() {
    let user = User::new(&account("+@all -get +get|x %R~a* &b*")).expect("rules");
    for spec in command::all().flat_map(|spec| [spec].into_iter().chain(spec.subcommands)) {
        for length in 1..8 {
            let mut args: Vec<&str> = spec.name.split('|').collect();
            args.resize(length, "GET");
            let wire = wire(&args.join(" "));
            let _ = user.check(spec, &Request::parse(&wire).expect("a request"));
        }
    }
}
