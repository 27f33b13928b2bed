//! Real Redis Clusters of real redis-servers on ports of 127.0.0.1, killed when dropped.

use super::{Client, PATIENT, Redis, eventually, free_port};
use hotring::ring::{SLOTS, slot_of};
use std::collections::BTreeSet;

/// A node without a heartbeat for so long is failing, in milliseconds.
const NODE_TIMEOUT: &str = "1500";

/// A cluster: primaries first, then replicas, the i-th of them following the i-th primary (and round again).
pub(crate) struct Cluster {
    nodes: Vec<Redis>,
    arguments: Vec<String>,
    ids: Vec<String>,
    /// Those that were killed.
    dead: BTreeSet<usize>,
}

impl Cluster {
    /// Of so many primaries, which share the slots evenly, and replicas; well, as all nodes say.
    pub(crate) fn start(primaries: usize, replicas: usize) -> Self {
        Self::start_with(primaries, replicas, &[])
    }

    /// The same, each node with these arguments.
    pub(crate) fn start_with(primaries: usize, replicas: usize, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut cluster = Self { nodes: Vec::new(), arguments, ids: Vec::new(), dead: BTreeSet::new() };
        for _ in 0..primaries + replicas {
            cluster.spawn();
        }
        for node in 0..primaries {
            let (from, to) = (SLOTS * node / primaries, SLOTS * (node + 1) / primaries - 1);
            cluster.order(node, &format!("CLUSTER ADDSLOTSRANGE {from} {to}"));
        }
        for node in 0..primaries + replicas {
            // Otherwise they find out by collisions, which takes its time.
            cluster.order(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", node + 1));
        }
        for node in 1..primaries + replicas {
            cluster.meet(node);
        }
        cluster.agree();
        for replica in 0..replicas {
            cluster.replicate(primaries + replica, replica % primaries);
        }
        cluster.agree();
        cluster
    }

    fn spawn(&mut self) -> usize {
        let bus = free_port().to_string();
        let mut arguments = vec![
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            NODE_TIMEOUT,
            "--cluster-replica-validity-factor",
            "0",
            "--cluster-allow-replica-migration",
            "no",
            "--repl-diskless-sync-delay",
            "0",
            "--repl-ping-replica-period",
            "1",
        ];
        arguments.extend(self.arguments.iter().map(String::as_str));
        let redis = Redis::tcp(&arguments);
        self.nodes.push(redis);
        let number = self.nodes.len() - 1;
        let id = self.client(number).ask("CLUSTER MYID");
        self.ids.push(id.lines().nth(1).unwrap().to_owned());
        number
    }

    fn meet(&self, node: usize) {
        let known = self.alive().next().unwrap();
        let (known, bus) = (self.address(known).to_owned(), self.bus(known));
        let (host, port) = known.split_once(':').unwrap();
        self.order(node, &format!("CLUSTER MEET {host} {port} {bus}"));
    }

    fn bus(&self, node: usize) -> String {
        self.client(node).ask("CONFIG GET cluster-port").lines().last().unwrap().to_owned()
    }

    fn replicate(&self, replica: usize, primary: usize) {
        let known = || self.client(replica).ask("CLUSTER NODES").contains(&self.ids[primary]);
        eventually("the replica knows its primary", known);
        self.order(replica, &format!("CLUSTER REPLICATE {}", self.ids[primary]));
        let linked = || self.client(replica).ask("INFO replication").contains("master_link_status:up");
        eventually("the replica follows its primary", linked);
    }

    /// Waits until all nodes that run tell of the same nodes and slots, and that the cluster is well.
    pub(crate) fn agree(&self) {
        eventually("all nodes agree", || {
            let views: Vec<_> = self.alive().map(|node| self.view(node)).collect();
            let ok = |node| self.client(node).ask("CLUSTER INFO").contains("cluster_state:ok");
            let all = self.alive().count();
            views.iter().all(|view| *view == views[0] && view.len() >= all) && self.alive().all(ok)
        });
    }

    /// What a node knows: ids, whether they are primaries, whom they follow, slots.
    fn view(&self, node: usize) -> Vec<String> {
        let text = self.client(node).ask("CLUSTER NODES");
        let line = |line: &str| {
            let fields: Vec<&str> = line.split(' ').collect();
            let [id, _, flags, of, _, _, _, _, slots @ ..] = &fields[..] else { return None };
            if flags.contains("handshake") || flags.contains("fail") || flags.contains("noaddr") {
                return None;
            }
            let slots: Vec<&&str> = slots.iter().filter(|slots| !slots.starts_with('[')).collect();
            Some(format!("{id} {} {of} {slots:?}", flags.contains("master")))
        };
        let mut view: Vec<String> = text.lines().skip(1).filter_map(line).collect();
        view.sort();
        view
    }

    /// The nodes that run.
    pub(crate) fn alive(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|node| !self.dead.contains(node))
    }

