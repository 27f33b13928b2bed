//! Every key there is, with its default and its meaning; and which one was meant by a key there is not.
//!
//! Promises: the readers accept exactly these keys, and a key left out means its default as written here. README's table
//! is this list.

/// One key of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// As it stands in the file.
    pub name: &'static str,
    /// Where it stands.
    pub place: Place,
    /// What is taken where the key is left out, as it would be written in a `proxy.yaml`; empty for "unset", `required` for
    /// keys that must be there.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub meaning: &'static str,
    /// Whether twemproxy knows it, so that it may stand in a `nutcracker.yml`.
    pub twemproxy: bool,
}

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the top of the file.
    Top,
    /// Under `log`.
    Log,
    /// Under `drain`.
    Drain,
    /// Under `tracing`.
    Tracing,
    /// Under `access_log`.
    AccessLog,
    /// Under `commands`, in a command.
    Command,
    /// Under `pools`, in a pool.
    Pool,
    /// In an entry of `servers` that is a map.
    Server,
    /// Under `server_auth`, `sentinel_auth` or, but for `user`, under `client_auth`.
    Auth,
    /// Under `tls`.
    Tls,
    /// In an entry of `certificates` under `tls`.
    Certificate,
    /// Under `server_tls` or `sentinel_tls`.
    ServerTls,
    /// Under `users`, in a user.
    User,
    /// In an entry of `rate_limits`.
    Limit,
    /// Under `hot_keys`.
    HotKeys,
    /// In an entry of `prefixes` under `hot_keys`.
    HotPrefix,
    /// Under `misses`.
    Misses,
    /// In an entry of `prefixes` under `misses`.
    MissPrefix,
    /// Under `mirror`.
    Mirror,
}

impl Place {
    /// In words, for messages.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Top => "at the top of the file",
            Self::Log => "under `log`",
            Self::Drain => "under `drain`",
            Self::Tracing => "under `tracing`",
            Self::AccessLog => "under `access_log`",
            Self::Command => "in a command under `commands`",
            Self::Pool => "in a pool",
            Self::Server => "in an entry of `servers`",
            Self::Auth => "under `server_auth`, `client_auth` or `sentinel_auth`",
            Self::Tls => "under `tls`",
            Self::Certificate => "in an entry of `certificates` under `tls`",
            Self::ServerTls => "under `server_tls` or `sentinel_tls`",
            Self::User => "in a user under `users`",
            Self::Limit => "in an entry of `rate_limits`",
            Self::HotKeys => "under `hot_keys`",
            Self::HotPrefix => "in an entry of `prefixes` under `hot_keys`",
            Self::Misses => "under `misses`",
            Self::MissPrefix => "in an entry of `prefixes` under `misses`",
            Self::Mirror => "under `mirror`",
        }
    }
}

const fn own(place: Place, name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, place, default, meaning, twemproxy: false }
}

const fn twemproxy(name: &'static str, default: &'static str, meaning: &'static str) -> Key {
    Key { name, place: Place::Pool, default, meaning, twemproxy: true }
}

