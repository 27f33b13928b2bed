//! A topology that Redis Sentinels tell: which server is the primary of each monitored name, and which follow it.
//!
//! All sentinels are asked, those that are configured and those they know of ([`peers`]), and most of them are believed
//! ([`votes`]). A server that they name anew is asked by ROLE, with the pool's own credentials, whether it is a master. All are
//! listened to meanwhile (`listen`): what one tells is a reason to ask them all.
//!
//! Promises: everything has a deadline and a bound. The last good answer stays while nobody answers, or while those that do
//! know less than what was known before. An address that more than half of all sentinels no longer name is never in an answer
//! again, whatever the server there says that it is. An address is given before its server was found to be a master only where
//! more than half of all sentinels name it: then the one before it is wrong for certain, and what is sent to the new one is for
//! whoever opens connections to judge. Does not promise that a write which an old primary took during a failover has survived:
//! Redis' replication is asynchronous.

mod listen;
pub mod peers;
pub mod replies;
pub mod votes;

use super::talk::{Access, Talk, one_line};
use super::{Answer, Layout, Node, Replica, Settings};
use crate::chance::splitmix;
use crate::hub::Clock;
use crate::resp::control::Control;
use crate::units::Address;
use crate::upstream::Topology;
use crate::upstream::topology::{Asked, Master};
use listen::{Bell, Ear, ear};
use peers::{Told, learn};
use replies::{Peer, Role};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use votes::{Vote, judge};

/// How long others are waited for when more than half have answered.
const STRAGGLERS: Duration = Duration::from_millis(200);
/// How long one sentinel that told of a newer epoch is believed against most of the others, in microseconds: they tell each
/// other every two seconds.
const CONTESTED: u64 = 10_000_000;
/// Longest wait for one sentinel or server, whatever the pool's `connect_timeout` is.
const LONGEST: Duration = Duration::from_secs(2);

/// The sentinels of a pool, and what is known from them.
pub struct Source {
    asked: Asked,
    /// Who one is to the sentinels, and to the servers.
    access: (Access, Access),
    patience: Duration,
    /// The ids of those that are configured, as far as they were told.
    ids: Vec<Option<String>>,
    learned: Vec<Peer>,
    names: Vec<Known>,
    bell: Arc<Bell>,
    ears: Vec<(Address, Ear)>,
    chance: u64,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("asked", &self.asked).field("names", &self.names).finish_non_exhaustive()
    }
}

/// What is known of one name.
#[derive(Clone, Debug)]
struct Known {
    master: Master,
    /// Where its primary is, as sentinels call it.
    address: Option<Address>,
    /// Whether that has said that it is a master.
    is_verified: bool,
    /// The epoch in which most have said so; where few answered, that of those.
    epoch: u64,
    /// Since when most say otherwise, in an older epoch.
    contested: Option<Clock>,
    /// See [`votes::Verdict::floor`].
    floor: u64,
    replicas: Vec<Address>,
    /// What was last said of it in the log.
    told: String,
}

/// What one sentinel answers.
#[derive(Debug, Default)]
struct Said {
    told: Told,
    /// For each name what it says, if it watches over it.
    opinions: Vec<Option<Opinion>>,
}

#[derive(Debug)]
struct Opinion {
    /// Nothing where it says nothing that can be understood.
    vote: Option<(Address, u64)>,
    replicas: Vec<Address>,
}

