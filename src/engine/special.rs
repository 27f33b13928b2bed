//! What few sessions have: a name, a database, a transaction, a connection of their own.
//!
//! Kept in a box of its own so that the many that have none of it stay small, and behind one byte of the session
//! ([`mode`]) so that their requests are asked one question only.

use super::LineId;
use super::branches::{Branch, Branches};
use super::channels::Name;
use super::fault::Drawn;
use super::stream::Stream;
use super::tenant::Tenant;
use super::window::Session;
use crate::acl::{Seat, User};
use std::collections::HashSet;
use std::sync::Arc;

/// In what a session differs from most, as bits of [`Session::mode`]. A session without any takes the short way through
/// `Engine::request`.
pub mod mode {
    /// It has a connection of its own, or will have one: a transaction, a watch, a blocking command.
    pub const PINNED: u8 = 1;
    /// It waits until all its open requests are answered before the next one is looked at.
    pub const WAITING: u8 = 1 << 1;
    /// It is subscribed to channels.
    pub const LISTENING: u8 = 1 << 2;
    /// Some of its replies are not wanted (CLIENT REPLY).
    pub const MUTED: u8 = 1 << 3;
    /// What it may do is limited by its user, by its prefix, or by its pool for everybody.
    pub const GUARDED: u8 = 1 << 4;
    /// A limit may concern its requests ([`super::super::limits`]).
    pub const LIMITED: u8 = 1 << 6;

    /// A long request of it is passed on while it arrives.
    pub const STREAMING: u8 = 1 << 5;

    /// Its pool has commands that are carried aside, shortens times to live or knows which ids exist
    /// (`engine::misses`), or looks for keys where they lived before (`engine::warm`).
    pub const ASIDE: u8 = 1 << 7;

    /// The bits with which a request may have to wait for its turn (`Engine::may_begin`).
    pub const TURNS: u8 = PINNED | LISTENING | ASIDE;

    /// The bits that make a request take the long way.
    pub const LONG_WAY: u8 = PINNED | LISTENING | GUARDED | LIMITED | ASIDE;
}

/// Which replies are not wanted (CLIENT REPLY).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Mute {
    /// All are wanted.
    #[default]
    Nothing,
    /// None is.
    All,
    /// That of this slot and of the next are not.
    After(u32),
    /// That of this slot is not.
    Slot(u32),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Special {
    /// What the app calls its connection (CLIENT SETNAME); empty for none.
    pub name: Vec<u8>,
    /// The name of its library (CLIENT SETINFO).
    pub lib_name: Vec<u8>,
    /// The version of its library.
    pub lib_ver: Vec<u8>,
    /// The database it is on.
    pub db: u16,
    /// Its user, if that is not the one that may do all and needs no password.
    pub user: Option<Arc<User>>,
    /// Its seat among those of that user.
    pub seat: Option<Seat>,
    /// Wrong passwords that it has sent.
    pub failures: u32,
    /// What it has because of its keys' prefix.
    pub tenant: Option<Box<Tenant>>,
    /// A SUBSCRIBE of it waits for shards.
    pub subscribing: bool,
    /// What it is subscribed to.
    pub listens: HashSet<Name>,
    /// How many of them are sharded channels, which are counted by themselves.
    pub sharded: usize,
    /// Which replies it does not want.
    pub mute: Mute,
    /// Its next request waits, or has waited, until its keys are forgotten where they lived before: by which number that is known,
    /// and what [`super::Engine::changes`] said as it began.
    pub forgets: Option<(u32, u64, u32)>,
    /// What was drawn for its next request.
    pub(super) fault: Option<Box<Drawn>>,
    /// What it is to other pools.
    pub branches: Option<Box<Branches>>,
    /// Whose branch it is.
    pub branch: Option<Box<Branch>>,
    /// The request that is passed on while it arrives.
    pub stream: Option<Stream>,
    /// Its own connection.
    pub pin: Option<Pin>,
    /// It has sent MULTI, and neither EXEC nor DISCARD.
    pub multi: bool,
    /// The shard has been sent that MULTI.
    pub sent: bool,
    /// EXEC will be refused.
    pub dirty: bool,
    /// The connection broke under the transaction.
    pub lost: bool,
    /// It watches keys.
    pub watching: bool,
    /// The connection broke that watched keys for it.
    pub watch_lost: bool,
    /// A command that may wait is on its connection.
    pub blocked: bool,
    /// The name of that command.
    pub waits_in: &'static str,
    /// Its connection is given back when the last reply on it is there.
    pub leaving: bool,
    /// Commands of its transaction so far, those that its shard refuses included.
    pub queued: u32,
    /// Commands without keys that wait for the transaction's shard.
    pub held: Vec<u8>,
}

