//! The JSON Schema of the configuration says what the readers do: each key is tried with what the schema allows and with what
//! it does not, and an independent validator finds the examples fitting and the bad files not.

#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "schema/example.rs"]
mod example;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use hotring::config::{self, KEYS, Key, Kind, Place};
use serde_json::{Value, json};

const PAGE: &str = "docs/proxy.schema.json";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file with `value` under the key, and what the key is called in problems.
fn file(key: &Key, value: &Value) -> (String, String) {
    let mut file = json!({"pools": {"p": {"listen": "127.0.0.1:1", "servers": ["127.0.0.1:2:1 s1"]}}});
    let pool = "/pools/p";
    // What a key is for must be there.
    match key.name {
        "topology_interval" | "redirect_wait" => file["pools"]["p"]["topology"] = json!("cluster"),
        "sentinel_tls" => {
            file["pools"]["p"]["topology"] = json!("sentinel");
            file["pools"]["p"]["masters"] = json!("one");
            file["pools"]["p"]["servers"] = json!(["127.0.0.1:2"]);
        }
        "admin_token_for" => file["admin_token"] = json!("a-token-of-many-characters"),
        "maxmemory" | "eviction" => file["pools"]["p"]["servers"] = json!("embedded:1"),
        "read_from" => file["pools"]["p"]["zone"] = json!("a"),
        _ => {}
    }
    let (path, at, beside) = match key.place {
        Place::Top => ("", "", json!({})),
        Place::Log => ("", "log", json!({})),
        Place::Drain => ("", "drain", json!({})),
        Place::Tracing => ("", "tracing", json!({})),
        Place::AccessLog => ("", "access_log", json!({})),
        Place::Command => ("/commands", "a.b", json!({"keys": "1,1,1"})),
        Place::Pool => ("/pools", "p", file["pools"]["p"].clone()),
        Place::Server => (pool, "servers", json!({"address": "127.0.0.1:2"})),
        Place::Auth => (pool, "server_auth", json!({"password": "x"})),
        Place::Tls => (pool, "tls", json!({"cert": "none.crt", "key": "none.key"})),
        Place::Certificate => (pool, "tls", json!({"cert": "none.crt", "key": "none.key"})),
        Place::ServerTls => (pool, "server_tls", json!({"cert": "none.crt", "key": "none.key"})),
        Place::User => (pool, "users", json!({"nopass": true, "rules": "+@all"})),
        Place::Limit => (pool, "rate_limits", json!({"requests": "1/s"})),
        Place::HotKeys => (pool, "hot_keys", json!({})),
        Place::HotPrefix => (pool, "hot_keys", json!({"prefix": "a", "reads": "near"})),
        Place::Misses => (pool, "misses", json!({})),
        Place::MissPrefix => (pool, "misses", json!({"prefix": "a"})),
        Place::Mirror => {
            file["pools"]["q"] = json!({"listen": "127.0.0.1:3", "servers": "embedded:1"});
            (pool, "mirror", json!({"pool": "q", "commands": "all"}))
        }
    };
    let mut map = beside;
    if key.place == Place::Top && key.name == "pools" {
        file = json!({});
    }
    if key.place == Place::User && key.name.starts_with("password") {
        map.as_object_mut().unwrap().remove("nopass");
    }
    if key.place == Place::Auth && key.name.starts_with("password") {
        map.as_object_mut().unwrap().remove("password");
    }
    map[key.name] = value.clone();
    let named = |place: &str| format!("{place}.{}", key.name);
    if key.place == Place::Top {
        file[key.name] = value.clone();
        return (file.to_string(), key.name.to_owned());
    }
    if path == "/commands" {
        file["commands"] = json!({});
    }
    let (map, place) = match key.place {
        Place::Server | Place::Limit => (json!([map]), format!("pools.p.{at}[0]")),
        Place::Certificate => (
            json!({"cert": "none.crt", "key": "none.key", "certificates": [map]}),
            "pools.p.tls.certificates[0]".to_owned(),
        ),
        Place::HotPrefix | Place::MissPrefix => (json!({"prefixes": [map]}), format!("pools.p.{at}.prefixes[0]")),
        Place::User => (json!({"u": map}), "pools.p.users.u".to_owned()),
        Place::Log | Place::Drain | Place::Tracing | Place::AccessLog => (map, at.to_owned()),
        _ => (map, format!("{}.{at}", path[1..].replace('/', "."))),
    };
    file.pointer_mut(path).unwrap()[at] = map;
    (file.to_string(), named(&place))
}