type Future1<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl Source {
    /// Nothing asked yet. `seed` makes the waits of many sidecars differ. A pool that has another topology has no sentinels.
    #[must_use]
    pub fn new(settings: Settings, seed: u64) -> Self {
        let Settings { topology, access, patience } = settings;
        let (asked, masters, own) = match topology {
            Topology::Sentinel { asked, masters, user, password, tls } => {
                (asked, masters, Access { user, password, tls })
            }
            _ => (Asked { at: Vec::new(), announce: Vec::new(), interval: LONGEST }, Vec::new(), Access::default()),
        };
        let mut source = Self {
            ids: vec![None; asked.at.len()],
            learned: Vec::new(),
            names: masters.into_iter().map(Known::new).collect(),
            bell: Arc::default(),
            ears: Vec::new(),
            chance: seed,
            access: (own, access),
            patience: patience.min(LONGEST),
            asked,
        };
        source.listen();
        source
    }

    /// Waits until a sentinel tells something; true if it is that there is another primary. Nothing is lost where it is no
    /// longer waited for.
    pub async fn heard(&mut self) -> bool {
        let (bell, ears) = (Arc::clone(&self.bell), &mut self.ears);
        let mut heard = std::pin::pin!(bell.heard());
        poll_fn(|cx| {
            // None of them ever ends.
            for (_, ear) in ears.iter_mut() {
                let _ = ear.as_mut().poll(cx);
            }
            heard.as_mut().poll(cx)
        })
        .await
    }

    /// Asks all of them once.
    ///
    /// # Errors
    /// Where none answers, with what the first one said.
    pub async fn ask(&mut self) -> Result<Answer, String> {
        let patience = self.patience;
        let configured = self.asked.at.len();
        let names: Vec<String> = self.names.iter().map(|known| known.master.name.clone()).collect();
        let places = self.places();
        let all = places.iter().map(|at| {
            let asking = question(at.clone(), self.access.0.clone(), names.clone());
            Box::pin(async move { timeout(patience, asking).await.unwrap_or_else(|_| Err("no answer in time".into())) })
                as Future1<Result<Said, String>>
        });
        let answers = together(all.collect()).await;
        let silent = places.iter().zip(&answers).filter_map(|(at, answer)| match answer {
            Some(Ok(_)) => None,
            Some(Err(reason)) => Some(format!("{at}: {reason}")),
            None => Some(format!("{at}: slower than the others")),
        });
        let silent: Vec<String> = silent.collect();
        if silent.len() == places.len() {
            return Err(silent.join("; "));
        }
        if !silent.is_empty() {
            tracing::debug!(reason = silent.join("; "), "not all sentinels answer");
        }
        let mut told = Vec::new();
        for (number, answer) in answers.iter().enumerate().take(configured) {
            if let (Some(Ok(answer)), Some(id)) = (answer, self.ids.get_mut(number)) {
                if answer.told.id.is_some() {
                    id.clone_from(&answer.told.id);
                }
                told.push(answer.told.clone());
            }
        }
        let learned = learn(&self.asked.at, &self.ids, &told, &self.learned);
        let has_learned = learned != self.learned;
        if has_learned {
            let all: Vec<String> = learned.iter().map(|peer| peer.address.to_string()).collect();
            tracing::info!(sentinels = all.join(", "), "sentinels beside those that are configured");
            self.learned = learned;
            self.listen();
        }
        let answers: Vec<Said> = answers.into_iter().flatten().flatten().collect();
        let silent = silent.len();
        let mut is_settled = !has_learned;
        for number in 0..self.names.len() {
            is_settled &= self.settle(number, &answers, silent, patience).await;
        }
        let layout = self.layout().ok_or("no sentinel that answers knows a primary")?;
        Ok(Answer { layout, settled: is_settled })
    }

    /// Takes what they say of one name; true if nothing is open. `silent` have not answered.
    async fn settle(&mut self, number: usize, answers: &[Said], silent: usize, patience: Duration) -> bool {
        let Some(known) = self.names.get_mut(number) else { return true };
        let opinion = |answer: &&Said| answer.opinions.get(number).is_some_and(Option::is_some);
        let watching: Vec<&Said> = answers.iter().filter(opinion).collect();
        let vote = |answer: &&Said| {
            let (address, epoch) = answer.opinions.get(number)?.as_ref()?.vote.clone()?;
            Some(Vote { voter: answer.told.id.clone(), address, epoch })
        };
        let votes: Vec<Vote> = watching.iter().filter_map(vote).collect();
        let Some(verdict) = judge(&votes, distinct(&watching).saturating_add(silent), known.floor) else {
            known.tell(if watching.is_empty() {
                "no sentinel that answers watches over it".into()
            } else {
                "the sentinels that answer know of an older epoch only: what is known stays".to_owned()
            });
            return false;
        };
        known.floor = verdict.floor;
        let is_new = known.address.as_ref() != Some(&verdict.address);
        let is_older = is_new && known.is_verified && verdict.epoch < known.epoch;
        if is_older && votes.iter().any(|vote| Some(&vote.address) == known.address.as_ref()) {
            // The others may not have heard of it yet; or it lies.
            let since = known.contested.get_or_insert_with(Clock::start);
            if since.now() < CONTESTED {
                return false;
            }
        }
        known.contested = None;
        // Another one is the primary for certain.
        let is_over = verdict.is_sure && verdict.floor >= known.epoch;
        if is_new || !known.is_verified {
            let role = ask_role(&self.asked, &self.access.1, &verdict.address, patience).await;
            let is_primary = role == Ok(Role::Primary);
            if !is_primary {
                let said = match role {
                    Ok(_) => "it says that it is none".to_owned(),
                    Err(reason) => reason,
                };
                known.tell(format!("{} is to be its primary, but: {said}", verdict.address));
                if is_new && !is_over {
                    return false;
                }
            } else if known.address.is_some() && is_new || !known.told.is_empty() {
                known.told.clear();
                tracing::info!(name = known.master.name, primary = %verdict.address, "its primary, as the sentinels say");
            }
            known.address = Some(verdict.address.clone());
            known.is_verified = is_primary;
        }
        if verdict.is_sure {
            known.epoch = verdict.floor;
        } else if is_new {
            known.epoch = verdict.epoch;
        }
        let says_so = |answer: &&Said| {
            let opinion = answer.opinions.get(number)?.as_ref()?;
            let (address, epoch) = opinion.vote.as_ref()?;
            (*address == verdict.address && *epoch >= verdict.floor).then(|| opinion.replicas.clone())
        };
        let lists: Vec<Vec<Address>> = watching.iter().filter_map(says_so).collect();
        known.replicas = agreed(&lists, &verdict.address);
        known.is_verified && verdict.is_agreed
    }

    /// All names' servers as they are reached from here; nothing while no name's is known.
    fn layout(&self) -> Option<Layout> {
        if self.names.iter().all(|known| known.address.is_none()) {
            return None;
        }
        let asked = &self.asked;
        let nodes = self.names.iter().map(|known| Node {
            id: known.master.name.clone(),
            name: known.master.name.clone(),
            weight: known.master.weight,
            address: known.address.as_ref().map_or_else(nowhere, |address| reached(asked, address)),
            announced: known.address.iter().map(Address::to_string).collect(),
            replicas: known
                .replicas
                .iter()
                .map(|at| Replica { address: reached(asked, at), zone: None, announced: Vec::new() })
                .collect(),
        });
        Some(Layout { nodes: nodes.collect(), slots: None })
    }

    /// Where all sentinels are: those that are configured first.
    fn places(&self) -> Vec<Address> {
        let asked = &self.asked;
        let mut places = asked.at.clone();
        for peer in &self.learned {
            let at = reached(asked, &peer.address);
            if !places.contains(&at) {
                places.push(at);
            }
        }
        places
    }

    /// Listens to all of them and to no others.
    fn listen(&mut self) {
        let places = self.places();
        self.ears.retain(|(at, _)| places.contains(at));
        for at in places {
            if !self.ears.iter().any(|(other, _)| *other == at) {
                self.chance = splitmix(self.chance);
                let access = self.access.0.clone();
                let ear = ear(at.clone(), access, self.patience, Arc::clone(&self.bell), self.chance);
                self.ears.push((at, ear));
            }
        }
    }
}