    /// Where a node is, `host:port`.
    pub(crate) fn address(&self, node: usize) -> &str {
        self.nodes[node].address()
    }

    /// A node's id.
    pub(crate) fn id(&self, node: usize) -> &str {
        &self.ids[node]
    }

    /// A node's server.
    pub(crate) fn redis(&self, node: usize) -> &Redis {
        &self.nodes[node]
    }

    /// A connection to a node.
    pub(crate) fn client(&self, node: usize) -> Client {
        self.connect(self.address(node))
    }

    /// A connection to a node at this address, allowed to do all.
    fn connect(&self, at: &str) -> Client {
        let mut client = Client::connect(at);
        let password = self.arguments.iter().skip_while(|argument| *argument != "--requirepass").nth(1);
        if let Some(password) = password {
            assert_eq!(client.ask(&format!("AUTH {password}")), "+OK\r\n");
        }
        client
    }

    /// Asks a node for something that it must do.
    pub(crate) fn order(&self, node: usize, words: &str) {
        let reply = self.client(node).ask(words);
        assert_eq!(reply, "+OK\r\n", "{words}");
    }

    /// The text of a proxy.yaml with a pool `main` over the cluster, whose seeds are these nodes; `keys` are more lines of it.
    /// Keys that begin with `^` are the file's.
    pub(crate) fn yaml(&self, seeds: &[usize], keys: &[&str]) -> String {
        let seeds: Vec<&str> = seeds.iter().map(|&node| self.address(node)).collect();
        over(&seeds, keys)
    }

    /// The node that serves a slot, as most of those that run say.
    pub(crate) fn owner(&self, slot: u16) -> usize {
        let all: Vec<usize> = self.alive().filter_map(|node| self.owner_by(node, slot)).collect();
        let votes = |owner: &usize| all.iter().filter(|other| *other == owner).count();
        *all.iter().max_by_key(|owner| votes(owner)).expect("somebody serves the slot")
    }

    /// The node that serves a slot, as a node says.
    fn owner_by(&self, node: usize, slot: u16) -> Option<usize> {
        let text = self.client(node).ask("CLUSTER NODES");
        let line = text.lines().skip(1).find(|line| {
            let has = |range: &str| {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                let (from, to) = (from.parse::<u16>(), to.parse::<u16>());
                from.is_ok_and(|from| from <= slot) && to.is_ok_and(|to| slot <= to)
            };
            line.split(' ').skip(8).filter(|range| !range.starts_with('[')).any(has)
        })?;
        self.ids.iter().position(|id| line.starts_with(id.as_str()))
    }

    /// Begins to move a slot: from now on its keys are at one node or the other.
    pub(crate) fn begin_move(&self, slot: u16, to: usize) {
        let from = self.owner(slot);
        self.order(to, &format!("CLUSTER SETSLOT {slot} IMPORTING {}", self.ids[from]));
        self.order(from, &format!("CLUSTER SETSLOT {slot} MIGRATING {}", self.ids[to]));
    }

    /// Moves so many of the keys of a slot that is being moved; says how many there were.
    pub(crate) fn move_keys(&self, slot: u16, to: usize, count: usize) -> usize {
        let from = self.owner(slot);
        let mut source = self.client(from);
        let reply = source.ask(&format!("CLUSTER GETKEYSINSLOT {slot} {count}"));
        let keys: Vec<&str> = reply.lines().skip(1).filter(|line| !line.starts_with('$')).collect();
        if keys.is_empty() {
            return 0;
        }
        let (host, port) = self.address(to).split_once(':').unwrap();
        let mut args = vec!["MIGRATE", host, port, "", "0", "5000", "KEYS"];
        args.extend(&keys);
        let moved = source.call(&args);
        assert!(moved.starts_with(b"+"), "{}", moved.escape_ascii());
        keys.len()
    }

    /// Ends the move of a slot, all of whose keys have been moved: all nodes are told.
    pub(crate) fn end_move(&self, slot: u16, to: usize) {
        // First the one that gets it, or nobody would have it for a moment.
        let others = self.alive().filter(|&node| node != to);
        for node in [to].into_iter().chain(others) {
            let reply = self.client(node).ask(&format!("CLUSTER SETSLOT {slot} NODE {}", self.ids[to]));
            // A replica learns it from its primary.
            assert!(reply == "+OK\r\n" || reply.contains("only with masters") || reply.contains("replica"), "{reply}");
        }
    }

    /// Moves a slot with all its keys.
    pub(crate) fn move_slot(&self, slot: u16, to: usize) {
        self.begin_move(slot, to);
        while self.move_keys(slot, to, 100) > 0 {}
        self.end_move(slot, to);
    }