/// Every key, in the order in which README and `/config` show them.
pub const KEYS: &[Key] = &[
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
    twemproxy(
        "listen",
        "",
        "where apps connect to: `host:port`, `[::1]:6379`, `/path` or `/path 0666` (octal mode of the socket), or a list; required \
         but for a pool that is another's `mirror`, or that another's `routes` lead to",
    ),
    twemproxy(
        "servers",
        "required",
        "`embedded:N` for N cache nodes in this process, or a list of `host:port:weight [name]`, `/path:weight [name]` or \
         `{address, weight, name}`; with a `topology`, where to ask it for: the seeds of a cluster, or the sentinels, each \
         `host:port`",
    ),
    own(
        Place::Pool,
        "topology",
        "static",
        "who says which servers there are: `static`, this file; `cluster`, the nodes of a Redis Cluster; `sentinel`, Redis \
         Sentinels",
    ),
    own(
        Place::Pool,
        "topology_interval",
        "30s",
        "how often the topology is asked for without a reason; whatever tells of a change has it asked for at once",
    ),
    own(
        Place::Pool,
        "announce",
        "",
        "where nodes are reached from here that call themselves otherwise, such as `{\"10.0.0.5:7001\": \"127.0.0.1:7001\"}` or, \
         for all ports of a host, `{10.0.0.5: 127.0.0.1}`",
    ),
    own(
        Place::Pool,
        "masters",
        "",
        "with `topology: sentinel`, the names that the sentinels watch: the pool's servers, on the ring under these names, \
         `NAME:WEIGHT` where they are not alike",
    ),
    own(Place::Pool, "sentinel_auth", "", "user and password sent to the sentinels"),
    own(
        Place::Pool,
        "redirect_wait",
        "2s",
        "with `topology: cluster`, how long a request may wait until its slot is served again, while the cluster moves it or \
         has lost a node",
    ),
    own(Place::Pool, "maxmemory", "64mb", "memory of each embedded node"),
    own(
        Place::Pool,
        "eviction",
        "lru",
        "what a full embedded node gives up: `lru` the longest unused, `lfu` the least used",
    ),
    twemproxy(
        "hash",
        "fnv1a_64",
        "hash of a key: `one_at_a_time`, `md5`, `crc16`, `crc32`, `crc32a`, `fnv1_64`, `fnv1a_64`, `fnv1_32`, `fnv1a_32`, \
         `hsieh`, `murmur` or `jenkins`",
    ),
    twemproxy("hash_tag", "", "two characters, such as `\"{}\"`: only what stands between them in a key is hashed"),
    twemproxy(
        "distribution",
        "ketama",
        "how hashes are spread over servers: `ketama`, `modula`, `random`, or `even` for a more even ketama",
    ),
    twemproxy(
        "timeout",
        "5s",
        "longest wait for a reply; `off` waits for ever, which is what a nutcracker.yml means by none",
    ),
    own(Place::Pool, "connect_timeout", "1s", "longest wait for a connection to a server, all its addresses together"),
    own(
        Place::Pool,
        "dns_refresh",
        "30s",
        "how long what a server's name was resolved to is used; connections follow a name that leads elsewhere; `off` resolves \
         before each connection and never moves one",
    ),
    own(
        Place::Pool,
        "reconnect_rate",
        "50",
        "connections opened to each server a second, for each worker, further ones wait; `off` is no limit",
    ),
    own(
        Place::Pool,
        "reconnect_burst",
        "257",
        "connections that may be opened at once before `reconnect_rate` counts; `server_connections` and \
         `dedicated_connections` together where it is left out",
    ),
    twemproxy("server_connections", "1", "connections to each server, for each worker"),
    twemproxy("preconnect", "false", "connect to all servers at start"),
    twemproxy(
        "tcpkeepalive",
        "false",
        "keepalive probes on connections to servers; those that may wait for ever have them always",
    ),
    own(
        Place::Pool,
        "tcp_user_timeout",
        "5s",
        "how long bytes sent to a server may stay unacknowledged before the connection counts as lost; as `timeout` where it \
         is left out; `off` leaves it to the kernel",
    ),
    twemproxy("auto_eject_hosts", "false", "take a failing server out of the ring for `server_retry_timeout`"),
    twemproxy("server_retry_timeout", "30s", "how long the keys of an ejected server stay elsewhere at least"),
    twemproxy("server_failure_limit", "2", "failures in a row that eject a server"),
    own(
        Place::Pool,
        "when_ejected",
        "",
        "what the keys of an ejected server get: `error` at once; `miss`, where reads are answered as if there were no such \
         key; `rehash`, the other servers, and when it returns it may serve values from before; `gutter:POOL`, the servers of \
         that pool, where what is written lives for `gutter_ttl`. Unset it is `rehash` with `auto_eject_hosts`, `error` without",
    ),
    own(
        Place::Pool,
        "gutter_ttl",
        "10s",
        "how long at most what is written to a gutter lives there; its servers must be Redis 7 or newer",
    ),
    own(
        Place::Pool,
        "warm_from",
        "off",
        "where GET and MGET look for keys that are not at their home: `previous`, where they lived before the last change of servers; or the \
         name of another pool. What is found is copied",
    ),
    own(Place::Pool, "warm_for", "1h", "for how long they do, from the change on: at most `168h`"),
    own(Place::Pool, "warm_rate", "5000", "questions a second to former homes; beyond, a miss is a miss"),
    own(
        Place::Pool,
        "probe_interval",
        "1s",
        "how often each worker asks a server that it uses whether it is well, while no replies tell; `off` never asks",
    ),
    own(
        Place::Pool,
        "probe_timeout",
        "",
        "longest wait for the answer; unset it is `timeout`, or `1s` where that is `off`",
    ),
    own(
        Place::Pool,
        "admin_commands",
        "refuse",
        "`allow` forwards what asks for one server's own state (LATENCY, MEMORY ...) to the pool's first server",
    ),
    own(
        Place::Pool,
        "dedicated_connections",
        "256",
        "most connections to each server, for each worker, that sessions have for themselves: transactions, blocking commands",
    ),
    own(
        Place::Pool,
        "slow_commands",
        "",
        "a list of commands that take long, such as `[KEYS, EVAL]`: carried on a dedicated connection, so that nobody's \
         requests wait behind them",
    ),
    own(Place::Pool, "databases", "16", "databases that apps may SELECT; with a `redis_db` other than 0 only that one"),
    own(Place::Pool, "resp3", "true", "let apps speak RESP3 (HELLO 3); `false` for servers older than Redis 6"),
    own(Place::Pool, "max_outbox", "8mb", "bytes waiting for one server connection before its sessions are paused"),
    twemproxy("backlog", "512", "connections the kernel holds ready before they are accepted"),
    twemproxy("reuseport", "false", "let other processes listen on the same address"),
    twemproxy("client_connections", "0", "sessions at a time, further ones are refused; `0` is no limit"),
    own(
        Place::Pool,
        "client_tcpkeepalive",
        "5m",
        "silence after which a client on TCP is probed, so that one that vanished is noticed; `off` never does",
    ),
    own(Place::Pool, "max_pipeline", "1024", "open requests of one session before no more are read from it"),
    own(
        Place::Pool,
        "max_output",
        "64mb",
        "bytes of unread replies with which a session that gets one more is closed; from a quarter of it, 1mb at most, no more requests are read",
    ),
    own(
        Place::Pool,
        "max_output_soft",
        "off",
        "such as `8mb 60s`: a session that has had more bytes of unread replies for so long is closed",
    ),
    own(Place::Pool, "max_output_pubsub", "8mb 1m", "the same for sessions that are subscribed to channels; or `off`"),
    own(
        Place::Pool,
        "client_idle_timeout",
        "off",
        "how long a session may ask for nothing before it is closed; not while it waits, is subscribed or within a transaction",
    ),
    own(
        Place::Pool,
        "request_timeout",
        "1m",
        "how long nothing may come of a request that is not whole yet before its session is closed; or `off`",
    ),
    own(
        Place::Pool,
        "auth_timeout",
        "10s",
        "how long a session may take to send its password, where one is demanded; or `off`",
    ),
    own(Place::Pool, "max_auth_failures", "16", "wrong passwords after which a session is closed; or `off`"),
    own(
        Place::Pool,
        "max_request",
        "512mb",
        "bytes of one argument of a request; a whole request may have twice as many",
    ),
    own(Place::Pool, "coalesce", "false", "let equal reads of any key that are about to leave share one reply"),
    own(
        Place::Pool,
        "merge",
        "strict",
        "which replies equal reads of a hot key share: `strict`, while one is out the others wait and leave together; \
         `relaxed`, they share the reply to the one that is out, which may be older than a write by one round trip; `off`, none",
    ),
    own(
        Place::Pool,
        "hot_keys",
        "",
        "what is done with keys that are asked for more than their server's share, see `reads`; left out, nothing",
    ),
    own(
        Place::Pool,
        "misses",
        "",
        "what is done when keys are asked for that are not there, so that not all apps load them at once; left out, nothing",
    ),
    own(
        Place::Pool,
        "mirror",
        "",
        "what of its requests is also sent to another pool, whose replies are dropped, or compared; left out, nothing",
    ),
    own(
        Place::Pool,
        "routes",
        "",
        "which of its keys live in other pools: a map from how keys begin to names of pools; of several that fit the longest \
         counts. All others are this pool's",
    ),
    own(
        Place::Pool,
        "listen_strict",
        "",
        "further addresses, as of `listen`, for sessions that get exactly Redis' answers: always the key's own server's, never \
         from memory, a replica or a copy (`hot_keys`), nor another session's reply (`merge`, `coalesce`)",
    ),
    own(
        Place::Pool,
        "listen_tls",
        "",
        "further addresses, or the only ones, where apps speak TLS (1.2 or 1.3); with which certificates, `tls` says",
    ),
    own(Place::Pool, "tls", "", "the certificates of `listen_tls`, see `cert`"),
    own(
        Place::Pool,
        "server_tls",
        "false",
        "`true` speaks TLS to the servers, replicas and nodes, and believes whom the system believes; a map says whom else, see \
         `ca`. Unix sockets stay plain",
    ),
    own(Place::Pool, "sentinel_tls", "", "the same for the sentinels; as `server_tls` where nothing is said"),
    own(Place::Tls, "cert", "required", "file of the certificate, PEM, followed by those that it was issued with"),
    own(Place::Tls, "key", "required", "file of its key, PEM without a passphrase"),
    own(
        Place::Tls,
        "certificates",
        "",
        "further certificates, each shown to clients that ask for one of its names (SNI; `*.` stands for one label); all others are \
         shown `cert`",
    ),
    own(Place::Tls, "client_ca", "", "file of the CAs that issue the certificates of apps, PEM"),
    own(
        Place::Tls,
        "client_auth",
        "",
        "whether apps must show a certificate: `off`, `optional` (one that is shown must be good) or `required`; with a `client_ca` \
         it is `required`, without `off`",
    ),
    own(Place::Tls, "min_version", "1.2", "the oldest version of TLS that is spoken, `1.2` or `1.3`"),
    own(Place::Tls, "handshake_timeout", "10s", "how long the handshake of an app may take"),
    own(
        Place::Certificate,
        "cert",
        "required",
        "file of the certificate, PEM, followed by those that it was issued with",
    ),
    own(Place::Certificate, "key", "required", "file of its key, PEM without a passphrase"),
    own(
        Place::ServerTls,
        "ca",
        "",
        "file of the CAs that issue the servers' certificates, PEM; without it those that the system believes do",
    ),
    own(Place::ServerTls, "cert", "", "file of the certificate that is shown to servers which ask for one, PEM"),
    own(Place::ServerTls, "key", "", "file of its key, PEM without a passphrase"),
    own(
        Place::ServerTls,
        "server_name",
        "",
        "the name that the servers' certificates must have, where it is not the host by which they are reached",
    ),
    own(
        Place::ServerTls,
        "verify",
        "true",
        "`false` believes every server, whoever it is: for a short time, and never where somebody else may be in between",
    ),
    own(
        Place::Pool,
        "slowlog_slower_than",
        "10ms",
        "requests that take as long or longer are told by SLOWLOG; `0` is all of them, `off` is none",
    ),
    own(Place::Pool, "slowlog_max_len", "128", "slow requests that each worker keeps for SLOWLOG"),
    own(
        Place::Pool,
        "command_metrics",
        "true",
        "requests, errors and latencies are also told by command, some 16 series each",
    ),
    own(
        Place::Pool,
        "metrics_prefixes",
        "",
        "a list of up to 64 beginnings of keys, such as `[\"user:\", \"session:\"]`: requests, bytes, hits and misses are also told \
         by the longest of them that keys have",
    ),
    own(
        Place::Pool,
        "info_interval",
        "off",
        "how often one worker asks each server for INFO, to tell its memory, clients, role and lag as metrics; several processes \
         need not all ask the same servers",
    ),
    twemproxy("redis", "true", "must be `true`: hotring speaks Redis, not memcached"),
    twemproxy("redis_auth", "", "password sent to the servers and demanded from apps"),
    own(Place::Pool, "server_auth", "", "user and password sent to the servers"),
    own(Place::Pool, "client_auth", "", "password demanded from apps"),
    own(
        Place::Pool,
        "users",
        "",
        "users by name with what each may do; one named `default` is who has not sent AUTH, and without it that is a user \
         who may do everything",
    ),
    own(
        Place::Pool,
        "prefix",
        "",
        "how the keys and channels of its apps begin on the servers, such as `team-a:`: added to every one that they name and \
         taken from every one that they are told",
    ),
    own(
        Place::Pool,
        "rate_limits",
        "",
        "a list of limits on requests and their bytes, of the pool, of a user or of keys that begin alike; what is over one is \
         refused at once",
    ),
    own(
        Place::Pool,
        "deny_commands",
        "",
        "a list of commands, subcommands and categories that nobody may run, such as `[KEYS, \"CONFIG SET\", \"@dangerous\"]`: \
         they are refused with NOPERM",
    ),
    own(
        Place::Pool,
        "read_only",
        "false",
        "refuse whatever may write with READONLY, as a replica does; scripts, too, but for EVAL_RO, EVALSHA_RO and FCALL_RO",
    ),
    own(
        Place::Pool,
        "max_key",
        "off",
        "bytes that a key may have, such as `512b`; requests with a longer one are refused",
    ),
    own(
        Place::Pool,
        "max_value",
        "off",
        "bytes that an argument of a write may have that is no key, such as `1mb`: values, members, scripts; requests with a \
         longer one are refused",
    ),
    own(
        Place::Pool,
        "pin",
        "",
        "a server where all keys live, or servers by how keys begin, such as `{\"celery:\": s1}`; the longest beginning counts",
    ),
    own(
        Place::Pool,
        "replicas",
        "",
        "where replicas of the servers are, by the servers' names, such as `{s1: [10.0.0.21:6379, 10.0.0.22:6379]}`: reads of hot \
         keys may be served by them, and of others by `read_from`",
    ),
    own(
        Place::Pool,
        "read_from",
        "primary",
        "who answers reads of one key: `primary`, its server; `prefer_replica`, a replica, else the server; `replica`, replicas only; \
         `any`, all of them in turn; `nearest`, whoever answers soonest; `az_affinity`, a replica in `zone`, else any, else the \
         server; `az_affinity_replicas_and_primary`, the server in `zone` before replicas elsewhere. Of a replica an answer may be \
         up to `read_staleness` old",
    ),
    own(
        Place::Pool,
        "read_from_prefixes",
        "",
        "the same by how keys begin, such as `{\"product:\": any, \"lock:\": primary}`; the longest beginning counts",
    ),
    own(
        Place::Pool,
        "read_staleness",
        "1s",
        "what a replica answers by `read_from` is never older than this: `200ms` to `60s`. A session sees what was written through \
         this hotring before it asked, however long this is",
    ),
    own(Place::Pool, "zone", "", "the availability zone in which this hotring runs, such as `eu-west-1a`"),
    own(
        Place::Pool,
        "zones",
        "",
        "in which zones servers and replicas are, by address, such as `{\"10.0.0.21:6379\": eu-west-1a}`; of the others Valkey is \
         asked for its `availability-zone`",
    ),
    twemproxy("redis_db", "0", "database that is selected at the servers"),
    own(Place::Pool, "db", "0", "the same as `redis_db`"),
    own(Place::Server, "address", "required", "where the server listens: `host:port` or `/path`"),
    own(Place::Server, "weight", "1", "share of the keys relative to the other servers"),
    own(Place::Server, "name", "", "name on the ring; keys stay where they are when the address behind a name changes"),
    own(Place::Auth, "user", "", "user name, at the servers only; left out, the password is sent alone"),
    own(Place::Auth, "password", "", "the password itself"),
    own(Place::Auth, "password_env", "", "environment variable that holds the password"),
    own(
        Place::Auth,
        "password_file",
        "",
        "file that holds the password, relative to this one; a newline at its end is cut",
    ),
    own(
        Place::User,
        "password",
        "",
        "a password of the user: plain, or `sha256:` and its SHA-256 in 64 hexadecimal digits",
    ),
    own(Place::User, "passwords", "", "a list of passwords, each of which is taken, so that one can replace another"),
    own(Place::User, "password_env", "", "environment variable that holds a password"),
    own(Place::User, "password_file", "", "file that holds a password"),
    own(Place::User, "nopass", "false", "take any password; `default` then needs none"),
    own(
        Place::User,
        "rules",
        "required",
        "what the user may do in the words of Redis' ACL: `+@read`, `-flushall`, `+config|get`, `~app:*`, `%R~app:*`, \
         `&news:*`, `on`, `off` and so on; later ones win",
    ),
    own(Place::User, "read_only", "false", "deny all commands that may write, whatever the rules say"),
    own(
        Place::User,
        "connections",
        "",
        "sessions that may be logged in as the user at a time, over all workers; further ones are refused and closed",
    ),
    own(
        Place::User,
        "prefix",
        "",
        "how the user's keys and channels begin on the servers, in place of the pool's `prefix`, which it is if left out; `\"\"` \
         leaves them as they are",
    ),
    own(Place::Limit, "requests", "", "requests a second such as `1000/s`; with `prefix` each key counts"),
    own(Place::Limit, "bytes", "", "bytes of requests a second such as `10mb/s`"),
    own(
        Place::Limit,
        "reply_bytes",
        "",
        "bytes of replies a second such as `50mb/s`, not with `prefix`: with more than that given, requests are refused until it is \
         made up for",
    ),
    own(Place::Limit, "burst", "1s", "so much of it may come at once after as long a rest"),
    own(
        Place::Limit,
        "user",
        "",
        "the user whose sessions it is on; without `user` and `prefix` it is on the whole pool",
    ),
    own(Place::Limit, "prefix", "", "how the keys begin that it is on; of several beginnings the longest counts"),
    own(Place::Limit, "name", "", "what it is called in errors and metrics; left out, by what it is on"),
    own(
        Place::HotKeys,
        "reads",
        "off",
        "where reads of a hot key may be answered from: `off`, its server only; `observe`, the same, and what `auto` would do \
         is counted; `near`, memory here, which the server tells of changes; `replicas` of its server; `copies` on other \
         servers; `auto`, what is best for the key. With the last four an answer may be up to `max_staleness` old",
    ),
    own(
        Place::HotKeys,
        "extra_load",
        "0.25",
        "how much one key may add to its server's fair share of the load, as a part of that share, before it is hot",
    ),
    own(
        Place::HotKeys,
        "max_staleness",
        "1s",
        "an answer that does not come from the key's server is never older than this: `200ms` to `60s`. A session sees what was \
         written through this hotring before it asked, however long this is. Of a SWAPDB at a server Redis tells nobody: what is \
         in memory then lives for 30s at most",
    ),
    own(Place::HotKeys, "max_copies", "16", "at how many servers a key is at most, its own with them: 2 to 64"),
    own(
        Place::HotKeys,
        "near_memory",
        "16mb",
        "bytes of hot keys' values that each worker keeps in memory; `max_memory` does not count them",
    ),
    own(Place::HotKeys, "near_value", "64kb", "longest value that is kept in memory"),
    own(
        Place::HotKeys,
        "near_all",
        "false",
        "keep every key that is read and whose `reads` is `near` or `auto`, hot or not; for few keys that are read often, as \
         each costs its server memory, too",
    ),
    own(
        Place::HotKeys,
        "near_writes",
        "false",
        "keep what is written here by a plain `SET`, too: the server does not tell of the next change of it, so that one that \
         others make is seen after `max_staleness`",
    ),
    own(Place::HotKeys, "copy_value", "1mb", "longest value that is copied to other servers"),
    own(
        Place::HotKeys,
        "choice",
        "balanced",
        "which copy is read: `balanced`, the less busy of two; `sticky`, always the same one for a session, which then \
         sees an older value after a newer only in the moment in which a copy is made or taken away",
    ),
    own(
        Place::HotKeys,
        "wait_for_copies",
        "false",
        "answer a write only when the copies of its key are gone, or the servers where they are cannot be reached",
    ),
    own(
        Place::HotKeys,
        "scripts",
        "any",
        "`any`: a script may change keys that it does not declare, so after one nothing that was kept or copied before it \
         is answered; `declared`: scripts change only the keys that they declare",
    ),
    own(
        Place::HotKeys,
        "audit",
        "0",
        "of how many answers from memory one is compared with what the key's server has; `0` is none",
    ),
    own(Place::HotKeys, "prefixes", "", "a list of what is wanted for keys that begin alike, in place of `reads`"),
    own(Place::HotPrefix, "prefix", "required", "how the keys begin; of several beginnings the longest counts"),
    own(
        Place::HotPrefix,
        "reads",
        "required",
        "as `reads` under `hot_keys`, with the same bound on the age of an answer; `off` is how keys are left alone",
    ),
    own(
        Place::Misses,
        "lease",
        "off",
        "who is told of a key that is not there: `off`, everybody; `observe`, the same, and what `local` would save is counted; \
         `local`, one client of this hotring, which is to load and SET it while the others wait for the value; `fleet`, one \
         client of all hotrings",
    ),
    own(
        Place::Misses,
        "lease_wait",
        "1s",
        "longest that a reader waits for the value: `50ms` to `60s`. Within that it is twice as long as loads of the key take",
    ),
    own(
        Place::Misses,
        "lease_term",
        "10s",
        "longest that the one who loads is waited for before another one is told: `500ms` to `60s`. Within that it is four times \
         as long as loads of the key take",
    ),
    own(
        Place::Misses,
        "same_connection",
        "nil",
        "what a connection gets that is loading a key and asks for it again: `nil`, at once, or `wait`, as others do; for apps \
         whose threads share one connection",
    ),
    own(
        Place::Misses,
        "cache_aside",
        "false",
        "tell one client shortly before a key expires that it is not there, so that it is loaded while the others still read it; for \
         keys that are written by SET, and anew whenever they are found missing",
    ),
    own(
        Place::Misses,
        "stale",
        "0s",
        "for how long after a key has expired, `0s` to `60s`, those who would wait for it are told at once what it had, while one loads \
         it; of keys that `hot_keys` keeps in memory and that nobody has written or deleted",
    ),
    own(
        Place::Misses,
        "guard_stale_set",
        "false",
        "answer OK to the SET of one who was told to load a key, and do nothing, if somebody else has written or deleted the key \
         since; for keys that are only SET by who has found them missing, on the same connection",
    ),
    own(
        Place::Misses,
        "ttl_jitter",
        "0",
        "the part by which times to live of 10s and more are shortened at most, each by chance, so that what is written together does \
         not expire together: `0` to `0.5`",
    ),
    own(
        Place::Misses,
        "miss_budget",
        "off",
        "how many GETs and MGETs a second may be told that a key is not there; further ones are refused, so that a database that \
         would have to load them all is not asked. Each prefix has its own, shared by all workers",
    ),
    own(
        Place::Misses,
        "absent_reply",
        "nil",
        "what a GET gets of a key whose id is not in `absent_ids`: `nil`, or a text",
    ),
    own(Place::Misses, "prefixes", "", "a list of what else is wanted for keys that begin alike"),
    own(Place::MissPrefix, "prefix", "required", "how the keys begin; of several beginnings the longest counts"),
    own(
        Place::MissPrefix,
        "lease",
        "",
        "as under `misses`, which is what counts where it is left out; so are the next keys",
    ),
    own(Place::MissPrefix, "lease_wait", "", "as under `misses`"),
    own(Place::MissPrefix, "lease_term", "", "as under `misses`"),
    own(Place::MissPrefix, "same_connection", "", "as under `misses`"),
    own(Place::MissPrefix, "cache_aside", "", "as under `misses`"),
    own(Place::MissPrefix, "stale", "", "as under `misses`"),
    own(Place::MissPrefix, "guard_stale_set", "", "as under `misses`"),
    own(Place::MissPrefix, "ttl_jitter", "", "as under `misses`"),
    own(Place::MissPrefix, "miss_budget", "", "as under `misses`; the prefix has it for itself"),
    own(
        Place::MissPrefix,
        "absent_ids",
        "",
        "file of the ids that exist, one a line, relative to this one: a GET of the prefix and anything else is answered at once \
         with `absent_reply`, and no server is asked",
    ),
    own(Place::MissPrefix, "absent_reply", "", "as under `misses`"),
    own(
        Place::Mirror,
        "pool",
        "required",
        "the name of the other pool; its servers may be a cluster's, or watched by sentinels",
    ),
    own(
        Place::Mirror,
        "share",
        "1",
        "of how many keys: `0.001` to `1`. Whether a key is mirrored depends on its name alone, and on its `{tag}` if it has one",
    ),
    own(Place::Mirror, "commands", "writes", "`reads`, `writes` or `all`"),
    own(
        Place::Mirror,
        "compare",
        "false",
        "compare the replies to reads of one key; where they differ both sides are asked again before it is told",
    ),
    own(Place::Mirror, "prefixes", "", "a list of how the keys begin that are mirrored; left out, all"),
];

