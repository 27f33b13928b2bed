//! The values of `tracing` and `access_log`: what is told of sampled requests, and to whom.
//!
//! Promises: every number is within its bounds. Where the file says nothing of the collector or the service, OpenTelemetry's
//! environment variables do: `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_ENDPOINT`,
//! `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`. They alone turn nothing on.

use super::keys::Place;
use super::problems::quoted as told;
use super::text::quoted;
use super::written::{Fields, flag, join, scalar, secret};
use crate::engine::samples::{ALL, Wanted};
use crate::traces::config::{LOGGED, TRACED, pairs};
use crate::traces::{AccessLog, Endpoint, To, Tracing};
use crate::units::{Expected, MASK, Millis, Secret};
use std::time::Duration;

impl Fields<'_, '_> {
    /// Which requests become spans, and where those go; `None` where the key is not there.
    pub(super) fn tracing(&mut self) -> Option<Tracing> {
        let mut fields = self.fields("tracing", Place::Tracing)?;
        let endpoint = fields.value("endpoint", str::parse).map(|written| written.value);
        let headers = fields.headers();
        let service_name = fields.value("service_name", service).map(|written| written.value);
        let wanted = fields.sampled(TRACED);
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let mut resource = env("OTEL_RESOURCE_ATTRIBUTES").map_or_else(Vec::new, |text| pairs(&text));
        let named = resource.iter().position(|(key, _)| key == "service.name").map(|at| resource.swap_remove(at).1);
        Some(Tracing {
            endpoint: endpoint.or_else(|| from_env(env)).unwrap_or_default(),
            headers: headers.unwrap_or_else(|| {
                let pairs = env("OTEL_EXPORTER_OTLP_HEADERS").map_or_else(Vec::new, |text| pairs(&text));
                let pairs = pairs.into_iter().filter(|(name, value)| header(name).is_ok() && is_value(value));
                pairs.map(|(name, value)| (name, Secret::new(value))).collect()
            }),
            service_name: service_name
                .or_else(|| env("OTEL_SERVICE_NAME"))
                .or(named)
                .unwrap_or_else(|| "hotring".into()),
            resource,
            wanted,
        })
    }

    /// Which requests become lines of the log of accesses; `None` where the key is not there.
    pub(super) fn access_log(&mut self) -> Option<AccessLog> {
        let mut fields = self.fields("access_log", Place::AccessLog)?;
        let to: To = fields.value("to", str::parse).map(|written| written.value).unwrap_or_default();
        Some(AccessLog { to, wanted: fields.sampled(LOGGED) })
    }

    fn sampled(&mut self, share: u32) -> Wanted {
        let slow = self.value("slow", |text| match text {
            "off" => Ok(None),
            _ => text
                .parse()
                .map(|span: Millis| Some(Duration::from(span)))
                .map_err(|_| Expected::new("a duration such as `10ms`, or `off`")),
        });
        Wanted {
            share: self.value("sample", millionths).map_or(share, |written| written.value),
            slow: slow.and_then(|written| written.value),
            keys: self.value("keys", flag).is_some_and(|written| written.value),
        }
    }

    fn headers(&mut self) -> Option<Vec<(String, Secret)>> {
        let node = self.get("headers")?;
        let key = join(&self.key, "headers");
        let Some(entries) = node.entries().filter(|entries| !entries.is_empty()) else {
            // It may be the value alone, which is not for everybody's eyes.
            self.report.unfit_secret(node, &key, &Expected::new("a map from names of headers to their values"));
            return None;
        };
        super::written::refuse_twice(entries, &key, self.report);
        let mut headers = Vec::new();
        for (name, value) in entries {
            let Some(name) = scalar(name, &key, self.report, header) else { continue };
            let key = join(&key, &name.value);
            let Some(value) = secret(value, &key, self.report) else { continue };
            if is_value(value.value.expose()) {
                headers.push((name.value, value.value));
            } else {
                self.report.add(value.at, key, "has a character that no header may have");
            }
        }
        Some(headers)
    }
}

