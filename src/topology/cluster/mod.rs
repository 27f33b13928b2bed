//! The nodes of a Redis Cluster, asked which of them serves what.
//!
//! One after another is asked, in an order that differs from sidecar to sidecar and from time to time: those that were
//! learned and those of the file. The first answer that is good ends it. One is good where the node says that the cluster is
//! well (`cluster_state:ok`) and has heard of all that anybody has (`cluster_current_epoch`); of others the best is taken,
//! once nobody is left to ask. One who does not answer within a fifth of a second has others asked beside it.

pub mod replies;
#[cfg(test)]
mod tests;

use super::talk::{Access, Talk, one_line};
use super::{Answer, Layout, Node};
use crate::chance::splitmix;
use crate::resp::control::Control;
use crate::units::Address;
use crate::upstream::topology::Asked;
use std::future::pending;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long one is waited for before another is asked beside it.
const STEP: Duration = Duration::from_millis(200);
/// How many are asked at most, so that a great cluster that is down is not asked as a whole each time.
const MOST_ASKED: usize = 16;

/// The nodes of a pool's cluster.
#[derive(Debug)]
pub struct Source {
    asked: Asked,
    access: Access,
    patience: Duration,
    /// Where nodes are, as the last answer had it.
    learned: Vec<Address>,
    /// The newest epoch that anybody has told of.
    epoch: u64,
    chance: u64,
}

/// What one node said.
#[derive(Debug)]
struct Said {
    /// Whether it sees a cluster that is well.
    ok: bool,
    epoch: u64,
    found: replies::Found,
}

impl Source {
    /// `access` is how every node is spoken to, `patience` is how long each may take, `seed` is where chance begins.
    #[must_use]
    pub fn new(asked: Asked, access: Access, patience: Duration, seed: u64) -> Self {
        Self { asked, access, patience, learned: Vec::new(), epoch: 0, chance: seed }
    }

    /// See [`super::Source::ask`].
    ///
    /// # Errors
    /// Why nobody gave an answer: what the last of them said or did.
    pub async fn ask(&mut self) -> Result<Answer, String> {
        let mut to_ask = self.candidates().into_iter();
        let mut asked = JoinSet::new();
        let (mut best, mut failed): (Option<Said>, _) = (None, String::from("nobody to ask"));
        loop {
            match to_ask.next() {
                Some(at) => {
                    let (access, patience, asked_of) = (self.access.clone(), self.patience, self.asked.clone());
                    asked.spawn(async move {
                        let said = timeout(patience, ask(&at, &access, &asked_of)).await;
                        said.unwrap_or_else(|_| Err("no answer within connect_timeout".into()))
                            .map_err(|reason| format!("{at}: {reason}"))
                    });
                }
                None if asked.is_empty() => break,
                None => {}
            }
            let all_asked = to_ask.len() == 0;
            let slow = async {
                match (all_asked, &best) {
                    (false, _) => sleep(STEP).await,
                    // Who has not answered by then will hardly know more.
                    (true, Some(_)) => sleep(STEP.saturating_mul(2)).await,
                    (true, None) => pending().await,
                }
            };
            let said = tokio::select! {
                biased;
                said = asked.join_next() => said,
                () = slow => {
                    if all_asked {
                        break;
                    }
                    continue;
                }
            };
            match said {
                Some(Ok(Ok(said))) => {
                    let good = said.ok && said.epoch >= self.epoch;
                    if best.as_ref().is_none_or(|best| (said.ok, said.epoch) > (best.ok, best.epoch)) {
                        best = Some(said);
                    }
                    if good {
                        break;
                    }
                }
                Some(Ok(Err(reason))) => failed = reason,
                Some(Err(_)) => failed = String::from("the question was given up"),
                None => {}
            }
        }
        let Some(Said { ok, epoch, found }) = best else { return Err(failed) };
        if !ok && epoch < self.epoch && !self.learned.is_empty() {
            // One that was cut off from the others knows less than is known here.
            return Err(format!("only nodes that are behind answer (epoch {epoch}, known is {})", self.epoch));
        }
        // A cluster that was made anew begins to count anew; nobody has told of more.
        self.epoch = epoch;
        self.learned = addresses(&found.layout);
        Ok(Answer { layout: found.layout, settled: ok && found.settled })
    }

    /// Whom to ask, in turn: by lot, but so that some of the file's are among them.
    fn candidates(&mut self) -> Vec<Address> {
        self.chance = self.chance.wrapping_add(1);
        let mut lot = splitmix(self.chance);
        let mut drawn = |mut of: Vec<Address>, most: usize| {
            let mut drawn = Vec::new();
            while !of.is_empty() && drawn.len() < most {
                lot = splitmix(lot);
                let at = lot.checked_rem(of.len() as u64).unwrap_or(0) as usize;
                drawn.push(of.swap_remove(at));
            }
            drawn
        };
        let learned = drawn(self.learned.clone(), MOST_ASKED * 3 / 4);
        let seeds = self.asked.at.iter().filter(|seed| !learned.iter().any(|at| at.is_same_place(seed)));
        let seeds = drawn(seeds.cloned().collect(), MOST_ASKED.saturating_sub(learned.len()));
        learned.into_iter().chain(seeds).collect()
    }
}

/// Where all nodes are.
fn addresses(layout: &Layout) -> Vec<Address> {
    let of = |node: &Node| {
        let replicas: Vec<Address> = node.replicas.iter().map(|replica| replica.address.clone()).collect();
        [node.address.clone()].into_iter().chain(replicas)
    };
    layout.nodes.iter().flat_map(of).collect()
}

/// Asks one node.
async fn ask(at: &Address, access: &Access, asked: &Asked) -> Result<Said, String> {
    let mut talk = Talk::open(at, access).await?;
    let info = match talk.ask(&[b"CLUSTER", b"INFO"]).await? {
        Control::Error(text) => return Err(one_line(&text)),
        info => replies::info(&info).ok_or("its CLUSTER INFO tells no state")?,
    };
    let found = match talk.ask(&[b"CLUSTER", b"SHARDS"]).await? {
        // Before Redis 7 there is no such command.
        Control::Error(_) => match talk.ask(&[b"CLUSTER", b"SLOTS"]).await? {
            Control::Error(text) => return Err(one_line(&text)),
            slots => replies::slots(&slots, at, asked),
        },
        shards => replies::shards(&shards, at, asked, access.tls.is_some()),
    }?;
    Ok(Said { ok: info.ok, epoch: info.epoch, found })
}
