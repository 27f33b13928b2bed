//! E3c: apps whose threads share one connection. A reply that is held back holds back what was asked behind it.

use crate::Options;
use crate::endpoints::{Endpoints, Mode, Size, servers};
use crate::histories::Chance;
use crate::load::part;
use crate::stampede::{KEY, LOAD, SHARDS, TTL, plan};
use hotring::demo::{Answer, App, Plan, Tally};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::sleep;

/// Threads of an app.
const THREADS: usize = 50;
/// Those of them that ask for other keys, where some do.
const OTHERS: usize = 5;

type Words = Vec<Vec<u8>>;
type Ask = (Words, oneshot::Sender<Answer>);

/// What became of it: of the key, and of what others asked for on the same connections.
#[derive(Default)]
struct Seen {
    tally: RefCell<Tally>,
    others: RefCell<Vec<Duration>>,
}

pub(crate) fn run(options: &Options) -> String {
    let pods = options.processes.unwrap_or(options.pick(4, 10, 10));
    let expiries = options.expiries.unwrap_or(options.pick(3, 5, 100));
    let size = Size { processes: pods, pools: 1, workers: 1 };
    let plan = plan(Duration::from_millis(200), 0);
    let mut text = format!(
        "{SHARDS} redis-servers, {pods} processes of one worker, each with one connection for {THREADS} threads of an app, which rest {:?} between \
         two questions, on average. The key lives {TTL:?}, a load takes {LOAD:?}, {expiries} expiries. Where there are other keys, \
         {OTHERS} of the threads ask for those.\n\n\
         | | expiries | loads | an expiry: mean | most | GETs | nil after a wait | EXISTS of other keys: p50 | p99 | longest | errors |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        plan.think,
    );
    let modes = ["", "lease: fleet", "lease: fleet, same_connection: wait"].map(Mode::Misses);
    let rows = [Mode::Nutcracker].into_iter().chain(modes).flat_map(|mode| [(mode, 0), (mode, OTHERS)]);
    for (mode, others) in rows.filter(|(mode, _)| mode.is_there()) {
        let name = mode.name() + if others > 0 { ", other keys" } else { "" };
        if !options.wants(&name) {
            continue;
        }
        let (_redis, at) = servers(SHARDS);
        let endpoints = Endpoints::start(mode, size, &at, KEY, options);
        let seen = pods_of_threads(&plan, &endpoints.addresses, others, expiries);
        let tally = seen.tally.borrow().first(expiries);
        let mut others = seen.others.take();
        let there = !others.is_empty();
        let [p50, p99, longest] = [0.5, 0.99, 1.0]
            .map(|of| part(&mut others, of))
            .map(|took| if there { format!("{took:.1?}") } else { "-".to_owned() });
        let line = format!(
            "| {name} | {} | {} | {:.2} | {} | {} | {} | {p50} | {p99} | {longest} | {} |",
            tally.expiries.len(),
            tally.loads(),
            tally.mean(),
            tally.most(),
            tally.answers,
            tally.late_nils.len(),
            tally.errors,
        );
        let each: Vec<String> = tally.expiries.iter().map(u64::to_string).collect();
        eprintln!("{name}: loads of each expiry: {}\n{line}", each.join(" "));
        let _ = writeln!(text, "{line}");
    }
    text
}

fn pods_of_threads(plan: &Plan, addresses: &[String], others: usize, expiries: usize) -> Rc<Seen> {
    let seen = Rc::new(Seen::default());
    let (tasks, runtime) = (LocalSet::new(), Builder::new_current_thread().enable_all().build().unwrap());
    tasks.block_on(&runtime, async {
        // What follows is expiries, and no proxy that has just been started.
        let ttl = plan.ttl.as_millis().to_string();
        let first: [&[u8]; 5] = [b"SET", plan.key.as_bytes(), b"value", b"PX", ttl.as_bytes()];
        assert_eq!(App::to(&addresses[0]).await.unwrap().ask(&first).await.unwrap(), Answer::Done);
        for (pod, address) in addresses.iter().enumerate() {
            let app = App::to(address).await.unwrap();
            let (asks, asked) = mpsc::channel(THREADS);
            tokio::task::spawn_local(connection(app, asked));
            for thread in 0..THREADS {
                let (plan, seen, asks) = (plan.clone(), Rc::clone(&seen), asks.clone());
                let chance = Chance::of((pod * THREADS + thread + 1) as u64);
                if thread < others {
                    tokio::task::spawn_local(stranger(plan, seen, asks, chance));
                } else {
                    tokio::task::spawn_local(worker(plan, seen, asks, chance));
                }
            }
        }
        let limit = Instant::now() + (TTL + Duration::from_secs(2)) * (expiries as u32 + 4);
        while seen.tally.borrow().expiries.len() <= expiries {
            assert!(Instant::now() < limit, "too few expiries: {:?}", seen.tally.borrow());
            sleep(Duration::from_millis(20)).await;
        }
    });
    seen
}

/// A connection: requests go out as they come, answers come in their order.
async fn connection(mut app: App, mut asked: mpsc::Receiver<Ask>) {
    let mut open = VecDeque::new();
    loop {
        tokio::select! {
            Some((words, back)) = asked.recv() => {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                app.send(&words).await.unwrap();
                open.push_back(back);
            }
            answer = app.answer(), if !open.is_empty() => {
                let back: oneshot::Sender<Answer> = open.pop_front().unwrap();
                let _ = back.send(answer.unwrap());
            }
        }
    }
}

async fn ask(asks: &mpsc::Sender<Ask>, words: &[&str]) -> Answer {
    let (back, answer) = oneshot::channel();
    let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    asks.send((words, back)).await.unwrap();
    answer.await.unwrap()
}

/// A thread that wants the key.
async fn worker(plan: Plan, seen: Rc<Seen>, asks: mpsc::Sender<Ask>, mut chance: Chance) {
    let ttl = plan.ttl.as_millis().to_string();
    loop {
        sleep(plan.think.mul_f64(2.0 * chance.part())).await;
        let asked = Instant::now();
        let answer = ask(&asks, &["GET", &plan.key]).await;
        let tally = &seen.tally;
        match answer {
            Answer::Value(_) => tally.borrow_mut().told(asked, Instant::now()),
            Answer::Nil => {
                tally.borrow_mut().begin(&plan, asked, Instant::now());
                sleep(plan.load).await;
                let sent = Instant::now();
                tally.borrow_mut().write(sent);
                match ask(&asks, &["SET", &plan.key, "value", "PX", &ttl]).await {
                    Answer::Error(text) => tally.borrow_mut().failed(text),
                    _ => tally.borrow_mut().wrote(&plan, sent),
                }
            }
            other => tally.borrow_mut().failed(format!("{other:?}")),
        }
    }
}

/// A thread that wants other keys, and notices how long that takes.
async fn stranger(plan: Plan, seen: Rc<Seen>, asks: mpsc::Sender<Ask>, mut chance: Chance) {
    loop {
        sleep(plan.think.mul_f64(0.2 * chance.part())).await;
        let asked = Instant::now();
        let key = format!("other:{}", chance.below(1000));
        if let Answer::Error(text) = ask(&asks, &["EXISTS", &key]).await {
            seen.tally.borrow_mut().failed(text);
        }
        seen.others.borrow_mut().push(asked.elapsed());
    }
}
