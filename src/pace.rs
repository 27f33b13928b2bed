//! How long a worker's thread sleeps after a flush: the controller of the paced loop.
//!
//! Where CPU is scarce a fast proxy alone forms small batches, and every small batch wakes the shards and the apps once
//! more; a short sleep after the flush lets a batch gather on all sides at once, as interrupt moderation does in a
//! network card. Where cores are free the same sleep only adds latency. Nobody can tell the two apart from a
//! configuration, so the pause is chosen by what it brings: short windows of the level held and of another alternate, and
//! the better one is kept (hill climbing over paired samples, each between two of the level held).
//!
//! Promised: a pause is never longer than `max_pause`, nor than a quarter of the latency there already is; with few
//! requests in flight there is none; and a level that a request would feel (more than a quarter of its unpaced latency, as
//! far as can be told) is held only while it brings *more replies*, not merely cheaper ones, so that an open loop, whose rate does not
//! answer to the level, stays near its unpaced latency. Not promised: the best level (levels that differ by less than
//! the noise are alike here); sight of any CPU but this thread's; pausing of several workers that share a scarce CPU,
//! which pays only if they do it together: each judges by its own replies, and they settle near level 0.
//!
//! Pure: the clock, the counters and the thread's CPU time are arguments. A call costs a few additions, the rest is
//! done twice a millisecond; nothing allocates.

/// The levels a pause is chosen from, as shares of `max_pause`. Few and doubling: a step must change the batch enough
/// to be seen over the noise, and every further level costs windows to climb over.
const STEPS: [f32; 4] = [0.0, 0.25, 0.5, 1.0];
/// Index of the highest level.
const TOP: usize = STEPS.len() - 1;
/// Index of the level to begin at. Not the lowest: where CPU is scarce a first small step can bring nothing although a
/// larger one does, and the way down is the safer one to find.
const START: usize = 2;
/// Pauses that differ by less than this factor are not compared: there is nothing to see.
const APART: f32 = 1.2;
/// No configuration pauses longer (µs): windows are a few ms long and have to hold many pauses to average over them.
const LONGEST: u32 = 1_000;
/// A shorter sleep (µs) is not worth its system call and costs more than it gathers.
const SHORTEST: f32 = 10.0;
/// Requests in flight (the mean of the peaks of each block) from which pausing begins, and below which it ends. With fewer
/// there is no batch to gather and the windows are too coarse to judge: up to eleven apps with one request each never
/// come here. Peaks, because unpaced traffic on a scarce CPU has few in flight most of the time however many apps wait:
/// that is the ailment itself. The gap keeps traffic near the limit from flickering.
const CROWD: (f32, f32) = (12.0, 10.0);
/// A pause is at most this part of the present latency: whatever else goes wrong, this bounds the harm.
const CEILING: f32 = 1.0 / 4.0;
/// A request meets the pause at most twice, on its way in and on its reply's way out, so an eighth of the unpaced latency
/// would add at most a quarter. Up to this part, less CPU per reply is reason enough for a pause; beyond, only more
/// replies are.
const FREE: f32 = 1.0 / 8.0;
/// A level is free, too, up to `SEEN.0` of the unpaced latency where the latency at that level is seen to be at most
/// `SEEN.1` times the unpaced one: where CPU is scarce, batches pay back what the pause took. Half of what a pause adds is
/// seen here, that on the way back; a request that is not read yet is not known to be there.
const SEEN: (f32, f32) = (1.0 / 4.0, 1.12);
/// A pause of this part of the latency is taken without asking: it costs 3 % (6 % if met twice), less than the windows
/// can resolve, and asking about it would make a random walk of it.
const FLOOR: f32 = 1.0 / 32.0;
/// Estimates and states advance this often (µs): cheap beside a flush's system calls, fine beside a window.
const BLOCK: f32 = 500.0;
/// Memory of the running estimates (µs): some bursts long, so that bursty traffic does not swing them, and short
/// enough to follow a change of load within a window or two.
const MEMORY: f32 = 8_000.0;
/// A longer time without a flush (µs) is a hole in the traffic: the open window measures the hole, so it is dropped.
const HOLE: u64 = 4_000;
/// A longer time without a flush (µs) is idleness: the estimates are of the past. The level is kept: the machine is
/// still the same, and what was learned is only trusted less.
const IDLE: u64 = 100_000;
/// Least and most length of a window (µs). The least holds some hundred replies at full load, the most bounds how long
/// a wrong level is tried. In between two latencies: less than a cycle of a closed loop measures where in the cycle
/// the window fell.
const WINDOW: (f32, f32) = (6_000.0, 15_000.0);
/// Least and most time (µs) skipped before a window counts: one latency, while what was sent under the level before
/// is still coming back.
const SETTLE: (f32, f32) = (500.0, 6_000.0);
/// Least and most rest (µs) once no other level is better; doubles from rest to rest. The most keeps trials to a
/// few percent of the time and still answers a change within a fraction of a second.
const REST: (f32, f32) = (40_000.0, 320_000.0);
/// A level that is not free and could not be compared for this long (µs), as when the traffic is all bursts and holes,
/// gives way to the next lower one: what cannot be shown to help is not kept.
const UNPROVEN: f32 = 1_000_000.0;
/// Worth of one percent less CPU per reply, in percent of rate. Less than one, as CPU saved is worth less than replies
/// lost; enough that at equal rates the cheaper level wins.
const THRIFT: f32 = 0.3;
/// One sample counts at most this much (of the logarithm): a hiccup of the machine is not evidence.
const CLAMP: f32 = 0.15;
/// What another level must bring (of the logarithm) to be moved to. Up: any gain beyond resolution. Down: more, as at
/// near equality the lower CPU of the other side of the socket, which is not seen here, speaks for the pause.
const BETTER_UP: f32 = 0.010;
const BETTER_DOWN: f32 = 0.025;
/// Down from a level that is not free equal will do: all that is asked is that the rate does not clearly fall.
const NO_WORSE: f32 = -0.005;
/// Standard errors the mean must lie beyond its threshold to go up to a level that is not free, or to stay there, as that
/// costs latency. One does elsewhere: a wrong step between free levels is cheap and a slow one is not.
const SURE: f32 = 1.5;
/// Samples before a decision; before one about a level that is not free; until an undecided level counts as not better.
const FEWEST: u32 = 2;
const SEVERAL: u32 = 4;
const ENOUGH: u32 = 8;
/// Least weight of a new sample in its mean: as many are remembered as make a decision.
const WEIGHT: f32 = 0.12;
/// The crowd at one level changed by more than these factors, in two windows running, lest it be a hiccup: another load,
/// and what was learned is void. Wider than what the trial before leaves behind.
const OTHER_LOAD: (f32, f32) = (0.55, 1.7);

