//! How an accepted connection becomes a session: at once, or, where apps speak TLS, after the handshake.
//!
//! Promises: a handshake ends within `handshake_timeout`, one way or the other; meanwhile it has its place among the pool's clients
//! (`client_connections`), and the bytes that it may make hotring hold are counted. Certificates are those of the moment at which the
//! connection was accepted. One that fails costs its own connection, and many at once hold up nobody who is there already ([`super::turns`]).

use super::turns::turn;
use super::{Place, Whose};
use crate::contain::contained;
use crate::downstream::config::Manner;
use crate::downstream::session::Session;
use crate::encrypted::Encrypted;
use crate::hub::{Hub, Socket, refused};
use crate::live::Live;
use crate::metrics::{Label as _, TlsFailure};
use crate::tls::session::HELD;
use crate::tls::{Refused, Server};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What runs, as the worker knows it.
type Running = Rc<RefCell<Arc<Live>>>;

/// Begins to serve an app that has connected.
pub(super) fn welcome(hub: &Rc<Hub>, live: &Running, stream: Socket, whose: Whose, place: Place) {
    let Whose { pool, manner } = whose;
    let strict = manner == Manner::Strict;
    match (manner, stream) {
        (Manner::Encrypted, Socket::Tcp(stream)) => {
            let tls = live.borrow().pools.get(usize::from(pool)).and_then(|pool| pool.pool.downstream.tls.clone());
            // A pool that speaks no TLS any more has no such listener either: this one came just before.
            let Some(tls) = tls else { return };
            let guest = Guest { hub: Rc::clone(hub), pool, done: false };
            tokio::task::spawn_local(encrypted(guest, Rc::clone(live), stream, tls, place));
        }
        (Manner::Encrypted, _) => {}
        (Manner::Usual | Manner::Strict, stream) => {
            tokio::task::spawn_local(Session::new(Rc::clone(hub), stream, pool, strict, place));
        }
    }
}

async fn encrypted(mut guest: Guest, live: Running, stream: TcpStream, tls: Server, place: Place) {
    let hub = Rc::clone(&guest.hub);
    guest.came();
    let since = hub.now();
    let peer = stream.peer_addr();
    let shaking = async {
        let mut socket = Encrypted::of_app(stream, &tls)?;
        socket.shake_hands_in_turn(turn).await?;
        Ok(socket)
    };
    let shaken = contained(timeout(tls.settings().handshake_timeout, shaking)).await;
    let took = u32::try_from(hub.now().saturating_sub(since)).unwrap_or(u32::MAX);
    let socket = match shaken {
        Ok(Ok(Ok(socket))) => socket,
        Ok(Ok(Err(error))) => return guest.refuse(peer.ok(), refused(&error).unwrap_or(Refused::CLOSED)),
        Ok(Err(_)) => return guest.refuse(peer.ok(), Refused::SLOW),
        Err(message) => {
            hub.panicked("a TLS handshake", &message);
            return guest.refuse(peer.ok(), Refused::OWN);
        }
    };
    guest.stay(took);
    let pool = guest.pool;
    let session = Session::new(Rc::clone(&hub), Socket::Tls(Box::new(socket)), pool, false, place);
    if !live.borrow().pools.get(usize::from(pool)).is_some_and(|pool| pool.listed) {
        // Its pool has left while they shook hands.
        hub.with(|engine, sockets| engine.finish_pool(pool, sockets));
    }
    session.await;
}

/// One who speaks TLS, in the counts.
struct Guest {
    hub: Rc<Hub>,
    pool: u16,
    /// Whether the handshake is over.
    done: bool,
}

impl Guest {
    fn came(&self) {
        let mut engine = self.hub.engine();
        engine.reply_buffer(0, HELD);
        if let Some(counts) = engine.pool_counts(self.pool) {
            counts.client_tls_handshaking += 1;
        }
    }

    fn stay(&mut self, took: u32) {
        self.done = true;
        if let Some(counts) = self.hub.engine().pool_counts(self.pool) {
            counts.client_tls_handshaking -= 1;
            counts.client_tls_connections += 1;
            counts.client_tls_handshakes += 1;
            counts.client_tls_duration.record(took);
        }
    }

    /// It was not let in: each is told to those who look closely, and all of them now and then ([`crate::downstream::farewell`]).
    fn refuse(self, peer: Option<std::net::SocketAddr>, refused: Refused) {
        let peer = peer.map_or_else(String::new, |peer| peer.to_string());
        tracing::debug!(client = peer, reason = refused.text, "no TLS handshake");
        let mut engine = self.hub.engine();
        if let Some(counts) = engine.pool_counts(self.pool) {
            counts.client_tls_failures[refused.why] += 1;
        }
        if is_about_a_certificate(refused.why) {
            engine.note_refused_certificate(self.pool, peer, refused.why.as_str());
        }
    }
}

/// Whether that is about who it is, and not about how it speaks.
fn is_about_a_certificate(why: TlsFailure) -> bool {
    use TlsFailure as Why;
    matches!(why, Why::NoCertificate | Why::Expired | Why::UnknownIssuer | Why::WrongName | Why::BadCertificate)
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut engine = self.hub.engine();
        engine.reply_buffer(HELD, 0);
        if let Some(counts) = engine.pool_counts(self.pool) {
            if self.done {
                counts.client_tls_connections -= 1;
            } else {
                counts.client_tls_handshaking -= 1;
            }
        }
    }
}