impl Known {
    fn new(master: Master) -> Self {
        Self {
            master,
            address: None,
            is_verified: false,
            epoch: 0,
            contested: None,
            floor: 0,
            replicas: Vec::new(),
            told: String::new(),
        }
    }

    /// Says it in the log, unless that was the last that was said.
    fn tell(&mut self, what: String) {
        if self.told != what {
            tracing::warn!(name = self.master.name, "{what}");
            self.told = what;
        }
    }
}

/// Stands for a primary that no sentinel has named yet: the keys of the other names must not move because of it. Nothing
/// listens on port 0.
fn nowhere() -> Address {
    Address::Tcp { host: "0.0.0.0".into(), port: 0 }
}

fn reached(asked: &Asked, address: &Address) -> Address {
    match address {
        Address::Tcp { host, port } => asked.reached(host, *port).unwrap_or_else(|| address.clone()),
        Address::Unix { .. } => address.clone(),
    }
}

/// How many different sentinels these are.
fn distinct(answers: &[&Said]) -> usize {
    let is_first = |(at, answer): &(usize, &&Said)| {
        answer.told.id.is_none() || !answers.iter().take(*at).any(|other| other.told.id == answer.told.id)
    };
    answers.iter().enumerate().filter(is_first).count()
}

/// The replicas that more than half of these lists have, without the primary.
fn agreed(lists: &[Vec<Address>], primary: &Address) -> Vec<Address> {
    let mut all: Vec<&Address> = lists.iter().flatten().filter(|at| *at != primary).collect();
    all.sort_by_cached_key(|at| at.to_string());
    all.dedup();
    all.retain(|at| lists.iter().filter(|list| list.contains(at)).count() > lists.len() / 2);
    all.into_iter().cloned().collect()
}