/// What the worker sees after a flush.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Monotonic time in microseconds; any origin.
    pub now: u64,
    /// Requests answered by the shards so far, in the unit of `in_flight`: their quotient is read as a latency.
    pub replies: u64,
    /// Requests sent to shards and not yet answered, after this flush. Blocking commands on connections of their own
    /// and the queue of a shard that does not answer do not belong here: they would pass for latency.
    pub in_flight: u32,
}

/// The controller of one worker's pause. The default one never pauses.
#[derive(Debug, Default)]
pub struct Pacer {
    levels: [f32; STEPS.len()],
    /// Factor on windows and rests, another for each phase.
    stretch: f32,
    now: u64,
    replies: u64,
    in_flight: u32,
    block: Tally,
    /// Most in flight since the block began.
    peak: u32,
    recent: Tally,
    crowded: bool,
    pause: u32,
    level: usize,
    /// The level in force: `level`, or another on trial.
    trial: usize,
    /// CPU time at which the window began to count; none while settling.
    opened: Option<u64>,
    /// When the window begins to count, then when it ends.
    turn: u64,
    sum: Tally,
    before: Option<Score>,
    probed: Option<Score>,
    /// The level tried last, and what is known of each level against the one held.
    tried: usize,
    evidence: [Evidence; STEPS.len()],
    /// Variance of one window's score.
    noise: f32,
    rest: f32,
    /// When the rest is over; 0 = none.
    rested: u64,
    /// Crowded time since levels were last compared, µs.
    unproven: f32,
    /// Latency at level 0; 0 = unknown.
    unpaced: f32,
    /// Latency in the windows of each level, a running mean; 0 = unknown.
    seen: [f32; STEPS.len()],
    /// Crowd in the first window at this level, 0 = none yet.
    crowd: f32,
    /// The last window was of another load.
    other: bool,
}

