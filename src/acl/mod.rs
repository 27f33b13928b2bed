//! Who may do what: the users of a pool, with the rules, the words and the meaning of Redis' ACL.
//!
//! Promises: what [`User::check`] says of a request is what redis-server 7.0 says of it under the same rules (a test
//! compares thousands of pairs with a real one), or "no" where hotring knows less than Redis; a check neither allocates
//! nor walks the arguments unless keys or channels are limited; no time tells how much of a password was right, and no
//! message shows one.
//!
//! Does not: know sessions (who has logged in as whom is the engine's), know selectors (`(...)`) or load Redis' ACL files.
//! Rules are read when the configuration is; nothing changes them later.

mod access;
mod commands;
mod guard;
mod headcount;
mod password;
mod prefix;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::command::{self, Keys, Spec, flag};
use crate::glob;
use crate::resp::Request;
use crate::units::{Expected, Secret};

pub use guard::{Barred, Denials, Guard, denial};
pub use headcount::{Headcount, Seat};
use password::Digest;
pub use prefix::{Prefix, check_prefix};
use rules::Rules;

/// The name of the user that a session is before it says otherwise, and that `AUTH password` means.
pub const DEFAULT: &str = "default";

/// A user as the configuration has it: words that are checked, but still words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What `AUTH` calls it.
    pub name: String,
    /// Each opens the door, so that one can be replaced by another: plain, or the SHA-256 of one in 64 hexadecimal digits
    /// behind `sha256:` or `#`.
    pub passwords: Vec<Secret>,
    /// Any password opens the door; `default` needs not even send one.
    pub nopass: bool,
    /// Redis' rules with blanks between them, such as `+@all -@dangerous ~app:* &*`.
    pub rules: String,
    /// Whatever the rules say, commands that may write are denied.
    pub read_only: bool,
    /// Sessions that it may have at a time; `None` is as many as the pool may.
    pub connections: Option<u32>,
    /// How all its keys begin on the servers; an empty one leaves them as they are, none is the pool's.
    pub prefix: Option<String>,
}

/// What is wrong with one rule, or with a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What was read; never a password.
    pub read: String,
    /// What was expected.
    pub expected: Expected,
}

/// Why a request is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The user may not run the command.
    Command,
    /// One of the keys is none of the user's, or not for what the command does with it.
    Key,
    /// One of the channels is none of the user's.
    Channel,
}

impl Denied {
    /// Appends the error's text as redis-server 7.0 words it, without the `-` before and the line break after it. `spec` is
    /// what [`command::identify`] gave.
    pub fn write(self, spec: &Spec, out: &mut Vec<u8>) {
        if spec.name == "exec" {
            // An EXEC that is denied ends the transaction all the same.
            out.extend(b"EXECABORT Transaction discarded because of: ");
        }
        out.extend(b"NOPERM this user has no permissions to ");
        match self {
            Denied::Command => {
                out.extend(b"run the '");
                out.extend(spec.name.as_bytes());
                out.extend(b"' command");
            }
            Denied::Key => out.extend(b"access one of the keys used as arguments"),
            Denied::Channel => out.extend(b"access one of the channels used as arguments"),
        }
    }
}

/// The users of a pool. Immutable: sessions and workers share it, or the users in it, behind an `Arc`.
///
/// For whoever carries requests: a new session is [`Users::opening`], or nobody; nobody may only send commands with
/// Redis' `no_auth` flag. AUTH and `HELLO ... AUTH` ask [`Users::authenticate`], RESET goes back to [`Users::opening`].
/// Each request that [`command::identify`] knows is put to [`User::check`] before anything else is done with it.
#[derive(Clone, Debug, Default)]
pub struct Users(BTreeMap<Box<[u8]>, Arc<User>>);

