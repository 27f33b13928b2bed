//! Who may do what over the admin listener.
//!
//! All requests come through here before they are looked at further, so a route that is added later needs nothing of its own.
//! Promises: what is neither GET nor HEAD, on whatever path, is refused but for who shows the token, is never a browser's
//! doing, and is told to the audit log; so no GET may change anything. A page of another origin that a browser has open reads nothing:
//! no header allows it to, and where it has had its own name lead here (DNS rebinding), that is no name for this listener. Where reads
//! need the token, too (`admin_token_for: all`), only pages for machines are told without it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use super::{Source, text};
use crate::bucket::Bucket;
use crate::metrics::AdminAction;
use crate::units::Secret;

/// What the admin listener asks of those who come.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// What must be shown by who changes something; `None` lets nobody.
    pub token: Option<Secret>,
    /// Whether who reads must show it, too.
    pub for_reads: bool,
    /// Names by which it may be called, beside those that no one else can have.
    pub hosts: Vec<String>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer(pub(super) String);

/// Refusals that are told to the audit log: so many a second, so many at once. All are counted.
const TOLD: (u64, u64) = (10, 50);
/// The most of a path that is told.
const MOST_TOLD: usize = 200;
/// Pages for machines, which may know this listener by any name. They tell of no key.
const OPEN: [&str; 3] = ["/metrics", "/healthz", "/readyz"];
/// Ends of names that nobody can have lead here from outside: they are no names in public (RFC 6761, 6762, and those of clusters).
const PRIVATE: [&str; 4] = [".localhost", ".local", ".internal", ".svc"];

/// What each request is held against.
#[derive(Clone)]
pub(super) struct Gate {
    source: Arc<dyn Source>,
    told: Arc<Mutex<Bucket>>,
    since: Instant,
}

impl Gate {
    #[expect(clippy::disallowed_methods, reason = "seconds, on the admin's own runtime")]
    pub(super) fn new(source: Arc<dyn Source>) -> Self {
        Self { source, told: Arc::new(Mutex::new(Bucket::new(TOLD.0, TOLD.1))), since: Instant::now() }
    }

    /// Whether one refusal more may be told.
    fn may_tell(&self) -> bool {
        let now = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take(1, now)
    }
}

/// Lets a request through, or answers it; and sees to it that all answers say what browsers may do with them.
pub(super) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let mut answer = decide(gate, request, next).await;
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (CORP, "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    answer
}

const CORP: header::HeaderName = header::HeaderName::from_static("cross-origin-resource-policy");

async fn decide(gate: Gate, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map_or(String::new(), |peer| peer.0.clone());
    let access = gate.source.access();
    let (headers, path) = (request.headers(), request.uri().path());
    // No browser comes over a unix socket.
    let is_named = peer == UNIX || OPEN.contains(&path) || is_named(headers, &access.hosts);
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads && !is_named {
        return text(StatusCode::MISDIRECTED_REQUEST, NO_NAME);
    }
    let is_open = !access.for_reads || OPEN.contains(&path);
    let token_shown = access.token.as_ref().is_some_and(|token| shown(headers).is_some_and(|shown| token.is(shown)));
    if reads && (is_open || token_shown) {
        return next.run(request).await;
    }
    let outcome = if !is_named {
        AdminAction::NoName
    } else if headers.contains_key(header::ORIGIN) && !reads {
        AdminAction::Browser
    } else {
        match &access.token {
            None => AdminAction::NoToken,
            Some(_) if token_shown => AdminAction::Allowed,
            Some(_) => AdminAction::WrongToken,
        }
    };
    gate.source.acted(outcome);
    let target = request.uri().path_and_query().map_or(path, |target| target.as_str());
    let command: String = format!("{} {target}", request.method()).chars().take(MOST_TOLD).collect();
    if outcome == AdminAction::Allowed {
        tracing::info!(target: "hotring::audit", event = "admin", peer, command, outcome = "allowed");
        return next.run(request).await;
    }
    let (status, said, reason) = match outcome {
        AdminAction::NoName => (StatusCode::MISDIRECTED_REQUEST, NO_NAME, "a name that is not this listener's"),
        AdminAction::Browser => (StatusCode::FORBIDDEN, "not from a browser\n", "from a page in a browser"),
        AdminAction::NoToken => (StatusCode::FORBIDDEN, NO_TOKEN, "no token is configured"),
        _ => (StatusCode::UNAUTHORIZED, WRONG_TOKEN, "no token, or a wrong one"),
    };
    if gate.may_tell() {
        tracing::info!(target: "hotring::audit", event = "admin", peer, command, outcome = "refused", reason);
    }
    let mut answer = text(status, said);
    if status == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hotring\""));
    }
    answer
}

/// What stands for a peer on a unix socket.
pub(super) const UNIX: &str = "unix";

const NO_NAME: &str = "this listener is not called that; expected an IP address, localhost, or a name that is listed under the key \
                       `admin_hosts`\n";
const NO_TOKEN: &str = "nothing can be changed from here: the configuration has no `admin_token`, `admin_token_file` or \
                        `admin_token_env`; SIGHUP and `watch` need none\n";
const WRONG_TOKEN: &str = "expected the header `Authorization: Bearer TOKEN`, with the token of the configuration\n";

/// The token that a request shows, if it shows exactly one.
fn shown(headers: &HeaderMap) -> Option<&[u8]> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (only, None) = (all.next()?, all.next()) else { return None };
    let (scheme, token) = only.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

/// Whether a request calls this listener by a name that a page of somebody else's cannot have.
fn is_named(headers: &HeaderMap, hosts: &[String]) -> bool {
    headers.get_all(header::HOST).iter().all(|host| host.to_str().is_ok_and(|host| is_name(host, hosts)))
}

/// The same of one `Host`: name or address, with or without a port.
fn is_name(host: &str, hosts: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => {
            return rest.split_once(']').is_some_and(|(address, _)| address.parse::<std::net::IpAddr>().is_ok());
        }
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    // One word is completed by who resolves it, and no name in public.
    let is_private = !name.contains('.') || PRIVATE.iter().any(|end| name.ends_with(end));
    is_private || name.parse::<std::net::IpAddr>().is_ok() || hosts.iter().any(|own| own.eq_ignore_ascii_case(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_others_can_have_are_no_names() {
        let hosts = ["Hotring.example.com".to_owned()];
        for name in [
            "",
            "127.0.0.1",
            "127.0.0.1:9380",
            "10.1.2.3:9380",
            "[::1]",
            "[fd00::1]:9380",
            "localhost",
            "LOCALHOST:80",
            "localhost.",
            "hotring",
            "hotring:9380",
            "hotring.web.svc",
            "hotring.web.svc.cluster.local:9380",
            "ip-10-0-0-1.eu.compute.internal",
            "hotring.example.com",
            "hotring.example.com:9380",
        ] {
            assert!(is_name(name, &hosts), "{name}");
        }
        for name in [
            "example.com",
            "evil.example",
            "evil.example:9380",
            "hotring.example.com.evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.local.example:80",
            "[evil.example]",
            "[::1",
            "evil.example.",
        ] {
            assert!(!is_name(name, &hosts), "{name}");
        }
    }

    #[test]
    fn a_token_is_shown_once() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            shown(&headers).map(<[u8]>::to_vec)
        };
        assert_eq!(of(&["Bearer secret"]), Some(b"secret".to_vec()));
        assert_eq!(of(&["bearer  secret "]), Some(b"secret".to_vec()));
        for wrong in [&[][..], &["secret"], &["Basic secret"], &["Bearer"], &["Bearer secret", "Bearer secret"]] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }
}
