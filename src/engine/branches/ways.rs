//! Where a request of a session whose pool has routes goes, and whether it may go there yet.

use crate::command::{self, Fault, Local, Merge, Need, Spec, Treatment, flag};
use crate::engine::SessionId;
use crate::engine::plan::Apart;
use crate::engine::port::Port;
use crate::engine::special::mode;
use crate::engine::{Engine, Pool};
use crate::error::CROSS_SHARD;
use crate::resp::Request;

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Way {
    /// It is carried out in the session's own pool, or told there what is wrong with it.
    Here,
    /// All of it goes to this pool.
    There(u16),
    /// To the branch that has what a server remembers for the session.
    Bound(SessionId),
    /// As the first of a transaction that names a key, to this pool: the transaction goes with it.
    Moves(u16),
    /// To several pools, each of which gets its keys.
    Split(Merge),
    /// To the session's own pool and all that its routes lead to: what each server has to know, such as scripts.
    All(Merge),
    /// To several, which cannot be.
    Apart,
}

/// Where the keys of a request live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// It names none.
    None,
    /// All in one pool; `None` is the session's own.
    One(Option<u16>),
    Several,
}

impl Engine {
    /// Where a request's keys live. What cannot be told is wrong wherever it goes.
    fn pools_of(&self, number: u16, spec: &Spec, request: &Request<'_>) -> Keys {
        let Some(pool) = self.pools.get(usize::from(number)) else { return Keys::None };
        let mut found = Keys::None;
        let known = command::each_key(spec, request, &mut |_, key| {
            let to = pool.routed(key);
            found = match found {
                Keys::None => Keys::One(to),
                Keys::One(before) if before == to => found,
                _ => Keys::Several,
            };
        });
        if known.is_ok() { found } else { Keys::None }
    }

    /// Where a request goes.
    pub(super) fn way(&self, id: SessionId, named: Result<&'static Spec, &Fault>, request: &Request<'_>) -> Way {
        let Some(session) = self.sessions.get(id as usize) else { return Way::Here };
        let Some(pool) = self.pools.get(usize::from(session.pool)) else { return Way::Here };
        let bound = if session.has_branches() { self.bound_branch(id) } else { None };
        if session.is_branch() || pool.config.routes.is_empty() && bound.is_none() {
            return Way::Here;
        }
        let in_multi = |id: SessionId| {
            let special = self.sessions.get(id as usize).and_then(|session| session.special.as_ref());
            special.is_some_and(|special| special.multi && !special.leaving)
        };
        let multi_there = bound.filter(|&branch| in_multi(branch));
        let Ok(spec) = named else {
            // What is no command spoils a transaction where that is.
            return multi_there.map_or(Way::Here, Way::Bound);
        };
        let treatment = self.treatment(id, spec, request);
        let multi = in_multi(id);
        let names_keys = match treatment {
            // A transaction is told so where it is.
            Treatment::Refuse(_) if multi || multi_there.is_some() => false,
            Treatment::Local(Local::Quit | Local::Reset) => return Way::Here,
            Treatment::Forward
            | Treatment::Split(_)
            | Treatment::Own(Need::Blocking | Need::Transaction)
            | Treatment::Refuse(_) => spec.flags & flag::PUBSUB == 0,
            _ => false,
        };
        let keys = match treatment {
            // These are about the session's own pool, unless all that is looked for lives elsewhere.
            Treatment::Publish => Keys::One(None),
            Treatment::Broadcast(_) if !is_for_all(spec) => {
                Keys::One(pattern(spec, request).and_then(|pattern| pool.routed_pattern(pattern)))
            }
            _ if names_keys => self.pools_of(session.pool, spec, request),
            _ => Keys::None,
        };
        let transaction = matches!(treatment, Treatment::Own(Need::Transaction));
        if let Some(branch) = bound {
            let there = self.sessions.get(branch as usize).map(|session| session.pool);
            let fits = keys == Keys::None || keys == Keys::One(there);
            if multi_there.is_some() || transaction {
                return if fits { Way::Bound(branch) } else { Way::Apart };
            }
        }
        let special = session.special.as_ref();
        // A connection here has it already, or has lost it.
        let settled = special.is_some_and(|special| special.pin.is_some() || special.lost || special.watch_lost);
        match (keys, treatment) {
            (Keys::Several, Treatment::Split(merge)) if !multi => Way::Split(merge),
            // That it is nested is what is wrong with a WATCH then.
            (_, _) if transaction && multi => Way::Here,
            (Keys::Several, _) => Way::Apart,
            (Keys::One(Some(_)), _) if (multi || transaction) && settled => Way::Apart,
            (Keys::One(Some(to)), _) if multi => Way::Moves(to),
            (Keys::One(Some(to)), _) => Way::There(to),
            (Keys::None, Treatment::Broadcast(merge)) if !multi && is_for_all(spec) => Way::All(merge),
            (Keys::None | Keys::One(None), _) => Way::Here,
        }
    }

