//! The paced loop's controller in a simulated proxy: apps, a worker or two, three shards, on cores that are shared or not.
//!
//! Every process takes all that has arrived in its inbox, pays for the pass, for each message, and for having slept;
//! its results arrive elsewhere when the pass is over. That is all it takes for pausing to pay where CPU is scarce and
//! to cost where it is not. Cores stall now and then, costs vary: windows are as noisy as on a real machine. All
//! chance comes from a seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hotring::pace::{Observation, Pacer};

/// Microseconds of a simulated second.
const SECOND: u64 = 1_000_000;
const SHARDS: usize = 3;

/// Where and under what load the proxy runs.
#[derive(Clone, Copy)]
struct Site {
    /// Shards and apps share one core, the workers another; else each process has its own.
    scarce: bool,
    /// Apps, each with one request under way at a time.
    apps: usize,
    /// Open loop: requests per second, whatever has been answered; 0 = closed loop.
    offered: f64,
    /// Open loop: requests that come together.
    burst: usize,
    /// One way, µs.
    wire: f64,
    workers: usize,
    seed: u64,
}

const SITE: Site = Site { scarce: true, apps: 50, offered: 0.0, burst: 1, wire: 5.0, workers: 1, seed: 1 };

/// What decides the pause.
enum Control {
    Always(u32),
    Paced(Box<Pacer>),
}

/// Costs in µs of a kind of process: after sleep, of a pass, of a message.
#[derive(Clone, Copy)]
struct Cost(f64, f64, f64);
const WORKER: Cost = Cost(4.0, 3.0, 3.0);
const SHARD: Cost = Cost(6.0, 4.0, 1.0);
const APPS: Cost = Cost(6.0, 0.0, 5.0);
/// Of a core going over to another process, µs.
const SWITCH: f64 = 2.0;
/// Messages the apps get through before another process may have their core.
const SLICE: u32 = 5;

#[derive(Clone, Copy, PartialEq)]
enum State {
    Asleep,
    Ready,
    Running,
    Pausing,
}

struct Process {
    cost: Cost,
    core: usize,
    state: State,
    woken: bool,
    inbox: VecDeque<usize>,
    taken: Vec<usize>,
    cpu: f64,
    /// Messages since it got its core.
    streak: u32,
}

/// What happens: sorted by time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive { process: usize, message: usize },
    Done { process: usize },
    Resume { process: usize },
    Stall { core: usize },
    Offer,
}

/// A span of the simulation, summed up.
#[derive(Default, Debug)]
struct Span {
    /// Its length.
    micros: u64,
    replies: u64,
    pauses: u64,
    longest: u32,
    /// µs.
    paused: u64,
    steps: u32,
    cpu: f64,
    latencies: Vec<f64>,
    /// Between worker and shards and back, summed, µs.
    latency: f64,
    cpu_reads: u64,
    /// Largest excess of a pause over a quarter of the controller's own estimate.
    excess: f64,
}

struct Sim {
    site: Site,
    control: Vec<Control>,
    processes: Vec<Process>,
    running: Vec<bool>,
    queue: Vec<VecDeque<usize>>,
    last: Vec<usize>,
    debt: Vec<f64>,
    apps: usize,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    now: u64,
    random: u64,
    /// By message: when it was sent by its app, when to its shard.
    sent: Vec<(u64, u64)>,
    free: Vec<usize>,
    in_flight: Vec<u32>,
    answered: Vec<u64>,
    span: Span,
}

impl Sim {
    fn new(site: Site, control: impl Fn(u32) -> Control) -> Self {
        let cores = if site.scarce { 2 } else { site.workers + SHARDS + 1 };
        let processes: Vec<_> = (0..site.workers + SHARDS + 1)
            .map(|at| Process {
                cost: match at {
                    _ if at < site.workers => WORKER,
                    _ if at < site.workers + SHARDS => SHARD,
                    _ => APPS,
                },
                core: if site.scarce { usize::from(at >= site.workers) } else { at },
                state: State::Asleep,
                woken: false,
                inbox: VecDeque::new(),
                taken: Vec::new(),
                cpu: 0.0,
                streak: 0,
            })
            .collect();
        let mut sim = Self {
            control: (0..site.workers as u32).map(control).collect(),
            processes,
            running: vec![false; cores],
            queue: vec![VecDeque::new(); cores],
            last: vec![0; cores],
            debt: vec![0.0; cores],
            apps: site.workers + SHARDS,
            events: BinaryHeap::new(),
            order: 0,
            now: 0,
            random: site.seed,
            sent: Vec::new(),
            free: Vec::new(),
            in_flight: vec![0; site.workers],
            answered: vec![0; site.workers],
            span: Span::default(),
            site,
        };
        for core in 0..cores {
            sim.after(1_000.0, Event::Stall { core });
        }
        if site.offered > 0.0 {
            sim.after(1.0, Event::Offer)
        } else {
            sim.fill()
        }
        sim
    }