/// What the reader of a key says of a value: nothing, or that it expected something else.
fn unfit(key: &Key, value: &Value) -> Option<String> {
    let (text, named) = file(key, value);
    let problems = config::parse(&text, Path::new("proxy.yaml")).err()?;
    let at_it = |problem: &&config::Problem| {
        problem.key == named || problem.key.strip_prefix(&named).is_some_and(|rest| rest.starts_with(['[', '.']))
    };
    problems.iter().find(at_it).map(|problem| format!("{problem}\n{text}"))
}

/// What a key's schema allows that is worth a trial, and what it does not.
fn trials(shape: &Value) -> (Vec<Value>, Vec<Value>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    good.extend(shape.get("default").cloned());
    good.extend(shape.get("const").cloned());
    for word in shape.get("enum").and_then(Value::as_array).into_iter().flatten() {
        good.push(word.clone());
    }
    let of = shape.get("type").and_then(Value::as_str);
    match of {
        Some("boolean") => good.extend([json!(true), json!(false)]),
        Some("integer" | "number") => {
            for (bound, beyond) in [("minimum", -1.0), ("maximum", 1.0)] {
                let bound = &shape[bound];
                let Some(number) = bound.as_f64() else { continue };
                good.push(bound.clone());
                bad.push(if of == Some("integer") { json!((number + beyond) as i64) } else { json!(number + beyond) });
            }
        }
        _ => {}
    }
    for one in shape.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        let (more, _) = trials(one);
        good.extend(more);
    }
    if let Some(definition) = shape["allOf"][0]["$ref"].as_str().or(shape["$ref"].as_str()) {
        match definition.rsplit('/').next().unwrap() {
            "address" | "addresses" => {
                good.extend([json!("127.0.0.1:7000"), json!("[::1]:7000"), json!("/run/a.sock")])
            }
            _ => {}
        }
    }
    // No text of these characters is anything, but where all texts are.
    let whole = shape.to_string();
    let any = whole.contains("definitions/text") || whole.contains(r#""type":"string"}"#);
    if !any {
        bad.push(json!("no such thing!"));
    }
    if !matches!(of, Some("array")) && !whole.contains(r#""array""#) && !whole.contains("definitions/addresses") {
        bad.push(json!([["a"]]));
    }
    (good, bad)
}

/// Where the maps of a place are described.
fn properties(schema: &Value, place: Place) -> &Value {
    let pool = &schema["properties"]["pools"]["additionalProperties"]["properties"];
    let map = match place {
        Place::Top => return &schema["properties"],
        Place::Log => &schema["properties"]["log"],
        Place::Drain => &schema["properties"]["drain"],
        Place::Tracing => &schema["properties"]["tracing"],
        Place::AccessLog => &schema["properties"]["access_log"],
        Place::Command => &schema["properties"]["commands"]["additionalProperties"],
        Place::Pool => return pool,
        Place::Server => &pool["servers"]["anyOf"][1]["items"]["anyOf"][1],
        Place::Auth => &schema["definitions"]["auth"],
        Place::Tls => &pool["tls"],
        Place::Certificate => &pool["tls"]["properties"]["certificates"]["items"],
        Place::ServerTls => &pool["server_tls"]["anyOf"][1],
        Place::User => &pool["users"]["additionalProperties"],
        Place::Limit => &pool["rate_limits"]["items"],
        Place::HotKeys => &pool["hot_keys"],
        Place::HotPrefix => &pool["hot_keys"]["properties"]["prefixes"]["items"],
        Place::Misses => &pool["misses"],
        Place::MissPrefix => &pool["misses"]["properties"]["prefixes"]["items"],
        Place::Mirror => &pool["mirror"],
    };
    &map["properties"]
}