    /// Whether a request may begin as far as other pools and former homes of its keys are concerned. If not, the session is not
    /// read until it may, and the request comes again.
    pub(in crate::engine) fn may_take_way(
        &mut self,
        id: SessionId,
        named: Result<&'static Spec, &Fault>,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        let way = self.way(id, named, request);
        self.way = Some((id, way));
        let Some(session) = self.sessions.get_mut(id as usize).filter(|session| session.authenticated) else {
            return true;
        };
        if way == Way::Here && !session.has_branches() {
            return self.is_forgotten(id, named, request, port);
        }
        let open = session.open_slots() > 0;
        let branches = session.special.as_mut().and_then(|special| special.branches.as_mut());
        let split = branches.is_some_and(|branches| {
            branches.split &= open;
            branches.split
        });
        let bound = self.bound_branch(id);
        let leads_to = match way {
            Way::There(to) => self.branch_in(id, to),
            Way::Bound(branch) => Some(branch),
            _ => None,
        };
        let alone =
            matches!(way, Way::Moves(_) | Way::Split(_) | Way::All(_)) || (bound.is_some() && bound != leads_to);
        if open && (split || alone) {
            return self.holds_back(id);
        }
        match (leads_to, way) {
            (Some(branch), _) => self.may_enter(id, branch, named, request, port),
            (None, Way::Split(_) | Way::All(_)) => match named {
                Ok(spec) if !self.is_denied(id, named, request) => self.may_enter_all(id, way, spec, request, port),
                _ => true,
            },
            (None, Way::Here) => self.is_forgotten(id, named, request, port),
            (None, Way::Moves(to)) if !self.is_denied(id, named, request) => match self.branch_in(id, to) {
                Some(branch) => self.is_forgotten(branch, named, request, port) || self.holds_back(id),
                None => true,
            },
            _ => true,
        }
    }

    /// It is not read until what is open is answered, or somebody wakes it.
    pub(super) fn holds_back(&mut self, id: SessionId) -> bool {
        if let Some(session) = self.sessions.get_mut(id as usize) {
            session.paused = true;
            session.mode |= mode::WAITING;
        }
        false
    }

    /// Whether a branch takes a request now, as it would an app's.
    pub(super) fn may_enter(
        &mut self,
        id: SessionId,
        branch: SessionId,
        named: Result<&'static Spec, &Fault>,
        request: &Request<'_>,
        port: &mut impl Port,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(branch as usize) else { return true };
        if session.parked {
            // Its shard takes no more; whoever says that it does again wakes the trunk.
            if let Some(trunk) = self.sessions.get_mut(id as usize) {
                trunk.paused = true;
            }
            return false;
        }
        session.paused = false;
        session.mode &= !mode::WAITING;
        if session.is_behind() {
            self.ask_behind(branch, request, port);
        }
        let Some(session) = self.sessions.get(branch as usize) else { return true };
        let settled = named.is_ok_and(|spec| spec.flags & flag::SETTLED != 0);
        let (turns, aside) = (session.mode & mode::TURNS != 0, session.mode & mode::ASIDE != 0);
        if (settled || turns || session.indirect > 0 || self.troubles > 0) && !self.may_begin(branch, named, request) {
            return self.holds_back(id);
        }
        if aside && !self.is_denied(id, named, request) {
            let free =
                self.is_free_of_faults(branch, named, request) && self.is_forgotten(branch, named, request, port);
            return free || self.holds_back(id);
        }
        true
    }