#[derive(Clone, Copy, Debug)]
struct Score {
    /// Logarithm of replies per µs.
    rate: f32,
    /// Logarithm of CPU µs per reply.
    cost: f32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Evidence {
    mean: f32,
    samples: u32,
    /// Sampled since the last rest.
    asked: bool,
}

impl Pacer {
    /// A controller that never pauses longer than `max_pause` µs; 0 (or too little to be worth a sleep) = never, and more
    /// than a millisecond counts as one. `phase` is any number that differs between the workers of a process: each gets
    /// windows of another length, so that their trials drift past each other and cancel in the mean instead of being
    /// taken for an effect of the own level.
    pub fn new(max_pause: u32, phase: u32) -> Self {
        let max = max_pause.min(LONGEST) as f32;
        // Multiples of the golden section never crowd together, whatever the number of workers.
        let stretch = 1.0 + 0.5 * (phase % 1_024) as f32 * 0.618_034 % 0.5;
        Self {
            levels: STEPS.map(|share| share * max),
            stretch,
            level: START,
            trial: START,
            tried: TOP,         // so that level 0 is tried first, which tells the unpaced latency
            noise: 0.05 * 0.05, // what windows of a busy, quiet machine show; replaced by the traffic's own
            rest: REST.0,
            ..Self::default()
        }
    }

    /// To be called after every flush: the pause in µs, 0 = none. `cpu` reads this thread's CPU clock in µs; it is
    /// called at most twice a window.
    pub fn after_flush(&mut self, o: &Observation, cpu: impl FnOnce() -> u64) -> u32 {
        if self.levels[TOP] < SHORTEST {
            return 0;
        }
        let gap = o.now.saturating_sub(self.now);
        self.block.micros += gap as f32;
        self.block.replies += o.replies.saturating_sub(self.replies) as f32;
        self.block.area += self.in_flight as f32 * gap as f32;
        self.peak = self.peak.max(o.in_flight);
        (self.now, self.replies, self.in_flight) = (self.now.max(o.now), o.replies, o.in_flight);
        if self.block.micros >= BLOCK {
            self.tick(gap, cpu);
        }
        self.pause
    }

    /// The level held, in µs. The pause itself may be longer (the floor) or shorter (the ceiling, a trial).
    pub fn level(&self) -> u32 {
        self.levels[self.level] as u32
    }

    /// Whether levels are being compared just now, so that the pause may be another than the level's.
    pub fn probing(&self) -> bool {
        self.crowded && self.rested == 0 && self.opened.is_some()
    }

    /// Latency in µs between shards and proxy, as used for the bounds (requests in flight by replies per time: Little's
    /// law); 0 = unknown.
    pub fn latency(&self) -> u32 {
        self.recent.latency() as u32
    }

    fn tick(&mut self, gap: u64, cpu: impl FnOnce() -> u64) {
        let mut block = std::mem::take(&mut self.block);
        (block.blocks, block.peaks) = (1.0, std::mem::take(&mut self.peak) as f32);
        if gap > IDLE {
            self.recent = Tally::default();
            (self.crowded, self.pause, self.rest) = (false, 0, REST.0);
            self.evidence.iter_mut().for_each(|e| e.samples = e.samples.min(1));
            return self.abandon();
        }
        self.recent.fade(block.micros);
        self.recent.add(&block);
        self.crowded = self.recent.crowd() >= if self.crowded { CROWD.1 } else { CROWD.0 };
        let max = self.levels[TOP];
        // Nothing to try where the floor alone reaches the longest pause, nor where that pause gathers no batch.
        let moot = self.recent.latency() * FLOOR >= max || self.recent.rate() * max < 2.0;
        if !self.crowded || moot || gap > HOLE {
            self.abandon();
        } else {
            self.advance(&block, cpu);
        }
        if self.crowded && !moot {
            self.unproven += block.micros;
            if self.unproven > UNPROVEN && self.level > 0 && !self.free(self.level) {
                self.step(self.level - 1);
            }
        }
        self.pause = if self.crowded { self.effective(self.trial) as u32 } else { 0 };
    }