impl Users {
    /// The users of these accounts. Where none of them is `default`, it is one that may do everything, with `password` or
    /// with none: as in Redis, users alone do not close the door.
    ///
    /// # Errors
    /// All that is wrong with rules and passwords; nothing, if they come from a configuration.
    pub fn new(accounts: &[Account], password: Option<&Secret>) -> Result<Self, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut default = User::default_open();
        if let Some(password) = password {
            default.nopass = false;
            default.passwords.push(Digest::of(password.expose().as_bytes()));
        }
        let mut users = BTreeMap::from([(DEFAULT.as_bytes().into(), Arc::new(default))]);
        for account in accounts {
            match User::new(account) {
                Ok(user) => drop(users.insert(account.name.as_bytes().into(), Arc::new(user))),
                Err(more) => wrong.extend(more),
            }
        }
        if wrong.is_empty() { Ok(Self(users)) } else { Err(wrong) }
    }

    /// The same users, and a pool whose keys begin so on the servers: those of users without a prefix of their own.
    #[must_use]
    pub fn with_prefix(mut self, prefix: &str) -> Self {
        let prefix = Prefix::new(prefix).map(Arc::new);
        for user in self.0.values_mut().filter(|user| user.prefix.is_none()) {
            Arc::make_mut(user).prefix = Some(prefix.clone());
        }
        self
    }

    /// The user of that name, `default` without one, if `password` is one of its own and it is not off. The text for
    /// `None` is [`crate::error::WRONG_PASS`]. Takes as long for a user that does not exist.
    pub fn authenticate(&self, name: Option<&[u8]>, password: &[u8]) -> Option<Arc<User>> {
        let given = Digest::of(password);
        let user = self.0.get(name.unwrap_or(DEFAULT.as_bytes()))?;
        user.opens_with(&given).then(|| Arc::clone(user))
    }

    /// The user of a session that has not sent AUTH: `default`, if it needs no password and is not off.
    pub fn opening(&self) -> Option<Arc<User>> {
        self.0.get(DEFAULT.as_bytes()).filter(|user| user.enabled && user.nopass).cloned()
    }

    /// Whether `default` needs no password, off or not: `AUTH password` is an error then.
    pub fn default_has_no_password(&self) -> bool {
        self.0.get(DEFAULT.as_bytes()).is_some_and(|user| user.nopass)
    }

    /// The same users, whose sessions are counted there: with those of other workers, and of the users of the same names before.
    #[must_use]
    pub fn counted_in(mut self, heads: &Headcount) -> Self {
        for user in self.0.values_mut() {
            let count = heads.of(&user.name);
            Arc::make_mut(user).count = count;
        }
        self
    }

    /// All users, by name.
    pub fn all(&self) -> impl Iterator<Item = &User> {
        self.0.values().map(|user| &**user)
    }

    /// The user of that name, whether it is off or not.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.0.get(name)
    }
}

/// A user, its rules compiled.
#[derive(Clone, Debug)]
pub struct User {
    name: Box<str>,
    enabled: bool,
    nopass: bool,
    passwords: Vec<Digest>,
    rules: Rules,
    /// Nothing is denied: one look is enough.
    unlimited: bool,
    /// Sessions that it may have.
    connections: Option<u32>,
    /// Sessions that it has, over all workers.
    count: Arc<AtomicUsize>,
    /// `None`: nobody has said whether there is one.
    prefix: Option<Option<Arc<Prefix>>>,
}