    /// Whether the trunk's user may not do this: then it is told so, and nothing is done for it at servers.
    fn is_denied(&self, id: SessionId, named: Result<&'static Spec, &Fault>, request: &Request<'_>) -> bool {
        let (Some(session), Ok(spec)) = (self.sessions.get(id as usize), named) else { return false };
        if session.is_tenant() {
            return self.tenant.is_against();
        }
        let user = session.special.as_ref().and_then(|special| special.user.as_ref());
        let guard = self.pools.get(usize::from(session.pool)).and_then(|pool| pool.config.guard.as_ref());
        user.is_some_and(|user| user.check(spec, request).is_err())
            || guard.is_some_and(|guard| guard.check(spec, request).is_err())
    }

    /// Tells that a request cannot go to several pools; a transaction that it is part of is spoilt.
    pub(super) fn goes_apart(&mut self, id: SessionId, port: &mut impl Port) {
        self.cannot(id, Apart::SeveralShards);
        self.spoil(id, port);
    }
}

/// What there is to tell of where a request goes.
pub(in crate::engine) enum Told {
    /// It stays in its pool.
    Here,
    /// All there is to tell.
    Verdict(String),
    /// To this pool, which tells the rest.
    There(String, u16),
}

impl Engine {
    /// Tells a person where a request goes because of its pool's routes.
    pub(in crate::engine) fn explain_way(
        &self,
        pool: &Pool,
        spec: &'static Spec,
        treatment: Treatment,
        request: &Request<'_>,
    ) -> Told {
        let mut ways: Vec<(String, Option<usize>)> = Vec::new();
        match treatment {
            Treatment::Forward | Treatment::Split(_) | Treatment::Own(Need::Blocking | Need::Transaction) => {
                // What cannot be told of keys is told where they would live.
                let _ = command::each_key(spec, request, &mut |_, key| {
                    ways.push((String::from_utf8_lossy(key).escape_debug().to_string(), pool.config.routes.of(key)));
                });
            }
            Treatment::Broadcast(_) => {
                let way = pattern(spec, request).and_then(|pattern| pool.config.routes.of_pattern(pattern));
                ways.extend(way.map(|way| (String::new(), Some(way))));
            }
            _ => {}
        }
        let Some(&(_, first)) = ways.first() else { return Told::Here };
        let route = |at: usize| pool.config.routes.iter().nth(at).unwrap_or_default();
        let name = |way: Option<usize>| way.map_or(pool.config.name.as_str(), |at| route(at).1);
        if ways.iter().all(|&(_, way)| name(way) == name(first)) {
            let Some((at, to)) = first.and_then(|at| Some((at, *pool.routes.to.get(at)?))) else { return Told::Here };
            let (start, to_name) = route(at);
            let start = String::from_utf8_lossy(start).escape_debug().to_string();
            return Told::There(format!("route \"{start}\" leads to pool {to_name}\n"), to);
        }
        let each: Vec<String> = ways.iter().map(|(key, way)| format!("key {key}: pool {}\n", name(*way))).collect();
        let verdict = match treatment {
            Treatment::Split(_) => "split over pools, carried alone".to_owned(),
            _ => format!("refused: {CROSS_SHARD}"),
        };
        Told::Verdict(format!("{}-> {verdict}\n", each.concat()))
    }
}

/// Whether a command that every shard gets is about what keys in other pools need, too.
fn is_for_all(spec: &Spec) -> bool {
    ["script|", "function|"].iter().any(|container| spec.name.starts_with(container))
}

/// What KEYS, or a SCAN with MATCH, is to find.
fn pattern<'a>(spec: &Spec, request: &Request<'a>) -> Option<&'a [u8]> {
    match spec.name {
        "keys" => request.arg(1),
        "scan" => {
            let mut options = request.args().skip(2);
            let mut found = None;
            // As Redis has it the last one counts.
            while let (Some(option), Some(value)) = (options.next(), options.next()) {
                if option.eq_ignore_ascii_case(b"match") {
                    found = Some(value);
                }
            }
            found
        }
        _ => None,
    }
}