    /// Uniform in 0..1 (a linear congruential generator's upper bits).
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as f64 / (1u64 << 31) as f64
    }

    fn waiting(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.chance()).ln()
    }

    fn after(&mut self, micros: f64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + (micros * 1e3) as u64, self.order, event)));
    }

    /// A closed loop's apps send all they may.
    fn fill(&mut self) {
        while self.sent.len() - self.free.len() < self.site.apps {
            self.ask();
        }
    }

    fn ask(&mut self) {
        let message = self.free.pop().unwrap_or_else(|| {
            self.sent.push((0, 0));
            self.sent.len() - 1
        });
        self.sent[message].0 = self.now;
        self.after(self.site.wire, Event::Arrive { process: message % self.site.workers, message });
    }

    /// Another load from now on: as many apps, or as much offered.
    fn change(&mut self, apps: usize, offered: f64) {
        (self.site.apps, self.site.offered) = (apps, offered);
        if offered > 0.0 { self.after(1.0, Event::Offer) } else { self.fill() }
    }

    /// Runs for some µs and says what happened in them.
    fn run(&mut self, micros: u64) -> Span {
        let end = self.now + micros * 1_000;
        let cpu: f64 = self.processes.iter().map(|p| p.cpu).sum();
        while let Some(&Reverse((at, _, event))) = self.events.peek() {
            if at > end {
                break;
            }
            self.events.pop();
            self.now = at;
            self.happen(event);
        }
        self.now = end;
        let mut span = std::mem::take(&mut self.span);
        span.micros = micros;
        span.cpu = self.processes.iter().map(|p| p.cpu).sum::<f64>() - cpu;
        span.latencies.sort_by(f64::total_cmp);
        span
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { process, message } => {
                self.processes[process].inbox.push_back(message);
                if self.processes[process].state == State::Asleep {
                    self.processes[process].woken = true;
                    self.ready(process);
                }
            }
            Event::Resume { process } => {
                self.processes[process].woken = true;
                self.ready(process);
            }
            Event::Done { process } => self.done(process),
            Event::Stall { core } => {
                self.debt[core] += self.waiting(150.0);
                let next = self.waiting(4_000.0);
                self.after(next, event);
            }
            Event::Offer if self.site.offered > 0.0 => {
                (0..self.site.burst).for_each(|_| self.ask());
                let next = self.waiting(1e6 / self.site.offered * self.site.burst as f64);
                self.after(next, event);
            }
            Event::Offer => {}
        }
    }

    fn ready(&mut self, process: usize) {
        let core = self.processes[process].core;
        let p = &mut self.processes[process];
        p.state = State::Ready;
        // Who has slept goes first, as schedulers have it.
        if p.woken {
            self.queue[core].push_front(process)
        } else {
            self.queue[core].push_back(process)
        }
        self.dispatch(core);
    }

    fn dispatch(&mut self, core: usize) {
        if self.running[core] {
            return;
        }
        let Some(process) = self.queue[core].pop_front() else { return };
        let jitter = 0.7 + 0.6 * self.chance();
        let p = &mut self.processes[process];
        p.state = State::Running;
        // The apps read and write one connection after the other, so that what the first ones ask is on its way, and
        // whoever it woke runs, while the next are read; all others take everything at once.
        let most = if process == self.apps { 1 } else { p.inbox.len() };
        p.taken.extend(p.inbox.drain(..most.min(p.inbox.len())));
        let Cost(wake, pass, message) = p.cost;
        let switch = if self.last[core] == process { 0.0 } else { SWITCH };
        let slept = if p.woken { wake } else { 0.0 };
        let cost = switch + slept + (pass + message * p.taken.len() as f64) * jitter;
        self.last[core] = process;
        (p.woken, p.cpu) = (false, p.cpu + cost);
        let stall = std::mem::take(&mut self.debt[core]);
        self.running[core] = true;
        self.after(cost + stall, Event::Done { process });
    }

    fn done(&mut self, process: usize) {
        let core = self.processes[process].core;
        let mut taken = std::mem::take(&mut self.processes[process].taken);
        for &message in &taken {
            self.pass_on(process, message);
        }
        taken.clear();
        self.processes[process].taken = taken;
        self.running[core] = false;
        let pause = if process < self.site.workers { self.flushed(process) } else { 0 };
        if pause > 0 {
            self.processes[process].state = State::Pausing;
            self.after(f64::from(pause) + 3.0, Event::Resume { process });
        } else if self.processes[process].inbox.is_empty() {
            self.processes[process].state = State::Asleep;
        } else {
            self.processes[process].streak += 1;
            if process == self.apps && !self.processes[process].streak.is_multiple_of(SLICE) {
                self.processes[process].state = State::Ready;
                self.queue[core].push_front(process);
            } else {
                self.ready(process);
            }
        }
        self.dispatch(core);
    }

    fn pass_on(&mut self, process: usize, message: usize) {
        let worker = message % self.site.workers;
        let wire = self.site.wire;
        if process == self.apps {
            // The app has read its reply.
            let took = (self.now - self.sent[message].0) as f64 / 1e3;
            self.span.latencies.push(took);
            self.span.replies += 1;
            self.free.push(message);
            if self.site.offered == 0.0 {
                self.fill();
            }
        } else if process >= self.site.workers {
            self.after(wire, Event::Arrive { process: worker, message });
        } else if self.sent[message].1 == 0 {
            self.sent[message].1 = self.now;
            self.in_flight[process] += 1;
            let shard = self.site.workers + (self.chance() * SHARDS as f64) as usize;
            self.after(wire, Event::Arrive { process: shard, message });
        } else {
            self.span.latency += (self.now - self.sent[message].1) as f64 / 1e3;
            self.sent[message].1 = 0;
            self.in_flight[process] -= 1;
            self.answered[process] += 1;
            self.after(wire, Event::Arrive { process: self.apps, message });
        }
    }

    fn flushed(&mut self, worker: usize) -> u32 {
        let o =
            Observation { now: self.now / 1_000, replies: self.answered[worker], in_flight: self.in_flight[worker] };
        let cpu = self.processes[worker].cpu as u64;
        let (reads, span) = (&mut self.span.cpu_reads.clone(), &mut self.span);
        let pause = match &mut self.control[worker] {
            Control::Always(pause) => *pause,
            Control::Paced(pacer) => {
                let level = pacer.level();
                let pause = pacer.after_flush(&o, || {
                    *reads += 1;
                    cpu
                });
                span.steps += u32::from(pacer.level() != level);
                span.excess = span.excess.max(f64::from(pause) - f64::from(pacer.latency() + 1) / 4.0);
                pause
            }
        };
        span.cpu_reads = *reads;
        span.pauses += u64::from(pause > 0);
        span.paused += u64::from(pause);
        span.longest = span.longest.max(pause);
        pause
    }
}

