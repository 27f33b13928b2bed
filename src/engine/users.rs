//! Who a session is: its user, and what that user may do.

#![expect(clippy::arithmetic_side_effects, reason = "counters of 64 bits")]

use super::local::not_authenticated;
use super::port::Port;
use super::special::mode;
use super::stream::Begun;
use super::{Engine, SessionId};
use crate::acl::{Barred, DEFAULT, Denied, User};
use crate::command::{self, Spec};
use crate::error::{Cause, WRONG_PASS};
use crate::metrics::Closed;
use crate::resp::{Request, arriving, write};
use std::sync::Arc;

impl Engine {
    /// AUTH: makes the session this user's.
    ///
    /// # Errors
    /// The error as Redis words it, with the cause it is counted under; the session is then whose it was.
    pub(super) fn log_in(
        &mut self,
        id: SessionId,
        name: Option<&[u8]>,
        password: &[u8],
    ) -> Result<(), (Cause, Vec<u8>)> {
        let Some(session) = self.sessions.get(id as usize) else { return Ok(()) };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return Ok(()) };
        if name.is_none() && pool.config.users.default_has_no_password() {
            return Err((
                Cause::Syntax,
                b"ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                  configuration is correct?"
                    .into(),
            ));
        }
        match pool.config.users.authenticate(name, password) {
            Some(user) => {
                let own = session.special.as_ref().and_then(|special| special.seat.as_ref());
                if !own.is_some_and(|seat| user.has_seat(seat)) {
                    let Some(seat) = user.ask_seat() else { return Err(self.no_seat(id, &user)) };
                    if let Some(session) = self.sessions.get_mut(id as usize) {
                        session.special().seat = Some(seat);
                    }
                }
                self.become_user(id, Some(user));
                Ok(())
            }
            None => {
                let known = pool.config.users.get(name.unwrap_or(DEFAULT.as_bytes()));
                let known = known.map_or("-", |user| user.name()).to_owned();
                self.note_failed_login(id, &known, "password");
                self.count_failure(id);
                Err((Cause::Auth, WRONG_PASS.into()))
            }
        }
    }

    /// The user has as many sessions as it may have: this one ends, as one that is too many for its pool.
    fn no_seat(&mut self, id: SessionId, user: &User) -> (Cause, Vec<u8>) {
        self.note_failed_login(id, user.name(), "connections");
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.closing = true;
        }
        let most = user.connections().unwrap_or_default();
        let text = format!("ERR max number of clients of user '{}' reached ('connections: {most}')", user.name());
        (Cause::MaxClients, text.into_bytes())
    }

    /// Ends a session that has sent too many wrong passwords.
    fn count_failure(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let Some(pool) = self.pools.get_mut(usize::from(session.pool)) else { return };
        let special = session.special();
        special.failures = special.failures.saturating_add(1);
        if pool.config.auth_failures.is_some_and(|most| special.failures >= most) {
            session.closing = true;
            pool.counts.client_closed[Closed::WrongPasswords] += 1;
        }
    }

    /// What a session is before it says who it is.
    pub(super) fn be_nobody(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id as usize) else { return };
        let user = self.pools.get(usize::from(session.pool)).and_then(|pool| pool.config.users.opening());
        self.become_user(id, user);
    }

    pub(super) fn become_user(&mut self, id: SessionId, user: Option<Arc<User>>) {
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        session.authenticated = user.is_some();
        session.mode &= !mode::GUARDED;
        let prefix = user.as_ref().and_then(|user| user.prefix());
        if session.set_prefix(prefix) {
            // What it listens to is another's now.
            self.stop_listening(id);
        }
        let Some(session) = self.sessions.get_mut(id as usize) else { return };
        let common = |user: &Arc<User>| user.is_unlimited() && user.name() == DEFAULT && user.connections().is_none();
        let plain = user.as_ref().is_none_or(common);
        let guarded = self.pools.get(usize::from(session.pool)).is_some_and(|pool| pool.config.guard.is_some());
        if guarded || prefix.is_some() || user.as_ref().is_some_and(|user| !user.is_unlimited()) {
            session.mode |= mode::GUARDED;
        }
        if !plain {
            let special = session.special();
            special.seat = user.as_ref().map(|user| user.seat(special.seat.take()));
            special.user = user;
        } else if let Some(special) = &mut session.special {
            (special.user, special.seat) = (None, None);
        }
        self.limit_session(id);
    }

    /// Whether the session's user may do this, and anybody in its pool; if not it has been told.
    pub(super) fn may(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>) -> bool {
        let Some(session) = self.sessions.get(id as usize) else { return true };
        if session.is_tenant() {
            // Its user was asked of the request as it came.
            if let Some(against) = self.tenant.take_against() {
                self.turn_down(id, request, against);
                return false;
            }
        } else if let Some(user) = session.special.as_ref().and_then(|special| special.user.as_ref())
            && let Err(denied) = user.check(spec, request)
        {
            self.deny(id, spec, request, denied);
            return false;
        }
        let guard = self.pools.get(usize::from(session.pool)).and_then(|pool| pool.config.guard.as_ref());
        let Some(Err(barred)) = guard.map(|guard| guard.check(spec, request)) else { return true };
        self.bar(id, spec, Some(request), barred);
        false
    }

    /// Tells a session that its user may not do this.
    #[cold]
    pub(super) fn deny(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>, denied: Denied) {
        let mut text = Vec::new();
        denied.write(spec, &mut text);
        self.note_denied(id, spec, Some(request), "rules");
        self.answer_with(id, Some(Cause::Denied), |out| write::error(out, &text));
    }

    /// Tells a session what is against its request.
    #[cold]
    fn bar(&mut self, id: SessionId, spec: &'static Spec, request: Option<&Request<'_>>, barred: Barred) {
        self.note_denied(id, spec, request, barred.by());
        let cause = match barred {
            Barred::Command => Cause::Denied,
            Barred::Write => Cause::ReadOnly,
            Barred::Key { .. } | Barred::Value { .. } => Cause::TooLong,
        };
        let mut text = Vec::new();
        barred.write(spec, &mut text);
        self.answer_with(id, Some(cause), |out| write::error(out, &text));
    }

    /// Looks at the front of a long request of a session whose requests may be refused. Tells what is to be done with it; `None`
    /// where nothing is against it, whatever may come behind it.
    pub(super) fn look_at_front(&mut self, id: SessionId, bytes: &[u8], port: &mut impl Port) -> Option<Begun> {
        let held = Some(Begun::Not);
        let Some(session) = self.sessions.get_mut(id as usize) else { return held };
        let Some(front) = arriving(bytes, &session.resume).filter(|front| front.expected > bytes.len() as u64) else {
            return held;
        };
        let Some(spec) = command::lookup(front.name) else { return held };
        let user = session.special.as_ref().and_then(|special| special.user.as_ref());
        // The rules of a user are about whole requests.
        let limited = user.is_some_and(|user| !user.is_unlimited());
        let guard = self.pools.get(usize::from(session.pool)).and_then(|pool| pool.config.guard.as_ref());
        let before = session.prefix().map_or(0, |prefix| prefix.plain().len());
        match guard.map(|guard| guard.check_front(spec, &front, before as u64)) {
            // A prefix alone is none.
            None if session.is_tenant() && !limited => None,
            None | Some(None) => held,
            Some(Some(Ok(()))) if limited => held,
            Some(Some(Ok(()))) => None,
            Some(Some(Err(_))) if session.open_slots() > 0 => {
                session.paused = true;
                session.mode |= mode::WAITING;
                Some(Begun::Wait)
            }
            Some(Some(Err(barred))) => {
                self.read_away_from(id, spec, front.expected, front.more, bytes);
                self.bar(id, spec, None, barred);
                self.spoil(id, port);
                Some(Begun::Taken)
            }
        }
    }

    /// The name of the session's user.
    pub(super) fn user_name(&self, id: SessionId) -> &str {
        let special = self.sessions.get(self.trunk_of(id) as usize).and_then(|session| session.special.as_ref());
        special.and_then(|special| special.user.as_ref()).map_or(DEFAULT, |user| user.name())
    }

    /// The error for a session that has not said who it is.
    pub(super) fn tell_to_log_in(&mut self, id: SessionId) {
        self.answer_with(id, Some(Cause::Auth), not_authenticated);
    }
}
