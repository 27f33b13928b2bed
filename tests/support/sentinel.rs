//! Real sentinels over real servers: several monitored names, each with a primary and replicas, killed when dropped.
//!
//! All periods of the sentinels are made short, so that a failover takes a second or two and not half a minute.

use super::redis::Process;
use super::{Client, Fake, Redis, Scratch, eventually, free_port, wire};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// What the sentinels of a test are like.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    /// Replicas of each primary.
    pub(crate) replicas: usize,
    /// More arguments of all servers.
    pub(crate) servers: Vec<String>,
    /// More lines of each sentinel's file, and of each name's: there `NAME` stands for it.
    pub(crate) lines: Vec<String>,
    /// What the servers' host is called, if it has a name.
    pub(crate) host: Option<String>,
    /// The password of the sentinels themselves.
    pub(crate) password: Option<String>,
}

/// One at a time: servers that get no turn are taken for dead, and then there is a failover that nobody has asked for.
struct Turn;

static TAKEN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

impl Turn {
    fn take() -> Self {
        let taken = TAKEN.0.lock().unwrap_or_else(PoisonError::into_inner);
        *TAKEN.1.wait_while(taken, |taken| *taken).unwrap_or_else(PoisonError::into_inner) = true;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.0.lock().unwrap_or_else(PoisonError::into_inner) = false;
        TAKEN.1.notify_one();
    }
}

/// Sentinels, and the servers that they watch over.
pub(crate) struct Watch {
    pub(crate) sentinels: Vec<Sentinel>,
    /// Each monitored name with its servers; the first one was the primary at the beginning.
    pub(crate) groups: Vec<(String, Vec<Redis>)>,
    _turn: Turn,
}

/// One sentinel.
pub(crate) struct Sentinel {
    address: String,
    password: Option<String>,
    process: Option<Process>,
    dir: Scratch,
}

impl Watch {
    /// So many sentinels over these names, each with one replica.
    pub(crate) fn over(sentinels: usize, names: &[&str]) -> Self {
        Self::with(sentinels, names, &Manner { replicas: 1, ..Manner::default() })
    }

    /// The same in this manner; returns when all sentinels know of each other and of all replicas.
    pub(crate) fn with(sentinels: usize, names: &[&str], manner: &Manner) -> Self {
        let turn = Turn::take();
        let mut groups = Vec::new();
        for name in names {
            let arguments = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
            let mut arguments: Vec<&str> = arguments.into_iter().collect();
            arguments.extend(manner.servers.iter().map(String::as_str));
            let primary = Redis::tcp(&arguments);
            let (host, port) = primary.address().split_once(':').unwrap();
            let follow = ["--replicaof", host, port];
            let all: Vec<&str> = arguments.iter().copied().chain(follow).collect();
            let replicas: Vec<Redis> = (0..manner.replicas).map(|_| Redis::tcp(&all)).collect();
            groups.push(((*name).to_owned(), std::iter::once(primary).chain(replicas).collect::<Vec<_>>()));
        }
        let quorum = sentinels / 2 + 1;
        let sentinels: Vec<Sentinel> = (0..sentinels).map(|_| Sentinel::start(&groups, quorum, manner)).collect();
        let watch = Self { sentinels, groups, _turn: turn };
        let others = watch.sentinels.len() - 1;
        for sentinel in &watch.sentinels {
            for (name, servers) in &watch.groups {
                eventually("the sentinels know of each other and of all replicas", || {
                    let says = |field: &str| sentinel.says(name, field).and_then(|n| n.parse().ok());
                    says("num-other-sentinels") == Some(others) && says("num-slaves") == Some(servers.len() - 1)
                });
                eventually("the replicas follow", || {
                    let page = sentinel.ask(&format!("SENTINEL REPLICAS {name}"));
                    page.matches("master-link-status\r\n$2\r\nok").count() == servers.len() - 1
                });
            }
        }
        watch
    }

    /// The addresses of the sentinels, as a list of a config file.
    pub(crate) fn list(&self) -> String {
        let all: Vec<&str> = self.sentinels.iter().map(|sentinel| sentinel.address.as_str()).collect();
        format!("[{}]", all.iter().map(|at| format!("\"{at}\"")).collect::<Vec<_>>().join(", "))
    }

    /// Where the primary of a name is, if all sentinels that run say the same.
    pub(crate) fn primary(&self, name: &str) -> Option<String> {
        let mut all: Vec<String> = self.sentinels.iter().filter_map(|sentinel| sentinel.primary(name)).collect();
        all.dedup();
        if all.len() == 1 { all.pop() } else { None }
    }

    /// Waits until all sentinels that run agree on a primary that is not this one, and says which.
    pub(crate) fn primary_after(&self, name: &str, old: &str) -> String {
        let mut found = None;
        eventually("the sentinels have chosen another primary", || {
            found = self.primary(name).filter(|at| at != old);
            found.is_some()
        });
        found.unwrap()
    }

    /// The server with this address.
    pub(crate) fn server(&mut self, address: &str) -> &mut Redis {
        let mut all = self.groups.iter_mut().flat_map(|(_, servers)| servers);
        all.find(|redis| redis.address() == address).unwrap_or_else(|| panic!("no server at {address}"))
    }

    /// Has another primary chosen while the old one is well, and says where it is; the old one follows it then.
    pub(crate) fn failover(&self, name: &str) -> String {
        let old = self.primary(name).expect("the sentinels agree");
        let new = self.primary_after_failover(name);
        eventually("the old primary follows the new one", || is_replica(&old));
        new
    }