impl Special {
    /// Forgets transaction, watch and connection.
    pub fn leave(&mut self) {
        (self.pin, self.held, self.queued) = (None, Vec::new(), 0);
        // What is still to come of it has nowhere to go.
        if let Some(stream) = &mut self.stream {
            stream.read_away();
        }
        (self.multi, self.sent, self.dirty, self.lost) = (false, false, false, false);
        (self.watching, self.watch_lost, self.blocked, self.leaving) = (false, false, false, false);
    }

    /// The connection broke: what the shard remembered is gone, and must not seem to be there.
    pub fn lost(&mut self) {
        // What was lost before is not found again by losing another connection.
        let watching = (self.watching || self.watch_lost) && !self.leaving;
        let multi = self.multi && !self.leaving;
        let dirty = self.dirty;
        self.leave();
        (self.multi, self.lost, self.dirty) = (multi, multi, multi && dirty);
        self.watch_lost = watching;
    }
}

/// A connection of a session's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The connection.
    pub line: LineId,
    /// The shard it leads to.
    pub shard: u16,
}

impl Session {
    /// Wants all replies, or not.
    pub fn mute(&mut self, mute: Mute) {
        self.special().mute = mute;
        if mute == Mute::Nothing {
            self.mode &= !mode::MUTED;
        } else {
            self.mode |= mode::MUTED;
        }
    }

    /// Whether the reply of a slot, which is there, is not wanted.
    pub fn takes_no(&mut self, slot: u32) -> bool {
        match self.special.as_ref().map(|special| special.mute) {
            Some(Mute::All) => true,
            Some(Mute::After(asking)) => {
                // Whatever is answered first is what asked for it, as all before it was answered.
                self.special().mute = Mute::Slot(asking.wrapping_add(1));
                true
            }
            Some(Mute::Slot(muted)) if muted == slot => {
                self.mute(Mute::Nothing);
                true
            }
            _ => false,
        }
    }

    /// Back on the short way, if nothing is left of a transaction, a watch or a connection of its own.
    pub fn unpin_if_plain(&mut self) {
        let plain = self.special.as_ref().is_none_or(|s| s.pin.is_none() && !s.multi && !s.watching && !s.watch_lost);
        if plain {
            self.mode &= !mode::PINNED;
        }
    }

    /// What is special about it, made if there is nothing yet.
    pub fn special(&mut self) -> &mut Special {
        self.special.get_or_insert_default()
    }

    /// Ends it as soon as it has the replies to all that it has asked for.
    pub fn finish(&mut self) {
        self.closing = true;
        // What waits for something to happen would be waited for in vain, and so would the rest of what is arriving.
        let special = self.special.as_ref();
        self.killed |= special.is_some_and(|special| special.blocked || special.stream.is_some());
    }

    /// Its name; empty for none.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.special.as_ref().map_or(&[], |special| &special.name)
    }

    /// The database it is on, as the app counts them.
    #[must_use]
    pub fn db(&self) -> u16 {
        self.special.as_ref().map_or(0, |special| special.db)
    }
}
