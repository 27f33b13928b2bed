//! A connection's task when it panics: everyone who waits on the connection is told, and it is served anew.

use super::connection::{self, Plan};
use crate::contain::{contain, contained};
use crate::error::{Cause, Failure};
use crate::hub::{Hub, InProcess, trap};
use crate::resp::{Limits, Resume, Scan, scan};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// What is said to those who waited on it.
const PANICKED: Failure = Failure { cause: Cause::Lost, reason: "given up because of an error in hotring itself" };
/// How long it rests then: one whose shard makes it panic each time must not fill the log.
const REST: Duration = Duration::from_secs(1);

/// [`connection::run`], again after each panic.
pub async fn run(hub: Rc<Hub>, plan: Plan, wanted: Rc<Notify>) {
    while let Err(message) = contained(connection::run(Rc::clone(&hub), plan.clone(), Rc::clone(&wanted))).await {
        if !give_up(&hub, &plan, false, &message) {
            return;
        }
        tokio::time::sleep(REST).await;
        // Until it has been opened again its requests are refused.
        wanted.notify_one();
    }
}

/// [`connection::run_own`]; a panic ends it as a failure does.
pub async fn run_own(hub: Rc<Hub>, plan: Plan) {
    if let Err(message) = contained(connection::run_own(Rc::clone(&hub), plan.clone())).await {
        give_up(&hub, &plan, true, &message);
    }
}

/// A node in this process: if it panics, the requests it was given are answered with an error. `name` is the shard's.
pub fn node(hub: &Rc<Hub>, name: String, mut serve: impl FnMut(&[u8], &mut Vec<u8>) -> usize + 'static) -> InProcess {
    let hub = Rc::downgrade(hub);
    Box::new(move |bytes, out| {
        let served = contain(|| {
            trap("node", bytes);
            serve(bytes, out)
        });
        served.unwrap_or_else(|message| {
            if let Some(hub) = hub.upgrade() {
                hub.panicked("an embedded node", &message);
            }
            answer_for(bytes, &name, out)
        })
    })
}

/// One error for each request in `bytes`; some of them may have run. Returns their length.
fn answer_for(bytes: &[u8], name: &str, out: &mut Vec<u8>) -> usize {
    out.clear();
    let mut consumed: usize = 0;
    while let Ok(Scan::Request(request)) =
        scan(bytes.get(consumed..).unwrap_or_default(), &mut Resume::default(), &Limits::default())
    {
        PANICKED.write(name, true, out);
        consumed = consumed.saturating_add(request.wire().len());
    }
    consumed
}

/// Whether the worker can go on.
fn give_up(hub: &Hub, plan: &Plan, own: bool, message: &str) -> bool {
    let target = Rc::clone(&plan.target.borrow());
    hub.panicked(&format!("a connection to {} of {}", target.server.name, target.pool), message);
    let now = hub.now();
    let given_up = contain(|| {
        hub.with(|engine, sockets| {
            engine.mend(sockets);
            sockets.close_shard(plan.line);
            if !(own && engine.is_given_up(plan.line)) {
                engine.fail(plan.line, PANICKED, now, sockets);
            }
            if own {
                engine.ended(plan.line);
            }
        });
    });
    if let Err(message) = &given_up {
        // What it leaves behind is not known.
        hub.break_down("the end of a connection to a shard", message);
    }
    given_up.is_ok()
}