impl Span {
    fn cpu_per_reply(&self) -> f64 {
        self.cpu / self.replies.max(1) as f64
    }

    fn p50(&self) -> f64 {
        self.latencies[self.latencies.len() / 2]
    }

    /// Replies per second.
    fn rate(&self) -> f64 {
        self.replies as f64 * 1e6 / self.micros as f64
    }
}

fn paced(phase: u32) -> Control {
    Control::Paced(Box::new(Pacer::new(120, phase)))
}

/// Half a second to find the level, then as long as asked.
fn run(site: Site, seconds: f64, control: impl Fn(u32) -> Control) -> Span {
    let mut sim = Sim::new(site, control);
    sim.run(SECOND / 2);
    sim.run((seconds * 1e6) as u64)
}

/// A pause that is always the same.
fn fixed(site: Site, pause: u32) -> Span {
    run(site, 0.3, |_| Control::Always(pause))
}

/// The most replies per second any fixed pause serves.
fn best(site: Site) -> f64 {
    [30, 60, 120].map(|pause| fixed(site, pause).rate()).into_iter().fold(0.0, f64::max)
}

#[test]
fn few_requests_in_flight_are_never_held_up() {
    for scarce in [true, false] {
        for apps in [1, 8, 11] {
            let site = Site { scarce, apps, ..SITE };
            assert_eq!(Sim::new(site, paced).run(SECOND / 3).pauses, 0, "{apps} apps");
        }
    }
}

#[test]
fn zero_switches_it_off() {
    let span = Sim::new(SITE, |w| Control::Paced(Box::new(Pacer::new(0, w)))).run(SECOND / 10);
    assert_eq!((span.pauses, span.cpu_reads), (0, 0));
}

#[test]
fn scarce_cpu_is_given_the_pause_that_serves_most() {
    for (apps, seed, gain) in [(50, 1, 1.08), (50, 2, 1.08), (100, 3, 1.2), (500, 4, 1.35)] {
        let site = Site { apps, seed, ..SITE };
        let (span, unpaced, best) = (run(site, 1.0, paced), fixed(site, 0), best(site));
        let rate = span.rate();
        assert!(rate > 0.94 * best, "{apps} apps: {rate:.0}, best {best:.0}");
        assert!(rate > gain * unpaced.rate(), "{apps} apps: {rate:.0}, unpaced {:.0}", unpaced.rate());
        assert!(span.cpu_per_reply() < 0.85 * unpaced.cpu_per_reply(), "{apps} apps");
        assert!(span.steps <= 4, "{apps} apps: {} steps", span.steps);
    }
}