impl User {
    /// Compiles a user.
    ///
    /// # Errors
    /// All that is wrong with its rules and passwords.
    pub fn new(account: &Account) -> Result<Self, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut passwords = Vec::new();
        for secret in &account.passwords {
            match Digest::written(secret.expose()) {
                Ok(digest) => passwords.push(digest),
                Err(expected) => wrong.push(Wrong { read: "a password".to_owned(), expected }),
            }
        }
        let (mut rules, more) = Rules::read(&account.rules);
        wrong.extend(more);
        if !wrong.is_empty() {
            return Err(wrong);
        }
        if account.read_only {
            rules.commands.deny_writes();
        }
        Ok(Self {
            name: account.name.as_str().into(),
            enabled: rules.enabled,
            nopass: account.nopass,
            passwords,
            unlimited: rules.commands.are_all() && rules.keys.is_none() && rules.channels.is_none(),
            rules,
            connections: account.connections,
            count: Arc::default(),
            prefix: account.prefix.as_deref().map(|text| Prefix::new(text).map(Arc::new)),
        })
    }

    /// `default` as Redis has it where nobody said anything: on, without a password, free to do everything.
    pub fn default_open() -> Self {
        let (rules, _) = Rules::read("allcommands allkeys allchannels");
        let (name, passwords) = (DEFAULT.into(), Vec::new());
        let (connections, count) = (None, Arc::default());
        Self { name, enabled: true, nopass: true, passwords, rules, unlimited: true, connections, count, prefix: None }
    }

    /// Sessions that it may have at a time.
    pub fn connections(&self) -> Option<u32> {
        self.connections
    }

    /// Sessions that it has, as far as they are counted: those of whoever may do everything and has no bound are not.
    pub fn sessions(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// A seat for a session that has logged in as it; `None` where it has as many sessions as it may have.
    pub fn ask_seat(&self) -> Option<Seat> {
        match self.connections {
            Some(most) => Seat::ask(&self.count, most as usize),
            None => Some(Seat::take(&self.count)),
        }
    }

    /// The seat of a session that is this user's, whether there is room or not: the one that it has, if that is it.
    pub fn seat(&self, has: Option<Seat>) -> Seat {
        has.filter(|seat| self.has_seat(seat)).unwrap_or_else(|| Seat::take(&self.count))
    }

    /// Whether a seat is one of its own.
    pub fn has_seat(&self, seat: &Seat) -> bool {
        seat.is_of(&self.count)
    }

    /// Its name, as `ACL WHOAMI` says it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How all its keys begin on the servers.
    pub fn prefix(&self) -> Option<&Arc<Prefix>> {
        self.prefix.as_ref()?.as_ref()
    }

    /// Whether it may be logged in as.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether nothing is ever denied to it.
    pub fn is_unlimited(&self) -> bool {
        self.unlimited
    }

    /// Whether the user may send this request. `spec` is what [`command::identify`] gave.
    ///
    /// A script is judged by the keys it declares. What it calls is not seen here: Redis holds the calls of a script to the
    /// rules of its caller too, hotring's server holds them to those of hotring's own user. A user that must not get around
    /// its rules is denied `@scripting`. A request so malformed that its keys cannot be told (see
    /// [`command::keys`]) is let through to be answered with its own error; it must not be forwarded.
    ///
    /// Limits: `%R~` and `%W~` are exact for the commands of Redis 7.0. For later ones a write needs both, a read `%R~`,
    /// which may deny more than the server would. That Redis denies BY and GET of SORT to whoever may not read all keys is
    /// not done here, since hotring refuses patterns to everyone.
    ///
    /// # Errors
    /// What is denied; [`Denied::write`] has the words.
    #[inline]
    pub fn check(&self, spec: &'static Spec, request: &Request<'_>) -> Result<(), Denied> {
        if self.unlimited { Ok(()) } else { self.check_rules(spec.leaf(request), request) }
    }

    fn check_rules(&self, spec: &Spec, request: &Request<'_>) -> Result<(), Denied> {
        if spec.flags & flag::NO_AUTH == 0 && !self.rules.commands.allow(spec, request) {
            return Err(Denied::Command);
        }
        if spec.flags & flag::PUBSUB != 0 {
            // Channels of sharded publish and subscribe are keys to a ring, but not to a rule.
            return self.check_channels(spec, request);
        }
        let Some(patterns) = &self.rules.keys else { return Ok(()) };
        if matches!(spec.keys, Keys::None) {
            return Ok(());
        }
        let mut needs = access::needs(spec, request);
        let mut allowed = true;
        // Without keys, or with wrong ones, there is nothing to deny.
        let _ = command::each_key(spec, request, &mut |_, key| {
            let needed = needs.next();
            allowed = allowed && patterns.iter().any(|p| p.access & needed == needed && glob::matches(&p.glob, key));
        });
        if allowed { Ok(()) } else { Err(Denied::Key) }
    }

    fn check_channels(&self, spec: &Spec, request: &Request<'_>) -> Result<(), Denied> {
        let Some(patterns) = &self.rules.channels else { return Ok(()) };
        let (count, literal) = match spec.name {
            "publish" | "spublish" => (1, false),
            "subscribe" | "ssubscribe" => (usize::MAX, false),
            // A pattern reaches whatever it matches, so the rule must be the very same.
            "psubscribe" => (usize::MAX, true),
            // Leaving a channel, and asking for numbers, is free.
            _ => return Ok(()),
        };
        let allowed =
            |channel: &[u8]| patterns.iter().any(|p| if literal { **p == *channel } else { glob::matches(p, channel) });
        if request.args().skip(1).take(count).all(allowed) { Ok(()) } else { Err(Denied::Channel) }
    }

    /// Whether the password of this digest logs in. All of the user's passwords are looked at, whichever fits.
    fn opens_with(&self, given: &Digest) -> bool {
        let fits = self.passwords.iter().fold(false, |fits, own| fits | own.is(given));
        self.enabled && (fits | self.nopass)
    }
}

/// Checks the text of rules without a user to have them.
///
/// # Errors
/// All rules that are none.
pub fn check_rules(text: &str) -> Result<(), Vec<Wrong>> {
    let (_, wrong) = Rules::read(text);
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Checks the form of a password, see [`Account::passwords`].
///
/// # Errors
/// It announces a hash that is none.
pub fn check_password(secret: &Secret) -> Result<(), Expected> {
    Digest::written(secret.expose()).map(drop)
}

#[cfg(test)]
mod tests;
