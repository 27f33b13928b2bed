//! The JSON Schema of a `proxy.yaml`, by which editors complete and check it: `hotring schema` prints it.
//!
//! Promises: it has exactly the keys of [`KEYS`], each with its meaning and its default; what the readers take it allows, and
//! what it allows by itself they take (tests/schema.rs tries each key). Does not say what keys mean for each other, nor that
//! a span is within its range, which `hotring check` does; does not describe a `nutcracker.yml`.

use super::keys::{KEYS, Key, Place};
use super::servers::MAX_WEIGHT;
use serde_json::{Map, Value, json};

/// Which language it is written in: what editors know.
const DIALECT: &str = "http://json-schema.org/draft-07/schema#";

/// The schema of a whole `proxy.yaml`.
#[must_use]
pub fn schema() -> Value {
    let mut whole = map_of(Place::Top);
    whole["$schema"] = json!(DIALECT);
    whole["title"] = json!("hotring's proxy.yaml");
    whole["definitions"] = json!({
        "time": {
            "description": "a number of milliseconds, or `120us`, `250ms`, `5s`, `2m`, `1h`",
            "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+(us|µs|ms|s|m|h)?$"}],
        },
        "size": {
            "description": "a number of bytes, or `64kb`, `16mb`, `1gb`",
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": "^[0-9]+([bB]|[kKmMgG]([iI]?[bB])?)?$"},
            ],
        },
        "text": {"type": ["string", "number", "boolean"]},
        "address": {"type": "string", "pattern": "^(unix:)?/[^\\s]*[^\\s/]( [0-7]{1,4})?$|^[^\\s/]+:[0-9]{1,5}$"},
        "addresses": one_or_more(&json!({"$ref": "#/definitions/address"})),
        "auth": map_of(Place::Auth),
        "client_auth": without_user(map_of(Place::Auth)),
    });
    whole
}

/// A map with the keys of a place.
fn map_of(place: Place) -> Value {
    let keys = KEYS.iter().filter(|key| key.place == place);
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in keys {
        if key.default == "required" {
            required.push(key.name);
        }
        properties.insert(key.name.to_owned(), described(key));
    }
    let mut map = json!({"type": "object", "additionalProperties": false, "properties": properties});
    if !required.is_empty() {
        map["required"] = json!(required);
    }
    map
}

/// What a key may have, with what people are told of it.
fn described(key: &Key) -> Value {
    // Beside `$ref` this dialect takes no notice of anything.
    let mut about = match shape(key.place, key.name) {
        shape if shape.get("$ref").is_some() => json!({"allOf": [shape]}),
        shape => shape,
    };
    about["description"] = json!(key.meaning);
    if !matches!(key.default, "" | "required") {
        about["default"] = default(key.default);
    }
    about
}

/// A default as it would be read from YAML.
fn default(text: &str) -> Value {
    match text.parse::<Value>() {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => value,
        _ => json!(text),
    }
}

fn one_or_more(one: &Value) -> Value {
    json!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
}

fn list_of(one: &Value) -> Value {
    json!({"type": "array", "items": one, "minItems": 1})
}

fn map_to(value: &Value) -> Value {
    json!({"type": "object", "minProperties": 1, "additionalProperties": value})
}

fn named(definition: &str) -> Value {
    json!({"$ref": format!("#/definitions/{definition}")})
}

fn or_off(shape: &Value) -> Value {
    json!({"anyOf": [shape, {"const": "off"}]})
}

fn count(least: u64, most: u64) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

