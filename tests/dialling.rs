//! Names and addresses of servers: looked up once for all who want them, tried in turn, followed when they lead elsewhere.
//! The resolver is the test's; the servers are on several addresses of this machine, with one port.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::config;
use hotring::downstream::session::Session;
use hotring::hub::{Clock, Hub, Socket};
use hotring::lines::Lines;
use hotring::live::Live;
use hotring::upstream::dial::{Answer, Resolver};
use hotring::worker;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use support::{FOREVER, Fake, Hotring, key_on, now, pool, wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Notify;

/// What hosts lead to; one that is not in the list is never answered.
#[derive(Clone, Default)]
struct Hosts {
    lead_to: Rc<RefCell<HashMap<String, Vec<IpAddr>>>>,
    asked: Rc<Cell<usize>>,
}

impl Hosts {
    fn set(&self, host: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
        self.lead_to.borrow_mut().insert(host.to_owned(), addresses);
    }
}

impl Resolver for Hosts {
    fn look_up(&self, host: &str) -> Answer {
        self.asked.set(self.asked.get() + 1);
        let found = self.lead_to.borrow().get(host).cloned();
        Box::pin(async move {
            let Some(found) = found else { return pending().await };
            Ok(found.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect())
        })
    }
}

/// A server that answers every command with its own address, `GET slow` when it is told to, and PING as Redis does.
struct Node {
    visits: Rc<Cell<usize>>,
    open: Rc<Cell<usize>>,
    go: Rc<Notify>,
    /// Answers nothing at all.
    mute: Rc<Cell<bool>>,
}

impl Node {
    /// At this address, on a port that is free or that another of the test's has at its own address.
    async fn at(ip: &str, port: u16) -> (Self, u16) {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let node = Self { visits: Rc::default(), open: Rc::default(), go: Rc::default(), mute: Rc::default() };
        let (visits, open, go, mute) =
            (Rc::clone(&node.visits), Rc::clone(&node.open), Rc::clone(&node.go), Rc::clone(&node.mute));
        let ip = ip.to_owned();
        tokio::task::spawn_local(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                visits.set(visits.get() + 1);
                let (ip, open, go, mute) = (ip.clone(), Rc::clone(&open), Rc::clone(&go), Rc::clone(&mute));
                tokio::task::spawn_local(async move {
                    open.set(open.get() + 1);
                    serve(socket, &ip, &go, &mute).await;
                    open.set(open.get() - 1);
                });
            }
        });
        (node, port)
    }
}

async fn serve(mut socket: TcpStream, ip: &str, go: &Notify, mute: &Cell<bool>) {
    let mut bytes = Vec::new();
    while socket.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        // Commands of this test are cut only between two of them.
        let text = String::from_utf8(std::mem::take(&mut bytes)).unwrap();
        for command in text.split('*').skip(1) {
            let words: Vec<&str> = command.split("\r\n").skip(2).step_by(2).collect();
            let reply = match words[..] {
                _ if mute.get() => continue,
                ["PING", ..] => "+PONG\r\n".to_owned(),
                ["GET", "slow", ..] => {
                    go.notified().await;
                    format!("+slow {ip}\r\n")
                }
                // Confirms it and publishes at once.
                ["subscribe", name, ..] => {
                    let (length, name) = (ip.len(), format!("${}\r\n{name}\r\n", name.len()));
                    format!("*3\r\n$9\r\nsubscribe\r\n{name}:1\r\n*3\r\n$7\r\nmessage\r\n{name}${length}\r\n{ip}\r\n")
                }
                _ => format!("+{ip}\r\n"),
            };
            if socket.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// An app with its session.
struct App(TcpStream);

impl App {
    async fn of(hub: &Rc<Hub>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        tokio::task::spawn_local(Session::new(Rc::clone(hub), Socket::Tcp(socket), 0, false, ()));
        Self(app)
    }

    async fn send(&mut self, words: &str) {
        let words: Vec<&str> = words.split(' ').collect();
        self.0.write_all(&wire(&words)).await.unwrap();
    }

    /// A line.
    async fn read(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.0.read_u8().await.unwrap());
        }
        String::from_utf8(line).unwrap()
    }

    async fn ask(&mut self, words: &str) -> String {
        self.send(words).await;
        self.read().await
    }
}

/// A worker without listeners, that asks `hosts`.
fn worker(hosts: &Hosts, yaml: &str) -> Rc<Hub> {
    let config = config::parse(yaml, Path::new("test.yaml")).unwrap_or_else(|wrong| panic!("{wrong}\n{yaml}"));
    let live = Arc::new(Live::first(config, now()));
    let hub = Hub::new(worker::engine(&live, 0, 1, 7), Clock::start());
    let flusher = Rc::clone(&hub);
    tokio::task::spawn_local(poll_fn(move |cx| -> Poll<()> {
        flusher.poll_flush(cx);
        Poll::Pending
    }));
    let lines = Rc::new(Lines::resolving(Rc::clone(&hub), live, Box::new(hosts.clone()), 7, || 0));
    let count = hub.engine().line_count();
    (0..count).for_each(|line| lines.start(line, false));
    tokio::task::spawn_local(lines.run());
    hub
}