    /// Makes a replica the primary, in order; waits until it is, as all nodes see it.
    pub(crate) fn failover(&self, replica: usize) {
        eventually("the failover begins", || self.client(replica).ask("CLUSTER FAILOVER") == "+OK\r\n");
        self.is_primary(replica);
        self.agree();
    }

    /// Waits until a node is a primary, as it says itself.
    pub(crate) fn is_primary(&self, node: usize) {
        eventually("the replica is the primary", || self.client(node).ask("ROLE").contains("master"));
    }

    /// Ends a node without a word.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
        self.dead.insert(node);
    }

    /// Starts a node again that was killed; it has forgotten its keys, not the cluster.
    pub(crate) fn restart(&mut self, node: usize) {
        self.nodes[node].restart();
        self.dead.remove(&node);
    }

    /// Lets a node stand still.
    pub(crate) fn freeze(&self, node: usize) {
        self.nodes[node].freeze();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self, node: usize) {
        self.nodes[node].thaw();
    }

    /// A new primary without slots, which all others know.
    pub(crate) fn add_node(&mut self) -> usize {
        let node = self.spawn();
        self.meet(node);
        self.agree();
        node
    }

    /// A new replica of a primary.
    pub(crate) fn add_replica(&mut self, primary: usize) -> usize {
        let node = self.add_node();
        self.replicate(node, primary);
        self.agree();
        node
    }

    /// Has all others forget a node, which has no slots, and ends it.
    pub(crate) fn remove_node(&mut self, node: usize) {
        self.kill(node);
        for other in self.alive() {
            let reply = self.client(other).ask(&format!("CLUSTER FORGET {}", self.ids[node]));
            assert!(reply == "+OK\r\n" || reply.contains("Unknown node"), "{reply}");
        }
    }

    /// What a key has, asked of the node that has it, redirections followed; the reply as it came.
    pub(crate) fn read(&self, key: &str) -> String {
        self.ask(key, &format!("GET {key}"))
    }

    /// The reply to a request about a key, asked of the node that has it, redirections followed.
    pub(crate) fn ask(&self, key: &str, words: &str) -> String {
        let mut at = self.address(self.owner(slot_of(key.as_bytes()))).to_owned();
        let mut asking = false;
        for _ in 0..16 {
            let mut client = self.connect(&at);
            if asking {
                client.ask("ASKING");
            }
            let reply = client.ask(words);
            let fields: Vec<&str> = reply.split_whitespace().collect();
            match fields[..] {
                [kind @ ("-MOVED" | "-ASK"), _, node] => (at, asking) = (node.to_owned(), kind == "-ASK"),
                _ => return reply,
            }
        }
        panic!("redirected for ever: {words}");
    }

    /// So many keys of a slot that a node serves, each of another slot where there are so many.
    pub(crate) fn keys_at(&self, node: usize, count: usize) -> Vec<String> {
        let owners: Vec<Option<usize>> = {
            let mut owners = vec![None; SLOTS];
            let text = self.client(node).ask("CLUSTER NODES");
            for line in text.lines().skip(1) {
                let owner = self.ids.iter().position(|id| line.starts_with(id.as_str()));
                for range in line.split(' ').skip(8).filter(|range| !range.starts_with('[')) {
                    let (from, to) = range.split_once('-').unwrap_or((range, range));
                    let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
                    owners[from..=to].fill(owner);
                }
            }
            owners
        };
        let here = |key: &String| owners[usize::from(slot_of(key.as_bytes()))] == Some(node);
        (0..).map(|n| format!("key:{n}")).filter(here).take(count).collect()
    }
}

/// The text of a proxy.yaml with a pool `main` over the cluster that these know of.
pub(crate) fn over(seeds: &[&str], keys: &[&str]) -> String {
    let mut yaml = "admin: off\n".to_owned();
    for key in keys.iter().filter_map(|key| key.strip_prefix('^')) {
        yaml += &format!("{key}\n");
    }
    yaml += "pools:\n  main:\n    topology: cluster\n";
    yaml += &format!("    servers: [\"{}\"]\n", seeds.join("\", \""));
    if !keys.iter().any(|key| key.starts_with("listen:")) {
        yaml += "    listen: 127.0.0.1:0\n";
    }
    let given = |name: &str| keys.iter().any(|other| other.split(':').next() == Some(name));
    for key in PATIENT.iter().filter(|key| !given(key.split(':').next().unwrap())) {
        yaml += &format!("    {key}\n");
    }
    for key in keys.iter().filter(|key| !key.starts_with('^')) {
        yaml += &format!("    {key}\n");
    }
    yaml
}