/// The names of the keys at a place.
pub(super) fn names(place: Place) -> Vec<&'static str> {
    KEYS.iter().filter(|key| key.place == place).map(|key| key.name).collect()
}

/// The names of the keys a pool of a `nutcracker.yml` may have.
pub(super) fn twemproxy_names() -> Vec<&'static str> {
    KEYS.iter().filter(|key| key.twemproxy).map(|key| key.name).collect()
}

/// What to tell about a key that is none of `known`.
pub(super) fn unknown(name: &str, known: &[&'static str]) -> String {
    if name == "<<" {
        return "merge keys are not understood, write the keys out".to_owned();
    }
    match KEYS.iter().find(|key| key.name == name) {
        Some(_) if known.contains(&"hash") && names(Place::Pool).contains(&name) => {
            "unknown key, it is hotring's own; `hotring import` makes a proxy.yaml, which may have it".to_owned()
        }
        Some(Key { name: "user", .. }) => "unknown key, it stands under `server_auth`".to_owned(),
        Some(_) => {
            let places: Vec<&str> = KEYS.iter().filter(|key| key.name == name).map(|key| key.place.words()).collect();
            format!("unknown key, it stands {}", places.join(" or "))
        }
        None => match meant(name, known) {
            Some(meant) => format!("unknown key, did you mean `{meant}`?"),
            None => "unknown key".to_owned(),
        },
    }
}

/// The known key that `name` is closest to, if it is close.
pub(super) fn meant(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let name = name.to_lowercase().replace('-', "_");
    let allowed = (name.chars().count() / 3).clamp(1, 3);
    let near = known.iter().map(|known| (distance(&name, known), *known)).min()?;
    (near.0 <= allowed).then_some(near.1)
}

/// Edits that make one text of the other: insert, delete, replace, swap two neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, edits) in
            [("", "", 0), ("a", "", 1), ("abc", "acb", 1), ("kitten", "sitting", 3), ("hash", "hash", 0)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
            assert_eq!(distance(b, a), edits, "{b} {a}");
        }
    }

    #[test]
    fn near_keys_are_meant() {
        let pool = names(Place::Pool);
        for (name, near) in [
            ("timout", Some("timeout")),
            ("server", Some("servers")),
            ("auto-eject-hosts", Some("auto_eject_hosts")),
            ("Timeout", Some("timeout")),
            ("reids", Some("redis")),
            ("nonsense", None),
            ("x", None),
        ] {
            assert_eq!(meant(name, &pool), near, "{name}");
        }
    }

    #[test]
    fn every_key_is_there_once() {
        for (i, key) in KEYS.iter().enumerate() {
            assert!(!KEYS[..i].iter().any(|other| other.name == key.name && other.place == key.place), "{}", key.name);
        }
    }
}