    /// The pause a level comes to at the present latency.
    fn effective(&self, level: usize) -> f32 {
        let latency = self.recent.latency();
        let floor = (latency * FLOOR).min(self.levels[TOP]);
        let pause = self.levels[level].max(floor).min(latency * CEILING);
        // Less than one reply in a pause: it gathers nothing.
        if pause < SHORTEST || self.recent.rate() * pause < 1.0 { 0.0 } else { pause }
    }

    /// Whether a level's pause differs by enough to be measured from the one held, and from the next lower level's, which
    /// would else be tried in its place.
    fn distinct(&self, level: usize) -> bool {
        let (held, pause) = (self.effective(self.level), self.effective(level));
        let apart = pause > held * APART || held > pause * APART;
        apart && (level == 0 || pause > self.effective(level - 1) * APART)
    }

    fn free(&self, level: usize) -> bool {
        let (pause, seen) = (self.levels[level], self.seen[level]);
        let paid_back = seen > 0.0 && seen <= self.seen[0] * SEEN.1 && pause <= self.unpaced * SEEN.0;
        pause <= self.unpaced * FREE || paid_back
    }

    /// Drops the open window and whatever it would have been compared with.
    fn abandon(&mut self) {
        self.before = None;
        self.open(self.level);
    }

    fn open(&mut self, level: usize) {
        (self.trial, self.opened) = (level, None);
        self.turn = self.now + self.recent.latency().clamp(SETTLE.0, SETTLE.1) as u64;
    }

    fn advance(&mut self, block: &Tally, cpu: impl FnOnce() -> u64) {
        match self.opened {
            None if self.now >= self.turn => {
                (self.opened, self.sum) = (Some(cpu()), Tally::default());
                let length = (self.recent.latency() * 2.0).clamp(WINDOW.0, WINDOW.1) * self.stretch;
                self.turn = self.now + length as u64;
            }
            None => {}
            Some(began) => {
                self.sum.add(block);
                if self.now >= self.turn {
                    self.close(cpu().saturating_sub(began).max(1) as f32);
                }
            }
        }
    }

    /// The window is over: what it says, and which one comes next.
    fn close(&mut self, spent: f32) {
        let score = Score { rate: self.sum.rate().max(1e-9).ln(), cost: (spent / self.sum.replies.max(1.0)).ln() };
        let seen = &mut self.seen[self.trial];
        *seen += (self.sum.latency() - *seen) * if *seen == 0.0 { 1.0 } else { WEIGHT };
        // Where the floor is no shorter, this level is as good as 0.
        if self.effective(self.trial) <= self.effective(0) * APART && self.sum.replies > 0.0 {
            // Nearer the least than the mean: a hiccup of the machine must not pass for room.
            let (latency, known) = (self.sum.latency(), self.unpaced);
            self.unpaced = match latency - known {
                _ if known == 0.0 => latency,
                less if less < 0.0 => known + less / 4.0,
                more => known + more / 16.0,
            };
        }
        if self.trial != self.level {
            self.probed = Some(score);
            return self.open(self.level);
        }
        if self.other_load() {
            self.forget();
            (self.unpaced, self.seen) = (0.0, [0.0; STEPS.len()]);
        } else if self.now >= self.rested {
            return self.compare(score);
        }
        self.abandon();
    }

    fn other_load(&mut self) -> bool {
        if self.crowd == 0.0 {
            self.crowd = self.sum.crowd();
        }
        let other = !(OTHER_LOAD.0..=OTHER_LOAD.1).contains(&(self.sum.crowd() / self.crowd.max(1.0)));
        std::mem::replace(&mut self.other, other) && other
    }

    fn forget(&mut self) {
        self.evidence = [Evidence::default(); STEPS.len()];
        (self.rest, self.rested, self.crowd) = (REST.0, 0, 0.0);
    }