/// Where the environment says the collector is, if it says so in a way that can be meant.
fn from_env(env: impl Fn(&str) -> Option<String>) -> Option<Endpoint> {
    let parsed = |name: &str| env(name)?.trim().parse::<Endpoint>().ok();
    parsed("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| parsed("OTEL_EXPORTER_OTLP_ENDPOINT").map(Endpoint::below))
}

fn service(text: &str) -> Result<String, Expected> {
    let fits = !text.is_empty() && text.len() <= 255 && !text.contains(char::is_control);
    fits.then(|| text.to_owned()).ok_or_else(|| Expected::new("a name of 1 to 255 characters"))
}

fn header(text: &str) -> Result<String, Expected> {
    let part = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    // These say what is sent, and how.
    let own = ["host", "content-type", "content-length", "connection", "transfer-encoding", "user-agent"];
    if text.is_empty() || !text.bytes().all(part) {
        return Err(Expected::new("the name of a header such as `authorization`"));
    }
    match own.iter().find(|own| text.eq_ignore_ascii_case(own)) {
        Some(own) => Err(Expected::new(format!("a header other than {}, which hotring sends itself", told(own)))),
        None => Ok(text.to_owned()),
    }
}

fn is_value(text: &str) -> bool {
    text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
}

/// A number from 0 to 1 of at most six places behind its point, in millionths.
fn millionths(text: &str) -> Result<u32, Expected> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
    let read = |whole: &str, part: &str| {
        let part: u32 = format!("{part:0<6}").parse().ok()?;
        whole.parse::<u32>().ok()?.checked_mul(ALL)?.checked_add(part)
    };
    let share = if digits(whole) && digits(part) { read(whole, part) } else { None };
    share
        .filter(|share| *share <= ALL)
        .ok_or_else(|| Expected::new("a number from 0 to 1 such as `0.001`, of at most six places"))
}

fn share(millionths: u32) -> String {
    let text = format!("{}.{:06}", millionths / ALL, millionths % ALL);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What the configuration says, a line each; secrets masked.
pub(super) fn lines(tracing: Option<&Tracing>, log: Option<&AccessLog>) -> Vec<String> {
    let wanted = |wanted: &Wanted| {
        let slow = wanted.slow.map_or("off".to_owned(), |span| Millis::from(span).to_string());
        [format!("  sample: {}", share(wanted.share)), format!("  slow: {slow}"), format!("  keys: {}", wanted.keys)]
    };
    let mut lines = Vec::new();
    if let Some(tracing) = tracing {
        lines.push("tracing:".to_owned());
        lines.push(format!("  endpoint: {}", quoted(&tracing.endpoint.to_string())));
        lines.push(format!("  service_name: {}", quoted(&tracing.service_name)));
        lines.extend(wanted(&tracing.wanted));
        if !tracing.headers.is_empty() {
            lines.push("  headers:".to_owned());
        }
        let masked = tracing.headers.iter().map(|(name, _)| format!("    {}: {}", quoted(name), quoted(MASK)));
        lines.extend(masked);
    }
    if let Some(log) = log {
        lines.push("access_log:".to_owned());
        lines.push(format!("  to: {}", quoted(&log.to.to_string())));
        lines.extend(wanted(&log.wanted));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_millionths() {
        for (text, read, written) in [
            ("0", 0, "0"),
            ("1", ALL, "1"),
            ("1.0", ALL, "1"),
            ("0.001", 1000, "0.001"),
            ("0.000001", 1, "0.000001"),
            ("00.50", 500_000, "0.5"),
        ] {
            assert_eq!(millionths(text).ok(), Some(read), "{text}");
            assert_eq!(share(read), written);
        }
        for text in ["", ".5", "0.", "1.000001", "2", "-0.5", "1%", "0.0000001", "1e-1", "9999999"] {
            assert!(millionths(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_environment_says_where_the_collector_is() {
        let of = |pairs: &'static [(&str, &str)]| {
            let env = move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string());
            from_env(env).map(|endpoint| endpoint.to_string())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1")]).as_deref(), Some("http://a:1/v1/traces"));
        let both = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b:2/x"),
        ]);
        assert_eq!(both.as_deref(), Some("http://b:2/x"));
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://a:1")]), None);
    }
}