    /// The same without looking after the old one.
    pub(crate) fn primary_after_failover(&self, name: &str) -> String {
        let old = self.primary(name).expect("the sentinels agree");
        eventually("a failover is begun", || {
            let mut running = self.sentinels.iter().filter(|sentinel| sentinel.process.is_some());
            running.next().unwrap().ask(&format!("SENTINEL FAILOVER {name}")).starts_with("+OK")
        });
        self.primary_after(name, &old)
    }
}

/// A sentinel that says of every name that its primary is there, in this epoch, and of itself that it is another one each time.
pub(crate) fn liar(address: &str, epoch: u64) -> Fake {
    telling(Arc::new(Mutex::new(address.to_owned())), epoch)
}

/// One that says when asked where the primary is, and tells nothing by itself.
pub(crate) fn quiet(address: Arc<Mutex<String>>) -> Fake {
    telling(address, 1)
}

fn telling(address: Arc<Mutex<String>>, epoch: u64) -> Fake {
    let page = wire(&["config-epoch", &epoch.to_string()]);
    let address_at_first = address.lock().unwrap().clone();
    let id = wire(&[format!("fake-{address_at_first}")])[4..].to_vec();
    Fake::start(move |visit| {
        while let Some(request) = visit.request() {
            let words: Vec<_> = request.iter().map(|word| String::from_utf8_lossy(word).to_uppercase()).collect();
            let reply = match words.get(1).map(String::as_str) {
                Some("GET-MASTER-ADDR-BY-NAME") => {
                    let address = address.lock().unwrap();
                    let (host, port) = address.split_once(':').unwrap();
                    wire(&[host, port])
                }
                Some("MASTER") => page.clone(),
                Some("MYID") => id.clone(),
                Some("REPLICAS" | "SENTINELS") => b"*0\r\n".to_vec(),
                _ => wire(&["subscribe", "+switch-master", "1"]),
            };
            if !visit.send(&reply) {
                return;
            }
        }
    })
}

/// Whether the server at this address says that it is a replica whose link is up.
pub(crate) fn is_replica(address: &str) -> bool {
    let Ok(mut client) = Client::try_connect(address) else { return false };
    let Ok(role) = client.try_ask("ROLE") else { return false };
    role.contains("$5\r\nslave\r\n") && role.contains("connected")
}

impl Sentinel {
    fn start(groups: &[(String, Vec<Redis>)], quorum: usize, manner: &Manner) -> Self {
        let dir = Scratch::new();
        let port = free_port();
        let mut file = format!("port {port}\nbind 127.0.0.1\ndir {0}\nlogfile {0}/log\n", dir.0.display());
        if manner.host.is_some() {
            file += "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n";
        }
        for (name, servers) in groups {
            let (host, port) = servers[0].address().split_once(':').unwrap();
            let at = format!("{} {port}", manner.host.as_deref().unwrap_or(host));
            file += &format!("sentinel monitor {name} {at} {quorum}\n");
            file += &format!("sentinel down-after-milliseconds {name} 800\nsentinel failover-timeout {name} 2000\n");
            for line in manner.lines.iter().filter(|line| line.contains("NAME")) {
                file += &format!("{}\n", line.replace("NAME", name));
            }
        }
        for line in manner.lines.iter().filter(|line| !line.contains("NAME")) {
            file += &format!("{line}\n");
        }
        if let Some(password) = &manner.password {
            file += &format!("requirepass {password}\nsentinel sentinel-pass {password}\n");
        }
        dir.write("sentinel.conf", &file);
        let address = format!("127.0.0.1:{port}");
        let mut sentinel = Self { address, password: manner.password.clone(), process: None, dir };
        sentinel.restart();
        sentinel
    }

    /// Its address as a config file has it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Starts it again with what it knew.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command.arg(self.dir.file("sentinel.conf")).arg("--sentinel");
        self.process = Some(Process::start(&mut command));
        eventually("the sentinel answers", || self.client().is_some());
        // They are forgotten with the process.
        let short =
            "SENTINEL DEBUG info-period 300 ping-period 100 ask-period 100 publish-period 200 election-timeout 2000";
        assert_eq!(self.ask(short), "+OK\r\n");
    }

    /// Ends it without a word, as `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.take();
    }

    /// Lets it stand still: its socket takes bytes, nobody answers.
    pub(crate) fn freeze(&self) {
        self.process.as_ref().unwrap().stop();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.process.as_ref().unwrap().go_on();
    }

    /// A reply of it.
    pub(crate) fn ask(&self, words: &str) -> String {
        self.client().expect("the sentinel runs").ask(words)
    }

    /// How many listen to it, sentinels not counted: they listen to servers.
    pub(crate) fn listeners(&self) -> usize {
        self.ask("CLIENT LIST").lines().filter(|line| line.starts_with("id=") && !line.contains(" sub=0 ")).count()
    }

    /// A field of what it says of a name.
    pub(crate) fn says(&self, name: &str, field: &str) -> Option<String> {
        let page = self.ask(&format!("SENTINEL MASTER {name}"));
        let mut lines = page.lines();
        lines.find(|line| *line == field)?;
        lines.nth(1).map(str::to_owned)
    }

    fn primary(&self, name: &str) -> Option<String> {
        self.process.as_ref()?;
        let page = self.ask(&format!("SENTINEL GET-MASTER-ADDR-BY-NAME {name}"));
        let lines: Vec<&str> = page.lines().collect();
        Some(format!("{}:{}", lines.get(2)?, lines.get(4)?))
    }

    fn client(&self) -> Option<Client> {
        let mut client = Client::try_connect(&self.address).ok()?;
        if let Some(password) = &self.password {
            assert_eq!(client.ask(&format!("AUTH {password}")), "+OK\r\n");
        }
        (client.ask("PING") == "+PONG\r\n").then_some(client)
    }
}