/// Asks one sentinel for all names.
async fn question(at: Address, access: Access, names: Vec<String>) -> Result<Said, String> {
    let mut talk = Talk::open(&at, &access).await?;
    let mut answer = Said::default();
    answer.told.id = replies::id(&talk.ask(&[b"SENTINEL", b"MYID"]).await?);
    for name in &names {
        let name = name.as_bytes();
        // The epoch first: an address that is newer than its epoch may be outvoted for a moment, one that is older must not
        // win by it.
        let epoch = talk.ask(&[b"SENTINEL", b"MASTER", name]).await?;
        let primary = talk.ask(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name]).await?;
        if replies::is_unknown_name(&epoch) || replies::is_unknown_name(&primary) {
            answer.opinions.push(None);
            continue;
        }
        if let Control::Error(text) = &primary {
            return Err(one_line(text));
        }
        let vote = replies::primary(&primary).map(|address| (address, replies::epoch(&epoch).unwrap_or(0)));
        let replicas = replies::replicas(&talk.ask(&[b"SENTINEL", b"REPLICAS", name]).await?);
        let peers = replies::peers(&talk.ask(&[b"SENTINEL", b"SENTINELS", name]).await?);
        for peer in peers {
            if answer.told.peers.len() < replies::MOST && !answer.told.peers.contains(&peer) {
                answer.told.peers.push(peer);
            }
        }
        answer.opinions.push(Some(Opinion { vote, replicas }));
    }
    Ok(answer)
}

/// Asks a server what it is, on a connection of its own.
async fn ask_role(asked: &Asked, access: &Access, address: &Address, patience: Duration) -> Result<Role, String> {
    let at = reached(asked, address);
    let asking = async {
        let mut talk = Talk::open(&at, access).await?;
        replies::role(&talk.ask(&[b"ROLE"]).await?)
    };
    timeout(patience, asking).await.unwrap_or_else(|_| Err("no answer in time".into()))
}

/// Waits for all, and once more than half are there [`STRAGGLERS`] longer; nothing from those that are later.
async fn together<T>(mut all: Vec<Future1<Result<T, String>>>) -> Vec<Option<Result<T, String>>> {
    let mut done: Vec<Option<Result<T, String>>> = all.iter().map(|_| None).collect();
    let half = all.len() / 2;
    let mut late: Option<Future1<()>> = None;
    poll_fn(|cx| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            return Poll::Ready(());
        }
        if done.iter().filter(|done| matches!(done, Some(Ok(_)))).count() <= half {
            return Poll::Pending;
        }
        late.get_or_insert_with(|| Box::pin(sleep(STRAGGLERS))).as_mut().poll(cx)
    })
    .await;
    done
}