fn run(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(FOREVER, test).await.expect("it comes to its end") });
}

#[test]
fn connections_begin_with_different_addresses() {
    run(async {
        let (hosts, (one, port)) = (Hosts::default(), Node::at("127.0.0.1", 0).await);
        let (other, _) = Node::at("127.0.0.2", port).await;
        hosts.set("shard", &["127.0.0.1", "127.0.0.2"]);
        let hub = worker(&hosts, &pool(&[format!("shard:{port}")], &["server_connections: 4", "probe_interval: off"]));
        for _ in 0..4 {
            App::of(&hub).await.ask("GET k").await;
        }
        assert_eq!([one.visits.get(), other.visits.get()], [2, 2]);
        assert_eq!(hosts.asked.get(), 1, "what was answered is known for a while");
    });
}

#[test]
fn an_address_that_swallows_everything_leaves_time_for_the_others() {
    run(async {
        let (hosts, (hole, port)) = (Hosts::default(), Node::at("127.0.0.1", 0).await);
        let (_well, _) = Node::at("127.0.0.2", port).await;
        hole.mute.set(true);
        hosts.set("shard", &["127.0.0.1", "127.0.0.2"]);
        let hub = worker(&hosts, &pool(&[format!("shard:{port}")], &["server_connections: 4", "connect_timeout: 4s"]));
        for _ in 0..4 {
            assert_eq!(App::of(&hub).await.ask("GET k").await, "+127.0.0.2\r\n");
        }
        assert_eq!(hole.visits.get(), 1, "what failed is tried last from then on");
    });
}

#[test]
fn a_resolver_that_hangs_holds_up_nobody_else_and_is_asked_once() {
    run(async {
        let (hosts, (_node, port)) = (Hosts::default(), Node::at("127.0.0.1", 0).await);
        let servers = [format!("hangs:{port}"), format!("127.0.0.1:{port}")];
        let hub =
            worker(&hosts, &pool(&servers, &["server_connections: 3", "connect_timeout: 2s", "probe_interval: off"]));
        let mut apps = Vec::new();
        for _ in 0..6 {
            let mut app = App::of(&hub).await;
            app.send(&format!("GET {}", key_on(0, 2))).await;
            apps.push(app);
        }
        assert_eq!(App::of(&hub).await.ask(&format!("GET {}", key_on(1, 2))).await, "+127.0.0.1\r\n");
        let text =
            "-ERR shard s0 cannot be reached (its name was not resolved within connect_timeout); nothing was sent\r\n";
        for mut app in apps {
            assert_eq!(app.read().await, text);
        }
        // They are tried again, and wait for the same answer.
        let failures =
            || (0..3).map(|line| hub.engine().line(line).unwrap().counts.server_connect_failures).sum::<u64>();
        while failures() < 9 {
            tokio::task::yield_now().await;
        }
        assert_eq!(hosts.asked.get(), 1);
    });
}

#[test]
fn a_connection_follows_its_name_and_nothing_is_cut() {
    run(async {
        let (hosts, (old, port)) = (Hosts::default(), Node::at("127.0.0.1", 0).await);
        let (new, _) = Node::at("127.0.0.2", port).await;
        hosts.set("shard", &["127.0.0.1"]);
        let hub = worker(
            &hosts,
            &pool(&[format!("shard:{port}")], &["dns_refresh: 20ms", "timeout: off", "probe_interval: off"]),
        );
        let (mut app, mut slow) = (App::of(&hub).await, App::of(&hub).await);
        assert_eq!(app.ask("GET k").await, "+127.0.0.1\r\n");
        slow.send("GET slow").await;
        app.send("GET k").await;
        hosts.set("shard", &["127.0.0.2"]);
        while new.visits.get() == 0 {
            tokio::task::yield_now().await;
        }
        // The new one is open; what the old one was sent is answered there, what comes now waits for it.
        slow.send("GET k").await;
        app.send("GET k").await;
        tokio::task::yield_now().await;
        old.go.notify_one();
        assert_eq!([slow.read().await, slow.read().await], ["+slow 127.0.0.1\r\n", "+127.0.0.2\r\n"]);
        assert_eq!([app.read().await, app.read().await], ["+127.0.0.1\r\n", "+127.0.0.2\r\n"]);
        while old.open.get() > 0 {
            tokio::task::yield_now().await;
        }
        let moves = hub.engine().line(0).map(|line| line.counts.server_moves);
        assert_eq!((moves, new.visits.get()), (Some(1), 1));
    });
}