#[test]
fn free_cores_keep_their_rate_in_a_closed_loop() {
    for (apps, wire, seed) in [(50, 5.0, 1), (50, 100.0, 2), (24, 50.0, 3)] {
        let site = Site { scarce: false, apps, wire, seed, ..SITE };
        let (span, unpaced) = (run(site, 1.0, paced), fixed(site, 0).rate());
        assert!(span.rate() > 0.95 * unpaced, "{apps} apps, {wire} us: {:.0}, unpaced {unpaced:.0}", span.rate());
        assert!(span.steps <= 4, "{apps} apps, {wire} us: {} steps", span.steps);
    }
}

#[test]
fn an_open_loop_pays_at_most_a_quarter_of_its_latency() {
    for (offered, burst, wire) in [(60e3, 1, 100.0), (60e3, 1, 150.0), (40e3, 1, 5.0)] {
        for scarce in [true, false] {
            let site = Site { scarce, offered, burst, wire, ..SITE };
            let (span, unpaced) = (run(site, 1.5, paced), run(site, 0.5, |_| Control::Always(0)));
            let (p50, before) = (span.p50(), unpaced.p50());
            assert!(p50 < 1.25 * before, "{offered}/s, wire {wire}, scarce {scarce}: {p50:.0}, unpaced {before:.0}");
            assert!(span.steps <= 4, "{offered}/s: {} steps", span.steps);
            assert!(span.cpu_per_reply() < 1.02 * unpaced.cpu_per_reply());
        }
    }
}

#[test]
fn an_open_loop_in_bursts_pays_no_more_though_it_can_hardly_be_measured() {
    for offered in [20e3, 60e3] {
        let site = Site { scarce: false, offered, burst: 50, ..SITE };
        let mut sim = Sim::new(site, paced);
        sim.run(3 * SECOND);
        let (p50, before) = (sim.run(2 * SECOND).p50(), run(site, 2.0, |_| Control::Always(0)).p50());
        assert!(p50 < 1.25 * before, "{offered}/s: {p50:.0}, unpaced {before:.0}");
    }
}

#[test]
fn it_follows_the_load() {
    let most = [50, 500].map(|apps| best(Site { apps, ..SITE }));
    let mut sim = Sim::new(Site { apps: 5, ..SITE }, paced);
    assert_eq!(sim.run(SECOND / 4).pauses, 0);
    for apps in [50, 500, 50, 0, 50, 5, 500] {
        sim.change(apps, 0.0);
        sim.run(SECOND / 2);
        let span = sim.run(SECOND / 3);
        match apps {
            50 => assert!(span.rate() > 0.92 * most[0], "50 apps: {:.0}, best {:.0}", span.rate(), most[0]),
            500 => assert!(span.rate() > 0.92 * most[1], "500 apps: {:.0}, best {:.0}", span.rate(), most[1]),
            _ => assert_eq!(span.pauses, 0, "{apps} apps"),
        }
    }
}

#[test]
fn several_workers_neither_swing_nor_lose_by_each_others_trials() {
    for (scarce, apps) in [(true, 200), (false, 100), (true, 1_000)] {
        let site = Site { scarce, apps, workers: 2, ..SITE };
        let (span, unpaced) = (run(site, 1.0, paced), fixed(site, 0).rate());
        assert!(span.rate() > 0.9 * unpaced, "{apps} apps: {:.0}, unpaced {unpaced:.0}", span.rate());
        assert!(span.steps <= 4, "{apps} apps: {} steps of two", span.steps);
    }
}

#[test]
fn bounds_hold_whatever_the_load() {
    let mut sim = Sim::new(Site { apps: 30, ..SITE }, paced);
    for apps in [30, 300, 20, 0, 90, 700, 12, 40] {
        sim.change(apps, 0.0);
        let span = sim.run(SECOND / 5);
        assert!(span.longest <= 120 && span.excess <= 0.0, "{apps} apps: {} us, {}", span.longest, span.excess);
        assert!(span.cpu_reads <= 2 * 200 / 6, "{apps} apps: {} reads", span.cpu_reads);
    }
    // Against the latency itself, not the controller's estimate of it.
    for apps in [50, 100, 500] {
        let span = run(Site { apps, ..SITE }, 0.5, paced);
        let (pause, latency) = (span.paused as f64 / span.pauses as f64, span.latency / span.replies as f64);
        assert!(span.pauses > 500 && pause < latency / 4.0, "{apps} apps: {pause} of {latency}");
    }
}
