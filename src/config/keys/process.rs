//! What is about the whole process: the top of the file, and what stands under its maps but the pools.

use super::{Key, Place, own};

pub(super) const KEYS: &[Key] = &[
    own(Place::Top, "workers", "1", "threads that serve requests: a number, or `auto` for one a core"),
    own(
        Place::Top,
        "max_pause",
        "120us",
        "longest rest after a batch where that serves more replies per CPU; at most `1ms`, `off` never rests",
    ),
    own(
        Place::Top,
        "max_memory",
        "auto",
        "bytes that clients and servers may make hotring hold, all workers together; `auto` is a half of what its control \
         group or the machine has, `off` is no bound",
    ),
    own(Place::Top, "admin", "127.0.0.1:9380", "address of metrics, health and `/explain`; `off` for none"),
    own(
        Place::Top,
        "admin_token",
        "",
        "what who changes something over `admin` (`POST /reload`) must show, as `Authorization: Bearer TOKEN`; at least 16 characters \
         without blanks. Left out, nobody can",
    ),
    own(Place::Top, "admin_token_env", "", "environment variable that holds it"),
    own(Place::Top, "admin_token_file", "", "file that holds it, relative to this one; a newline at its end is cut"),
    own(
        Place::Top,
        "admin_token_for",
        "changes",
        "who must show it: `changes`, who changes something; `all`, who reads, too, but for `/metrics`, `/healthz` and `/readyz`",
    ),
    own(
        Place::Top,
        "admin_hosts",
        "",
        "a list of names by which `admin` may be called, such as `[hotring.example.com]`; IP addresses, its own name, and names that \
         cannot be had in public need not be listed",
    ),
    own(
        Place::Top,
        "watch",
        "2s",
        "how often this file, the files of passwords, of certificates and of ids are looked at for changes, which are then taken while running; `off` \
         leaves it to SIGHUP and `POST /reload`",
    ),
    own(Place::Top, "drain", "", "how it stops, see `delay` and `timeout`"),
    own(
        Place::Top,
        "handover",
        "",
        "path of a unix socket by which a hotring that is started while another runs takes its listeners, so that it can be \
         replaced without refusing a connection",
    ),
    own(Place::Top, "log", "", "what is logged, see `level`, `format` and `audit`"),
    own(
        Place::Top,
        "tracing",
        "",
        "spans of sampled requests for a collector of OpenTelemetry, by OTLP over HTTP; the next keys say which and where",
    ),
    own(Place::Top, "access_log", "", "a line of JSON for each of some requests; see `sample` and `to`"),
    own(Place::Top, "commands", "", "commands of modules by name, with where their keys are"),
    own(Place::Top, "pools", "required", "the pools by name: sets of servers with the addresses apps reach them at"),
    own(
        Place::Drain,
        "delay",
        "0s",
        "upon SIGTERM, how long to go on as before but not ready; until then load balancers should have seen `/readyz`",
    ),
    own(
        Place::Drain,
        "timeout",
        "5s",
        "after that, with the listeners closed, how long sessions have to get the replies they wait for",
    ),
    own(Place::Log, "level", "info", "least level that is logged: `trace`, `debug`, `info`, `warn`, `error` or `off`"),
    own(Place::Log, "format", "text", "`text` for people, `json` for machines"),
    own(
        Place::Log,
        "audit",
        "log",
        "where it is told who was denied what, who could not log in and who changed something: `log`, among the others; `stdout` or the \
         path of a file, one JSON object a line; or `off`",
    ),
    own(
        Place::Tracing,
        "endpoint",
        "http://localhost:4318/v1/traces",
        "where the collector is: a URL without TLS; where it is left out, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or \
         `OTEL_EXPORTER_OTLP_ENDPOINT` say so, if they are set",
    ),
    own(Place::Tracing, "sample", "0.001", "the part of requests that become spans, each by chance: `0` to `1`"),
    own(Place::Tracing, "slow", "off", "a time: all requests that take as long become spans, too"),
    own(Place::Tracing, "keys", "false", "tell the keys of sampled requests; values are never told"),
    own(
        Place::Tracing,
        "service_name",
        "hotring",
        "`service.name` of the spans; where it is left out, `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` say so, if they \
         are set",
    ),
    own(
        Place::Tracing,
        "headers",
        "",
        "headers that are sent to the collector, by name; where they are left out, those of `OTEL_EXPORTER_OTLP_HEADERS`",
    ),
    own(Place::AccessLog, "to", "stdout", "where the lines are written: `stdout`, `stderr` or the path of a file"),
    own(Place::AccessLog, "sample", "0.01", "the part of requests that become lines, each by chance: `0` to `1`"),
    own(Place::AccessLog, "slow", "off", "a time: all requests that take as long become lines, too"),
    own(Place::AccessLog, "keys", "false", "tell the keys of sampled requests; values are never told"),
    own(
        Place::Command,
        "keys",
        "required",
        "where the keys are among the arguments: `first,last,step`, such as `1,1,1` or, for all but the last, `1,-2,1`; \
         `none` for none, which goes to the pool's first server",
    ),
    own(Place::Command, "access", "write", "`read` or `write`: whether it may change what it names"),
];