#[test]
fn a_busy_connection_moves_too_and_loses_no_request() {
    run(async {
        let (hosts, (old, port)) = (Hosts::default(), Node::at("127.0.0.1", 0).await);
        let (_new, _) = Node::at("127.0.0.2", port).await;
        hosts.set("shard", &["127.0.0.1"]);
        let hub = worker(&hosts, &pool(&[format!("shard:{port}")], &["dns_refresh: 20ms"]));
        let apps: Vec<_> = (0..8)
            .map(|_| {
                let hub = Rc::clone(&hub);
                tokio::task::spawn_local(async move {
                    let mut app = App::of(&hub).await;
                    // From the one to the other, once and for all, and nothing else is ever answered.
                    let mut said = vec![app.ask("GET k").await];
                    while said.last().unwrap() != "+127.0.0.2\r\n" {
                        said.push(app.ask("GET k").await);
                        said.dedup();
                    }
                    assert_eq!(said, ["+127.0.0.1\r\n", "+127.0.0.2\r\n"]);
                })
            })
            .collect();
        while old.open.get() == 0 {
            tokio::task::yield_now().await;
        }
        hosts.set("shard", &["127.0.0.2"]);
        for app in apps {
            app.await.unwrap();
        }
        assert_eq!(hub.engine().line(0).map(|line| line.counts.server_moves), Some(1));
    });
}

#[test]
fn where_the_new_address_cannot_be_reached_the_old_one_goes_on() {
    run(async {
        let (hosts, (old, port)) = (Hosts::default(), Node::at("127.0.0.1", 0).await);
        hosts.set("shard", &["127.0.0.1"]);
        let hub = worker(&hosts, &pool(&[format!("shard:{port}")], &["dns_refresh: 10ms", "probe_interval: off"]));
        let mut app = App::of(&hub).await;
        app.ask("GET k").await;
        hosts.set("shard", &["127.0.0.3"]);
        let asked = hosts.asked.get();
        while hosts.asked.get() < asked + 5 {
            assert_eq!(app.ask("GET k").await, "+127.0.0.1\r\n");
        }
        assert_eq!(old.visits.get(), 1);
    });
}

#[test]
fn a_connection_of_a_sessions_own_is_left_when_it_is_given_back() {
    run(async {
        let (hosts, (old, port)) = (Hosts::default(), Node::at("127.0.0.1", 0).await);
        let (_new, _) = Node::at("127.0.0.2", port).await;
        hosts.set("shard", &["127.0.0.1"]);
        let hub = worker(&hosts, &pool(&[format!("shard:{port}")], &["dns_refresh: 20ms"]));
        let mut app = App::of(&hub).await;
        assert_eq!(app.ask("BLPOP q 0").await, "+127.0.0.1\r\n");
        hosts.set("shard", &["127.0.0.2"]);
        while old.open.get() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(app.ask("BLPOP q 0").await, "+127.0.0.2\r\n");
    });
}

#[test]
fn subscriptions_follow_too() {
    run(async {
        let (hosts, (_old, port)) = (Hosts::default(), Node::at("127.0.0.1", 0).await);
        let (_new, _) = Node::at("127.0.0.2", port).await;
        hosts.set("shard", &["127.0.0.1"]);
        let hub = worker(&hosts, &pool(&[format!("shard:{port}")], &["dns_refresh: 20ms"]));
        let mut app = App::of(&hub).await;
        app.send("SUBSCRIBE news").await;
        while app.read().await != "127.0.0.1\r\n" {}
        hosts.set("shard", &["127.0.0.2"]);
        let mut seen = Vec::new();
        while seen.last().is_none_or(|line| line != "127.0.0.2\r\n") {
            seen.push(app.read().await);
        }
        // A message and nothing else: the app is not told again that it is subscribed.
        assert_eq!(seen.concat(), "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$9\r\n127.0.0.2\r\n");
    });
}

#[test]
fn a_name_that_is_not_known_holds_up_neither_the_start_nor_the_others_nor_the_stop() {
    let fake = Fake::answering(|_| b"+OK\r\n".to_vec());
    let port = fake.address().rsplit(':').next().unwrap();
    let servers = [format!("localhost:{port}"), "no-such-host.invalid:1".to_owned(), "127.0.0.1:1".to_owned()];
    let hotring = Hotring::over(&servers, &["preconnect: true"]);
    let mut app = hotring.app();
    assert_eq!(app.ask(&format!("SET {} v", key_on(0, 3))), "+OK\r\n");
    let said = app.ask(&format!("GET {}", key_on(1, 3)));
    assert!(
        said.starts_with("-ERR shard s1 ") && said.contains("its name ") && said.contains("nothing was sent"),
        "{said}"
    );
    let said = app.ask(&format!("GET {}", key_on(2, 3)));
    assert!(said.starts_with("-ERR shard s2 ") && said.contains("refused"), "{said}");
    hotring.stop().unwrap();
}
