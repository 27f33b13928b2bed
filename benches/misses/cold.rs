//! E8: one of the shards loses all it has while apps ask for keys of all of them.

use crate::Options;
use crate::endpoints::{Endpoints, Mode, Size, servers};
use crate::histories::Chance;
use crate::load::{Zipf, name, part};
use crate::stand::fill;
use hotring::demo::{Answer, App};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, sleep_until};

const SHARDS: usize = 8;
const KEYS: usize = 10_000;
const LOAD: Duration = Duration::from_millis(50);
const BEFORE: Duration = Duration::from_secs(1);

/// What became of it.
#[derive(Default)]
struct Seen {
    /// When each load began, since the shard was emptied, and of which key.
    loads: Vec<(Duration, usize)>,
    /// How long answers took since then.
    took: Vec<Duration>,
    refused: u64,
    errors: u64,
    emptied: Option<Instant>,
}

pub(crate) fn run(options: &Options) -> String {
    let rate = options.rate.unwrap_or(options.pick(2000.0, 10_000.0, 10_000.0));
    let processes = options.processes.unwrap_or(options.pick(4, 10, 10));
    let time = Duration::from_secs(options.pick(3, 8, 30));
    let apps = options.pick(400, 1000, 1000);
    // Nils a second that all processes together may give, where there is a budget.
    let nils = options.pick(40, 200, 200);
    let size = Size { processes, pools: 1, workers: 1 };
    let mut text = format!(
        "{SHARDS} redis-servers, {processes} processes of one worker, {KEYS} keys, Zipf 1.0, {rate:.0} GETs a second by {apps} apps, none of whom asks \
         before it is answered. One shard is emptied; {time:?} from then on. A load takes {LOAD:?}. A budget is for all processes \
         together {nils} nils a second, so each has its part of it.\n\n\
         | | loads | keys loaded | loads a key: mean | most | loads in a second, most | in the first second | GETs | p50 | p99 | refused | errors |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    let budget = (nils / processes).max(1);
    let [alone, both]: [&'static str; 2] =
        ["", "lease: fleet, "].map(|lease| &*format!("{lease}miss_budget: {budget}").leak());
    let modes = ["", "lease: local", "lease: fleet", alone, both].map(Mode::Misses);
    for mode in [Mode::Nutcracker].into_iter().chain(modes) {
        if !mode.is_there() || !options.wants(&mode.name()) {
            continue;
        }
        let (redis, at) = servers(SHARDS);
        fill(&redis, (0..KEYS).map(name), "value");
        let endpoints = Endpoints::start(mode, size, &at, "", options);
        let tasks = LocalSet::new();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let seen = Rc::new(RefCell::new(Seen::default()));
        tasks.block_on(&runtime, work(&seen, &endpoints.addresses, &at[0], apps, rate, time));
        let line = row(&mode.name(), &mut seen.borrow_mut(), time);
        eprint!("{line}");
        text += &line;
    }
    text
}

async fn work(seen: &Rc<RefCell<Seen>>, addresses: &[String], victim: &str, apps: usize, rate: f64, time: Duration) {
    let zipf = Rc::new(Zipf::of(KEYS, 1.0));
    let each = Duration::from_secs_f64(apps as f64 / rate);
    for (number, address) in addresses.iter().cycle().take(apps).enumerate() {
        let app = App::to(address).await.unwrap();
        spawn_local(ask(Rc::clone(seen), app, Rc::clone(&zipf), each, number as u64));
    }
    sleep(BEFORE).await;
    let mut direct = App::to(victim).await.unwrap();
    assert_eq!(direct.ask(&[b"FLUSHALL"]).await.unwrap(), Answer::Done);
    seen.borrow_mut().emptied = Some(Instant::now());
    sleep(time).await;
}

/// An app that asks for keys at a rate of its own.
async fn ask(seen: Rc<RefCell<Seen>>, mut app: App, zipf: Rc<Zipf>, each: Duration, number: u64) {
    let mut chance = Chance::of(number + 1);
    let mut due = tokio::time::Instant::now() + each.mul_f64(chance.part());
    loop {
        sleep_until(due).await;
        // What could not be asked while an answer was out is not made up for.
        due = (due + each).max(tokio::time::Instant::now());
        let key = zipf.draw(&mut chance);
        let asked = Instant::now();
        let answer = app.ask(&[b"GET", name(key).as_bytes()]).await.unwrap();
        let emptied = seen.borrow().emptied;
        if emptied.is_some() {
            seen.borrow_mut().took.push(asked.elapsed());
        }
        match answer {
            Answer::Value(_) => {}
            Answer::Nil => {
                let since = emptied.map_or(Duration::ZERO, |emptied| emptied.elapsed());
                seen.borrow_mut().loads.push((since, key));
                sleep(LOAD).await;
                let set = app.ask(&[b"SET", name(key).as_bytes(), b"value"]).await.unwrap();
                seen.borrow_mut().errors += u64::from(set != Answer::Done);
            }
            // What is over the budget.
            Answer::Error(text) if text.starts_with("BUSY") => seen.borrow_mut().refused += 1,
            _ => seen.borrow_mut().errors += 1,
        }
    }
}

fn row(name: &str, seen: &mut Seen, time: Duration) -> String {
    let mut keys: HashMap<usize, u64> = HashMap::new();
    for &(_, key) in &seen.loads {
        *keys.entry(key).or_default() += 1;
    }
    let second = Duration::from_secs(1);
    let within = |from: Duration| seen.loads.iter().filter(|&&(at, _)| at >= from && at < from + second).count();
    // Any second, not only whole ones.
    let most = seen.loads.iter().filter(|(at, _)| *at < time).map(|&(at, _)| within(at)).max().unwrap_or(0);
    let first = within(Duration::ZERO);
    let [p50, p99] = [0.5, 0.99].map(|of| part(&mut seen.took, of));
    let mut text = String::new();
    let _ = writeln!(
        text,
        "| {name} | {} | {} | {:.2} | {} | {most} | {first} | {} | {p50:.1?} | {p99:.1?} | {} | {} |",
        seen.loads.len(),
        keys.len(),
        seen.loads.len() as f64 / keys.len().max(1) as f64,
        keys.values().max().unwrap_or(&0),
        seen.took.len(),
        seen.refused,
        seen.errors,
    );
    text
}