fn matching(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

fn words(words: &[&str]) -> Value {
    json!({"enum": words})
}

fn without_user(mut auth: Value) -> Value {
    if let Some(keys) = auth["properties"].as_object_mut() {
        keys.remove("user");
    }
    auth
}

/// The largest whole number where there is no reason for a smaller one.
const LARGE: u64 = i32::MAX as u64;
const READS: &[&str] = &["off", "observe", "auto", "near", "replicas", "copies"];
const READ_FROM: &[&str] =
    &["primary", "prefer_replica", "replica", "any", "nearest", "az_affinity", "az_affinity_replicas_and_primary"];

/// What may stand under a key.
fn shape(place: Place, name: &str) -> Value {
    match place {
        Place::Top => top(name),
        Place::Log => match name {
            "level" => words(&["trace", "debug", "info", "warn", "error", "off"]),
            "format" => words(&["text", "json"]),
            "audit" => matching("^(log|stdout|off|[^\\x00]*/[^\\x00]*[^/\\x00])$"),
            _ => Value::Null,
        },
        Place::Drain => named("time"),
        Place::Tracing | Place::AccessLog => match name {
            "endpoint" => matching("^http://[^/#@\\s]+(/[^#\\s]*)?$"),
            "to" => matching("^(stdout|stderr|/.*[^/])$"),
            "sample" => json!({"type": "number", "minimum": 0, "maximum": 1}),
            "slow" => or_off(&named("time")),
            "keys" => flag(),
            "service_name" => named("text"),
            "headers" => map_to(&named("text")),
            _ => Value::Null,
        },
        Place::Command => match name {
            "keys" => matching("^([0-9]+ *, *-?[0-9]+ *, *[0-9]+|none)$"),
            "access" => words(&["read", "write"]),
            _ => Value::Null,
        },
        Place::Pool => pool(name),
        Place::Server => match name {
            "address" => named("address"),
            "weight" => count(1, MAX_WEIGHT.into()),
            "name" => named("text"),
            _ => Value::Null,
        },
        Place::Auth => named("text"),
        Place::Tls => match name {
            "cert" | "key" | "client_ca" => named("text"),
            "certificates" => json!({"type": "array", "items": map_of(Place::Certificate)}),
            "client_auth" => words(&["off", "optional", "required"]),
            "min_version" => json!({"enum": [1.2, 1.3, "1.2", "1.3"]}),
            "handshake_timeout" => named("time"),
            _ => Value::Null,
        },
        Place::Certificate => named("text"),
        Place::ServerTls => match name {
            "verify" => flag(),
            _ => named("text"),
        },
        Place::User => match name {
            "nopass" | "read_only" => flag(),
            "passwords" => list_of(&named("text")),
            "password" | "password_env" | "password_file" | "rules" => named("text"),
            "connections" => count(1, 1_000_000),
            "prefix" => tenant(),
            _ => Value::Null,
        },
        Place::Limit => match name {
            "requests" => matching("^[0-9]+ */s$"),
            "bytes" | "reply_bytes" => matching("^[0-9]+([bB]|[kKmMgG]([iI]?[bB])?)? */s$"),
            "burst" => named("time"),
            "user" | "prefix" | "name" => named("text"),
            _ => Value::Null,
        },
        Place::HotKeys | Place::HotPrefix => hot(name),
        Place::Misses | Place::MissPrefix => misses(name),
        Place::Mirror => match name {
            "pool" => named("text"),
            "share" => json!({"type": "number", "minimum": 0.001, "maximum": 1}),
            "commands" => words(&["reads", "writes", "all"]),
            "compare" => flag(),
            "prefixes" => json!({"type": "array", "items": named("text"), "minItems": 1, "maxItems": 256}),
            _ => Value::Null,
        },
    }
}

/// How a tenant's keys begin; empty for as they are.
fn tenant() -> Value {
    json!({"type": "string", "pattern": "^[^*\\s]{0,128}$"})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn top(name: &str) -> Value {
    match name {
        "workers" => json!({"anyOf": [count(1, 256), {"const": "auto"}]}),
        "max_pause" | "watch" => or_off(&named("time")),
        "max_memory" => json!({"anyOf": [named("size"), {"enum": ["auto", "off"]}]}),
        "admin" => or_off(&named("address")),
        "admin_hosts" => {
            let name = matching("^[A-Za-z0-9._-]{1,253}$");
            json!({"anyOf": [name, {"type": "array", "items": name}]})
        }
        "admin_token" | "admin_token_env" | "admin_token_file" => named("text"),
        "admin_token_for" => words(&["changes", "all"]),
        "drain" => map_of(Place::Drain),
        "handover" => matching("^(unix:)?/[^\\s]*[^\\s/]$"),
        "log" => map_of(Place::Log),
        "tracing" => map_of(Place::Tracing),
        "access_log" => map_of(Place::AccessLog),
        "commands" => map_to(&map_of(Place::Command)),
        "pools" => map_to(&map_of(Place::Pool)),
        _ => Value::Null,
    }
}

fn pool(name: &str) -> Value {
    match name {
        "listen" | "listen_strict" => named("addresses"),
        // A unix socket has no TLS.
        "listen_tls" => one_or_more(&matching("^[^\\s/]+:[0-9]{1,5}$")),
        "tls" => map_of(Place::Tls),
        "server_tls" | "sentinel_tls" => json!({"anyOf": [flag(), map_of(Place::ServerTls)]}),
        "servers" => {
            let server = json!({"anyOf": [{"type": "string"}, map_of(Place::Server)]});
            json!({"anyOf": [matching("^embedded:[0-9]+$"), list_of(&server)]})
        }
        "topology" => words(&["static", "cluster", "sentinel"]),
        "announce" | "zones" => map_to(&named("text")),
        "masters" => one_or_more(&matching("^[A-Za-z0-9._-]+(:[0-9]+)?$")),
        "hash" => words(&[
            "one_at_a_time",
            "md5",
            "crc16",
            "crc32",
            "crc32a",
            "fnv1_64",
            "fnv1a_64",
            "fnv1_32",
            "fnv1a_32",
            "hsieh",
            "murmur",
            "jenkins",
        ]),
        "distribution" => words(&["ketama", "modula", "random", "even"]),
        "hash_tag" => json!({"type": "string", "minLength": 2, "maxLength": 2}),
        "eviction" => words(&["lru", "lfu"]),
        "merge" => words(&["strict", "relaxed", "off"]),
        "admin_commands" => words(&["allow", "refuse"]),
        "read_from" => words(READ_FROM),
        "read_from_prefixes" => map_to(&words(READ_FROM)),
        "when_ejected" => matching("^(error|miss|rehash|gutter:.+)$"),
        "preconnect" | "tcpkeepalive" | "auto_eject_hosts" | "resp3" | "reuseport" | "coalesce" | "read_only"
        | "command_metrics" => flag(),
        // twemproxy's `false` is memcached, which hotring does not speak.
        "redis" => json!({"const": true}),
        "server_connections" | "databases" => count(1, 1024),
        "server_failure_limit" => count(1, LARGE),
        "backlog" | "client_connections" | "redis_db" | "db" => count(0, LARGE),
        "dedicated_connections" => count(0, 65_536),
        "max_pipeline" | "reconnect_burst" | "warm_rate" => count(1, 1_000_000),
        "reconnect_rate" | "max_auth_failures" => or_off(&count(1, 1_000_000)),
        "slowlog_max_len" => count(0, 100_000),
        "maxmemory" | "max_outbox" | "max_output" | "max_request" => named("size"),
        "max_key" | "max_value" => or_off(&named("size")),
        "max_output_soft" | "max_output_pubsub" => or_off(&matching("^[0-9]+[a-zA-Z]* [0-9]+[a-zµ]*$")),
        "topology_interval"
        | "redirect_wait"
        | "connect_timeout"
        | "server_retry_timeout"
        | "gutter_ttl"
        | "warm_for"
        | "probe_timeout"
        | "read_staleness" => named("time"),
        "dns_refresh"
        | "tcp_user_timeout"
        | "client_tcpkeepalive"
        | "client_idle_timeout"
        | "request_timeout"
        | "auth_timeout"
        | "slowlog_slower_than"
        | "info_interval" => or_off(&named("time")),
        // -1 is twemproxy's for ever.
        "timeout" | "probe_interval" => json!({"anyOf": [named("time"), {"enum": ["off", -1]}]}),
        "deny_commands" => json!({"anyOf": [matching("[^ ]"), {"type": "array", "items": matching("[^ ]")}]}),
        "metrics_prefixes" => json!({"type": "array", "items": named("text"), "maxItems": 64}),
        "slow_commands" => json!({"anyOf": [named("text"), {"type": "array", "items": named("text")}]}),
        "hot_keys" => map_of(Place::HotKeys),
        "misses" => map_of(Place::Misses),
        "mirror" => map_of(Place::Mirror),
        "routes" => {
            let mut map = map_to(&named("text"));
            map["minProperties"] = json!(1);
            map["maxProperties"] = json!(super::routes::MOST);
            map
        }
        "sentinel_auth" | "server_auth" => named("auth"),
        "client_auth" => named("client_auth"),
        "redis_auth" | "zone" | "warm_from" => named("text"),
        "users" => map_to(&map_of(Place::User)),
        "prefix" => tenant(),
        "rate_limits" => json!({"type": "array", "items": map_of(Place::Limit), "minItems": 1, "maxItems": 64}),
        "pin" => json!({"anyOf": [{"type": "string"}, map_to(&named("text"))]}),
        "replicas" => map_to(&named("addresses")),
        _ => Value::Null,
    }
}

fn hot(name: &str) -> Value {
    match name {
        "reads" => words(READS),
        "extra_load" => json!({"type": "number", "minimum": 0.01, "maximum": 1}),
        "max_staleness" => named("time"),
        "max_copies" => count(2, 64),
        "near_memory" | "near_value" | "copy_value" => named("size"),
        "near_all" | "near_writes" | "wait_for_copies" => flag(),
        "choice" => words(&["balanced", "sticky"]),
        "scripts" => words(&["any", "declared"]),
        "audit" => count(0, u32::MAX.into()),
        "prefixes" => list_of(&map_of(Place::HotPrefix)),
        "prefix" => named("text"),
        _ => Value::Null,
    }
}

fn misses(name: &str) -> Value {
    match name {
        "lease" => words(&["off", "observe", "local", "fleet"]),
        "lease_wait" | "lease_term" | "stale" => named("time"),
        "same_connection" => words(&["nil", "wait"]),
        "cache_aside" | "guard_stale_set" => flag(),
        "ttl_jitter" => json!({"type": "number", "minimum": 0, "maximum": 0.5}),
        "miss_budget" => or_off(&count(1, 1_000_000_000)),
        "absent_reply" | "absent_ids" | "prefix" => named("text"),
        "prefixes" => list_of(&map_of(Place::MissPrefix)),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_shape() {
        for key in KEYS {
            assert!(
                !shape(key.place, key.name).is_null(),
                "src/config/schema.rs does not say what `{}` may have",
                key.name
            );
        }
    }
}
