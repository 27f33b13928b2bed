//! Who a session is: its user, and what that user may do.

use super::local::not_authenticated;
use super::special::mode;
use super::{Engine, SessionId};
use crate::acl::{DEFAULT, User};
use crate::command::Spec;
use crate::error::{Cause, WRONG_PASS};
use crate::resp::{Request, write};
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
                self.become_user(id, Some(user));
                Ok(())
            }
            None => Err((Cause::Auth, WRONG_PASS.into())),
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
        let plain = user.as_ref().is_none_or(|user| user.is_unlimited() && user.name() == DEFAULT);
        if user.as_ref().is_some_and(|user| !user.is_unlimited()) {
            session.mode |= mode::GUARDED;
        }
        if !plain {
            session.special().user = user;
        } else if let Some(special) = &mut session.special {
            special.user = None;
        }
        self.limit_session(id);
    }

    /// Whether the session's user may do this; if not it has been told.
    pub(super) fn may(&mut self, id: SessionId, spec: &'static Spec, request: &Request<'_>) -> bool {
        let user = self.sessions.get(id as usize).and_then(|session| session.special.as_ref()?.user.as_ref());
        let Some(Err(denied)) = user.map(|user| user.check(spec, request)) else { return true };
        let mut text = Vec::new();
        denied.write(spec, &mut text);
        self.answer_with(id, Some(Cause::Denied), |out| write::error(out, &text));
        false
    }

    /// The name of the session's user.
    pub(super) fn user_name(&self, id: SessionId) -> &str {
        let special = self.sessions.get(id as usize).and_then(|session| session.special.as_ref());
        special.and_then(|special| special.user.as_ref()).map_or(DEFAULT, |user| user.name())
    }

    /// The error for a session that has not said who it is.
    pub(super) fn tell_to_log_in(&mut self, id: SessionId) {
        self.answer_with(id, Some(Cause::Auth), not_authenticated);
    }
}