    /// A window at the level held is over: judge the trial before it, if any, and choose the next.
    fn compare(&mut self, after: Score) {
        if std::mem::take(&mut self.rested) > 0 {
            self.evidence.iter_mut().for_each(|e| e.asked = false);
        }
        if let (Some(before), Some(probed)) = (self.before.take(), self.probed.take()) {
            self.unproven = 0.0;
            let drift = (after.rate - before.rate).clamp(-2.0 * CLAMP, 2.0 * CLAMP);
            self.noise += (drift * drift / 2.0 - self.noise) * 0.1;
            let rate = probed.rate - (before.rate + after.rate) / 2.0;
            let cost = probed.cost - (before.cost + after.cost) / 2.0;
            let gain = if self.free(self.tried.max(self.level)) { rate - THRIFT * cost } else { rate };
            self.evidence[self.tried].learn(gain.clamp(-CLAMP, CLAMP));
            if self.verdict(self.tried) == Some(true) {
                return self.step(self.tried);
            }
        }
        let round = (1..=TOP).map(|step| (self.tried + step) % STEPS.len()).chain([self.tried]);
        match round.into_iter().find(|&level| self.distinct(level) && self.verdict(level).is_none()) {
            Some(level) => {
                (self.before, self.tried) = (Some(after), level);
                self.open(level);
            }
            None => {
                self.rested = self.now + (self.rest * self.stretch) as u64;
                self.rest = (self.rest * 2.0).min(REST.1);
                self.abandon();
            }
        }
    }

    /// Whether another level is better than the one held; none = not known yet.
    fn verdict(&self, level: usize) -> Option<bool> {
        let Evidence { mean, samples, asked } = self.evidence[level];
        if samples < FEWEST || !asked {
            return None;
        }
        // A sample is one window less the mean of two: one and a half times a window's variance.
        let error = (1.5 * weight(samples) * self.noise).sqrt();
        let (threshold, sure) = match (level > self.level, self.free(level.max(self.level))) {
            (_, false) if samples < SEVERAL => return None,
            (true, false) => (BETTER_UP, SURE),
            // A level that is not free is the one to be proven, whichever of the two is held.
            (false, false) => return Some(mean + error * SURE > NO_WORSE),
            (true, true) => (BETTER_UP, 1.0),
            (false, true) => (BETTER_DOWN, 1.0),
        };
        if mean - error * sure > threshold {
            Some(true)
        } else if mean + error * sure < threshold || samples >= ENOUGH {
            Some(false)
        } else {
            None
        }
    }