#[test]
fn readers_take_what_the_schema_allows_and_nothing_else() {
    let schema = config::schema();
    let (mut took, mut refused, mut wrong) = (0, 0, Vec::new());
    for key in KEYS {
        let shape = &properties(&schema, key.place)[key.name];
        assert!(shape.is_object(), "{} is not in the schema", key.name);
        assert_eq!(shape["description"], key.meaning, "{}", key.name);
        let (good, bad) = trials(shape);
        for value in good {
            took += 1;
            if let Some(said) = unfit(key, &value) {
                wrong.push(format!("the schema allows, and the reader does not take: {said}"));
            }
        }
        for value in bad {
            refused += 1;
            if unfit(key, &value).is_none() {
                wrong.push(format!("the schema does not allow, and the reader takes: {} {value}", key.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(took >= 200 && refused >= 100, "{took} {refused}");
}

/// What the validator says of each document.
fn validated(documents: &[Value]) -> Vec<String> {
    let python = root().join("target/test-clients/deploy/bin/python");
    assert!(python.exists(), "{} is missing: run tests/setup", python.display());
    let mut child = Command::new(python)
        .args([root().join("tests/schema/validate.py"), root().join(PAGE)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
    let writer = std::thread::spawn(move || {
        for line in lines {
            writeln!(stdin, "{line}").unwrap();
        }
    });
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said: Vec<String> = String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect();
    assert!(done.status.success() && said.len() == documents.len(), "{said:?}");
    said
}

fn document(yaml: &str) -> Option<Value> {
    serde_yaml::from_str(yaml).ok()
}

/// The example, with its examples uncommented, and each whole one of the manual.
#[test]
fn an_independent_validator_finds_the_examples_fitting() {
    let example = fs::read_to_string(root().join("proxy.yaml")).unwrap();
    let mut texts = vec![example.clone(), example::uncommented(&example)];
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for page in pages.chain([root().join("README.md")]).filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let text = fs::read_to_string(page).unwrap();
        let blocks = text.split("\n```yaml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned());
        let whole =
            |text: &String| config::parse(text, Path::new("a")).is_ok_and(|read| read.source.kind == Kind::Proxy);
        texts.extend(blocks.filter(whole));
    }
    assert!(texts.len() >= 10, "{}", texts.len());
    let documents: Vec<Value> = texts.iter().map(|text| document(text).unwrap()).collect();
    for (said, text) in validated(&documents).iter().zip(&texts) {
        assert_eq!(said, "fits", "{text}");
    }
}

/// What is wrong by itself is found by an editor, too; what does not fit together is `hotring check`'s to tell.
#[test]
fn an_independent_validator_finds_what_is_wrong() {
    let mut names = Vec::new();
    let mut documents = Vec::new();
    for name in
        ["alias", "duration", "hot_keys", "limits", "log", "missing", "numbers", "sizes", "unknown_keys", "users"]
    {
        let text = fs::read_to_string(root().join(format!("tests/config/bad_{name}.yaml"))).unwrap();
        names.push(name);
        documents.push(document(&text).unwrap_or_else(|| panic!("{name}")));
    }
    for (said, name) in validated(&documents).iter().zip(names) {
        assert_ne!(said, "fits", "{name}");
    }
}

/// `HOTRING_WRITE_DOCS=1` writes it.
#[test]
fn the_file_for_editors_is_what_the_program_prints() {
    let done = Command::new(env!("CARGO_BIN_EXE_hotring")).arg("schema").output().unwrap();
    assert!(done.status.success());
    let printed = String::from_utf8(done.stdout).unwrap();
    let page = root().join(PAGE);
    if std::env::var_os("HOTRING_WRITE_DOCS").is_some() {
        // The other tests read meanwhile: they must never see a half of it.
        let new = page.with_extension("new");
        fs::write(&new, &printed).unwrap();
        fs::rename(new, &page).unwrap();
    }
    let kept = fs::read_to_string(page).unwrap_or_default();
    assert!(kept == printed, "{PAGE} is not what the code says; HOTRING_WRITE_DOCS=1 cargo test --test schema");
}
