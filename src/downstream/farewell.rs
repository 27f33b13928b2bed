//! Tells the log of sessions that hotring closed, and of clients that it did not let in: seldom, and how many, since a thousand may be closed at once.

use crate::metrics::{Closed, Label, PoolCounts, TlsFailure};
use crate::stages::Micros;

/// Least time between two lines of a pool, in microseconds.
const SELDOM: Micros = 10_000_000;

/// What a pool has not told yet.
#[derive(Debug, Default)]
pub struct Farewell {
    closed: [u64; Closed::COUNT],
    full: u64,
    /// TLS handshakes that failed.
    unshaken: [u64; TlsFailure::COUNT],
    next: Micros,
}

impl Farewell {
    /// Takes what was counted since the last time, before it is folded; says it if it is time to.
    pub fn note(&mut self, pool: &str, counts: &PoolCounts, now: Micros) {
        for (closed, why) in self.closed.iter_mut().zip(Closed::ALL) {
            *closed = closed.saturating_add(counts.client_closed[*why]);
        }
        self.full = self.full.saturating_add(counts.client_output_limit_kills);
        for (unshaken, why) in self.unshaken.iter_mut().zip(TlsFailure::ALL) {
            *unshaken = unshaken.saturating_add(counts.client_tls_failures[*why]);
        }
        let mut all = self.closed.iter().chain(&self.unshaken);
        if now < self.next || (self.full == 0 && all.all(|&count| count == 0)) {
            return;
        }
        self.next = now.saturating_add(SELDOM);
        let [memory, unread, idle, half_sent, no_auth, wrong_passwords] = std::mem::take(&mut self.closed);
        let full = std::mem::take(&mut self.full);
        if [memory, unread, full] != [0; 3] {
            tracing::warn!(
                pool,
                max_output = full,
                max_output_soft = unread,
                max_memory = memory,
                "closed clients that did not read their replies or held too much, as many as each bound says"
            );
        }
        if wrong_passwords > 0 {
            tracing::warn!(
                pool,
                clients = wrong_passwords,
                "closed clients that sent max_auth_failures wrong passwords"
            );
        }
        let unshaken = std::mem::take(&mut self.unshaken);
        if unshaken.iter().any(|&count| count > 0) {
            let told = unshaken.iter().zip(TlsFailure::ALL).filter(|(count, _)| **count > 0);
            let told: Vec<String> = told.map(|(count, why)| format!("{} {count}", why.as_str())).collect();
            tracing::warn!(
                pool,
                why = told.join(", "),
                "TLS handshakes of clients failed; `log.level: debug` tells each"
            );
        }
        if [idle, half_sent, no_auth] != [0; 3] {
            tracing::info!(
                pool,
                client_idle_timeout = idle,
                request_timeout = half_sent,
                auth_timeout = no_auth,
                "closed clients that stood still, as many as each timeout says"
            );
        }
    }
}