    /// Moves to `level`. What was learned of the pair stays true seen from its other end; the way on is tried first.
    fn step(&mut self, level: usize) {
        let Evidence { mean, samples, .. } = self.evidence[level];
        self.forget();
        self.evidence[self.level] = Evidence { mean: -mean, samples: samples.min(FEWEST), asked: false };
        self.tried = if level > self.level { level } else { (level + TOP - 1) % STEPS.len() };
        (self.level, self.unproven) = (level, 0.0);
        self.abandon();
    }
}

/// Weight of the newest of `samples` in their mean, and so the mean's variance by a sample's.
fn weight(samples: u32) -> f32 {
    (1.0 / samples.max(1) as f32).max(WEIGHT)
}

impl Evidence {
    fn learn(&mut self, gain: f32) {
        (self.samples, self.asked) = (self.samples.saturating_add(1), true);
        self.mean += (gain - self.mean) * weight(self.samples);
    }
}

/// Sums over some time.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    micros: f32,
    replies: f32,
    /// Requests in flight times µs: by replies, the mean time one is in flight.
    area: f32,
    blocks: f32,
    /// Most requests in flight after a flush, summed over blocks.
    peaks: f32,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.micros += other.micros;
        self.replies += other.replies;
        self.area += other.area;
        self.blocks += other.blocks;
        self.peaks += other.peaks;
    }

    /// Weighs what is here less, the more, the longer the time about to be added.
    fn fade(&mut self, micros: f32) {
        let keep = MEMORY / (MEMORY + micros);
        for sum in [&mut self.micros, &mut self.replies, &mut self.area, &mut self.blocks, &mut self.peaks] {
            *sum *= keep;
        }
    }

    fn rate(&self) -> f32 {
        self.replies / self.micros.max(1.0)
    }

    fn latency(&self) -> f32 {
        if self.replies > 0.0 { self.area / self.replies } else { 0.0 }
    }

    /// How many are in flight when it is most: the mean of the peaks.
    fn crowd(&self) -> f32 {
        self.peaks / self.blocks.max(1e-3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Traffic at a fixed rate: a reply every 10 µs, `crowd` in flight, a flush 50 µs after the last pause. With `feels` the
    /// latency grows by the pause.
    #[derive(Default)]
    struct Steady {
        now: u64,
        cpu: f64,
        feels: bool,
    }

    impl Steady {
        /// The pauses of some time.
        fn run(&mut self, pacer: &mut Pacer, micros: u64, crowd: u32, cpu_a_pass: f64) -> Vec<u32> {
            let (mut pauses, end) = (vec![0], self.now + micros);
            while self.now < end {
                let pause = *pauses.last().unwrap();
                self.now += 50 + u64::from(pause);
                self.cpu += cpu_a_pass;
                let in_flight = crowd + if self.feels { pause / 10 } else { 0 };
                let o = Observation { now: self.now, replies: self.now / 10, in_flight };
                pauses.push(pacer.after_flush(&o, || self.cpu as u64));
            }
            pauses
        }
    }

    #[test]
    fn no_pause_without_a_crowd_and_none_after_it_has_gone() {
        let (mut pacer, mut load) = (Pacer::new(120, 0), Steady::default());
        assert!(load.run(&mut pacer, 100_000, 11, 20.0).iter().all(|&p| p == 0));
        assert!(load.run(&mut pacer, 100_000, 100, 20.0).contains(&60));
        load.run(&mut pacer, 50_000, 9, 20.0);
        assert!(load.run(&mut pacer, 50_000, 9, 20.0).iter().all(|&p| p == 0));
    }

    #[test]
    fn at_equal_rates_a_level_is_kept_only_where_the_latency_has_room_for_it() {
        // An eighth of the latency is free, and a quarter where it is seen not to grow; the longest saves most passes.
        for (crowd, feels, level) in [
            (12, false, 30),
            (20, true, 0),
            (24, false, 60),
            (34, true, 30),
            (60, true, 60),
            (60, false, 120),
            (76, true, 60),
            (100, true, 120),
        ] {
            let (mut pacer, mut load) = (Pacer::new(120, 0), Steady { feels, ..Steady::default() });
            load.run(&mut pacer, 500_000, crowd, 20.0);
            assert_eq!(pacer.level(), level, "{crowd} in flight, felt: {feels}");
        }
    }

    #[test]
    fn a_level_that_cannot_be_compared_is_not_kept_for_ever() {
        let (mut pacer, mut load) = (Pacer::new(120, 0), Steady::default());
        for _ in 0..1_000 {
            load.run(&mut pacer, 5_000, 30, 20.0);
            load.now += 5_000;
        }
        assert_eq!(pacer.level(), 0);
    }

    #[test]
    fn max_pause_bounds_every_level_and_too_little_is_none() {
        for (max, most) in [(0, 0), (9, 0), (20, 20), (120, 120), (u32::MAX, 1_000)] {
            let pauses = Steady::default().run(&mut Pacer::new(max, 7), 300_000, 5_000, 20.0);
            assert_eq!(pauses.into_iter().max(), Some(most), "max_pause {max}");
        }
    }

    #[test]
    fn nonsense_in_still_keeps_the_bounds() {
        let (mut pacer, mut x, mut now, mut replies) = (Pacer::new(120, u32::MAX), 1_u64, 0_u64, 0_u64);
        for _ in 0..200_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (a, b) = (x >> 54, x >> 32 & 0x3ff);
            now = if a == 0 { now / 2 } else { now.saturating_add(if a == 1 { x >> 20 } else { a / 8 }) };
            replies = if b == 0 { replies / 2 } else { replies.saturating_add(if b == 1 { x >> 20 } else { b / 64 }) };
            let in_flight = if b == 2 { u32::MAX } else { (x >> 40 & 0xff) as u32 };
            let pause = pacer.after_flush(&Observation { now, replies, in_flight }, || x >> 10);
            assert!(pause <= 120 && pause <= pacer.latency() / 4 + 1, "{pause}, latency {}", pacer.latency());
        }
    }
}
