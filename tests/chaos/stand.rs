//! Three real servers, each behind a relay, hotring before them, and apps at work.

use super::workload::{Plan, Workload};
use crate::support::{Hotring, Redis, Relay, shards_with};

/// A server that loses nothing that it has acknowledged when it is killed, as long as the machine lives.
pub(crate) const DURABLE: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "no"];
/// The patience of hotring where a test waits for its end: long enough for servers that are well, whoever else wants the machine.
pub(crate) const IMPATIENT: [&str; 2] = ["timeout: 5s", "connect_timeout: 5s"];

pub(crate) struct Stand {
    pub(crate) work: Workload,
    pub(crate) hotring: Hotring,
    pub(crate) relays: Vec<Relay>,
    pub(crate) redis: Vec<Redis>,
}

impl Stand {
    /// Servers with these arguments, a pool with these keys.
    pub(crate) fn new(arguments: &[&str], keys: &[&str], plan: Plan) -> Self {
        let (redis, at) = shards_with(3, arguments);
        let relays: Vec<Relay> = at.iter().map(|server| Relay::to(server)).collect();
        let at: Vec<&str> = relays.iter().map(Relay::address).collect();
        let hotring = Hotring::over(&at, keys);
        let work = Workload::start(hotring.address(0), 3, plan);
        work.goes_on(&[0, 1, 2], 100);
        Self { work, hotring, relays, redis }
    }
}
