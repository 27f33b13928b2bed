//! Commands from a seed: well-formed ones after templates, and those spoiled in one place.

use super::grammar::{FILLERS, TEMPLATES};
use hotring::command::{self, Spec};

/// A command's name and arguments.
pub(crate) type Args = Vec<Vec<u8>>;

/// A random generator (xorshift64*) that gives the same from the same seed.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        (0..8).for_each(|_| {
            chance.below(2);
        });
        chance
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    /// True so many times of a hundred.
    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Arguments that are wrong nearly everywhere, or mean something where nobody expects it.
const ODD: &[&[u8]] = &[
    b"",
    b"abc",
    b"-1",
    b"0",
    b"1",
    b"2",
    b"3.14",
    b"nan",
    b"-inf",
    b"1e400",
    b"9223372036854775807",
    b"-9223372036854775808",
    b"99999999999999999999",
    b" 1",
    b"+1",
    b"01",
    b"-0",
    b"\0",
    b"\r\n",
    b"\xff\xfe",
    b"COUNT",
    b"STREAMS",
    b"block",
    b"STORE",
    b"BY",
    b"get",
    b"WITHSCORES",
    b"LIMIT",
    b"w_*",
    b"{a}s0",
    b"s1",
];

/// The scripts of `%script`; on every server before the first command, so that `%sha` finds them on each.
pub(crate) const SCRIPTS: &[&str] = &[
    "return {KEYS, ARGV}",
    "return redis.call('set', KEYS[1], ARGV[1])",
    "return redis.call('get', KEYS[1])",
    "return redis.call('incr', KEYS[1])",
    "return {1, 'two', false, {3, {'four'}}, 5.9}",
    "return redis.error_reply('MINE of my own')",
    "return redis.status_reply('FINE')",
    "return redis.pcall('lpush', KEYS[1], 'x')",
];

/// A library for FCALL.
pub(crate) const LIBRARY: &str = "#!lua name=tested\n\
    redis.register_function('put', function(keys, args) return redis.call('set', keys[1], args[1]) end)\n\
    redis.register_function{function_name='look', flags={'no-writes'}, \
    callback=function(keys, args) return {#keys, redis.call('get', keys[1])} end}";

/// What ends a connection or changes how many replies there are has tests of its own. A MULTI is made with its EXEC.
const ELSEWHERE: &[&str] = &[
    "quit",
    "multi",
    "client|reply",
    "client|kill",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
];

/// What makes commands.
pub(crate) struct Maker {
    pub(crate) chance: Chance,
    /// What DUMP gave for a value of each type, and, last, FUNCTION DUMP.
    dumps: Vec<Vec<u8>>,
    /// The SHA1s of [`SCRIPTS`].
    shas: Vec<String>,
    /// Times to live and new stream ids go up in wide steps: no two are so close that the clock could decide.
    step: u64,
    /// The hash tag of the command that is being made.
    tag: &'static str,
    tagged: bool,
    /// That of the transaction that is being made.
    bound: Option<&'static str>,
}

impl Maker {
    pub(crate) fn new(seed: u64, dumps: &[Vec<u8>], shas: &[String]) -> Self {
        let (dumps, shas) = (dumps.to_vec(), shas.to_vec());
        Maker { chance: Chance::new(seed), dumps, shas, step: 0, tag: "", tagged: false, bound: None }
    }

    /// What a round begins with: keys with something in them.
    pub(crate) fn filler(&mut self) -> Args {
        let template = self.chance.pick(FILLERS);
        self.after(template)
    }

    /// The next command, or commands that belong together.
    pub(crate) fn commands(&mut self) -> Vec<Args> {
        if self.chance.percent(5) { self.transaction() } else { self.command() }
    }

    /// MULTI and what belongs to it, perhaps behind a WATCH, mostly about keys that live together.
    fn transaction(&mut self) -> Vec<Args> {
        let word = |word: &str| vec![word.as_bytes().to_vec()];
        self.bound = self.chance.percent(85).then(|| self.chance.pick(&["{a}", "{b}", "{c}"]));
        let mut all = Vec::new();
        if self.chance.percent(40) {
            let watch = self.after("WATCH ( $s )");
            let key = watch[watch.len() - 1].clone();
            all.push(watch);
            match self.chance.below(4) {
                0 => all.push([word("SET"), vec![key], word("v")].concat()),
                1 => all.extend(self.command()),
                _ => {}
            }
        }
        all.push(word("MULTI"));
        for _ in 0..self.chance.below(7) {
            if self.chance.percent(70) {
                let template = self.chance.pick(TEMPLATES);
                let mut args = self.after(template);
                tame(&mut args, self);
                all.extend(completed(args));
            } else {
                all.extend(self.command());
            }
        }
        all.push(word(self.chance.pick(&["EXEC", "EXEC", "EXEC", "EXEC", "exec", "DISCARD"])));
        self.bound = None;
        all
    }

    fn command(&mut self) -> Vec<Args> {
        let mut args = match self.chance.below(100) {
            0..25 => self.filler(),
            25..92 => {
                let template = self.chance.pick(TEMPLATES);
                self.after(template)
            }
            _ => self.of_the_table(),
        };
        if self.chance.percent(22) {
            self.spoil(&mut args);
        }
        if self.chance.percent(2) {
            args.splice(0..0, [b"COMMAND".to_vec(), b"GETKEYS".to_vec()]);
        }
        if self.chance.percent(10) {
            args[0] = args[0].to_ascii_lowercase();
        }
        tame(&mut args, self);
        completed(args)
    }

    /// Any command of the table, refused ones too, with as many arguments as it may have, of any kind.
    fn of_the_table(&mut self) -> Args {
        let leaves: Vec<&'static Spec> =
            command::all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands)).collect();
        let spec = Some(self.chance.pick(&leaves)).filter(|spec| !ELSEWHERE.contains(&spec.name)).unwrap_or(leaves[0]);
        let mut args: Args = spec.name.split('|').map(|word| word.as_bytes().to_vec()).collect();
        let least = usize::from(spec.arity.unsigned_abs());
        let most = if spec.arity < 0 { least + self.chance.below(5) } else { least };
        self.choose_tag();
        while args.len() < most {
            let kind = self.chance.pick(&["$_", "$s", "%m", "%n", "%v", "%i"]);
            args.push(self.word(kind));
        }
        args
    }

    fn spoil(&mut self, args: &mut Args) {
        let at = self.chance.below(args.len());
        let odd = self.chance.pick(ODD).to_vec();
        match self.chance.below(6) {
            0 if at > 0 => drop(args.remove(at)),
            1 => args.push(odd),
            2 => args.insert(at + 1, odd),
            3 if at > 0 => args[at] = odd,
            4 if at > 0 => args[1..].rotate_left(1),
            _ => args.push(args[at].clone()),
        }
    }

    fn choose_tag(&mut self) {
        if let Some(tag) = self.bound {
            (self.tag, self.tagged) = (tag, self.chance.percent(99));
            return;
        }
        self.tag = self.chance.pick(&["{a}", "{b}", "{c}", "", "", ""]);
        self.tagged = self.chance.percent(85);
    }

    /// A command after a template.
    fn after(&mut self, template: &str) -> Args {
        self.choose_tag();
        let words: Vec<&str> = template.split(' ').collect();
        let mut args = Vec::new();
        self.run(&words, &mut args);
        args
    }

    fn run(&mut self, mut words: &[&str], args: &mut Args) {
        while let Some((&word, rest)) = words.split_first() {
            words = rest;
            if !matches!(word, "[" | "(" | "{" | "#(") {
                let one = if word.starts_with('$') || !word.contains('|') {
                    word
                } else {
                    let choice: Vec<&str> = word.split('|').collect();
                    self.chance.pick(&choice)
                };
                args.push(self.word(one));
                continue;
            }
            let end = closing(rest);
            let (inside, behind) = (&rest[..end], &rest[end + 1..]);
            words = behind;
            match word {
                "[" => {
                    if self.chance.percent(50) {
                        self.run(inside, args);
                    }
                }
                "{" => {
                    let choice = alternatives(inside);
                    let one = self.chance.pick(&choice);
                    self.run(one, args);
                }
                _ => {
                    let times = 1 + self.chance.below(3);
                    if word == "#(" {
                        // Now and then the number is a lie.
                        let lie = if self.chance.percent(6) { self.chance.below(3) } else { 0 };
                        args.push((times + lie).to_string().into_bytes());
                    }
                    (0..times).for_each(|_| self.run(inside, args));
                }
            }
        }
    }

    fn word(&mut self, word: &str) -> Vec<u8> {
        match word.as_bytes() {
            // XGROUP's word for the last entry.
            b"$" => b"$".to_vec(),
            [b'$', kind] => self.key(*kind),
            [b'%', ..] => self.argument(&word[1..]),
            literal => literal.to_vec(),
        }
    }

    fn key(&mut self, kind: u8) -> Vec<u8> {
        let any = kind == b'_' || (kind != b'B' && self.chance.percent(4));
        let kind = if any { self.chance.pick(b"slhezgxbp") } else { kind };
        let tag = if self.tagged { self.tag } else { self.chance.pick(&["{a}", "{b}", "", "{}", "x{c}y"]) };
        let mut key = tag.as_bytes().to_vec();
        key.push(kind);
        key.push(b'0' + self.chance.below(3) as u8);
        match self.chance.below(100) {
            0..3 => key.extend(b"\0\r\n\xff "),
            3 if kind != b'B' => key.clear(),
            _ => {}
        }
        key
    }

    /// An argument of a kind.
    fn argument(&mut self, kind: &str) -> Vec<u8> {
        let number = |n: i64| n.to_string().into_bytes();
        match kind {
            "v" => match self.chance.below(8) {
                0 => Vec::new(),
                1 => self.chance.pick(ODD).to_vec(),
                2 => vec![b'x'; self.chance.below(400)],
                3 => (0..self.chance.below(40)).map(|_| self.chance.below(256) as u8).collect(),
                4 => b"12".to_vec(),
                _ => self.argument("m"),
            },
            "big" => vec![b'a' + self.chance.below(26) as u8; 10_000 + self.chance.below(30_000)],
            "m" => self.chance.pick(&["m0", "m1", "m2", "m3", "m4", "5", "\u{fc}"]).into(),
            "f" => self.chance.pick(&["0", "1", "-2", "3.5", "1e3", "+inf", "-inf", "0.1", "7"]).into(),
            "i" => number(self.chance.below(10) as i64 - 4),
            "n" => number(self.chance.below(7) as i64),
            "c" => number(1 + self.chance.below(5) as i64),
            "int" => self.chance.pick(&["1", "2", "-7", "300", "9223372036854775800"]).into(),
            "wait" => self.chance.pick(&["0.001", "0.002", "0.001", "1e-3"]).into(),
            "ttl" => number(self.time_to_live()),
            "ttlms" => number(self.time_to_live() * 1000),
            "at" => number(4_000_000_000 + self.time_to_live()),
            "atms" => number((4_000_000_000 + self.time_to_live()) * 1000),
            "bits" => self.chance.pick(&["u8", "i5", "u1", "i64", "u64"]).into(),
            "pat" => self.chance.pick(&["*", "m*", "m[13]", "x"]).into(),
            "score" => self.chance.pick(&["-inf", "+inf", "0", "(1", "3", "(3.5", "1000"]).into(),
            "lex" => self.chance.pick(&["-", "+", "[m1", "(m3", "[m4"]).into(),
            "lon" => self.chance.pick(&["13.361389", "15.087269", "2.35", "-0.1"]).into(),
            "lat" => self.chance.pick(&["38.115556", "37.502669", "48.85", "51.5"]).into(),
            "unit" => self.chance.pick(&["m", "km", "ft", "mi"]).into(),
            "group" => self.chance.pick(&["g1", "g1", "g2"]).into(),
            "consumer" => self.chance.pick(&["c1", "c2"]).into(),
            "id" => match self.chance.below(6) {
                0 => b"0".to_vec(),
                1 => b"+".to_vec(),
                2 => b"3-1".to_vec(),
                _ => number(self.chance.below(1 + self.step as usize) as i64),
            },
            "newid" => {
                self.step += 1;
                match self.chance.below(4) {
                    0 => format!("{}-*", self.step).into(),
                    _ => number(self.step as i64),
                }
            }
            "dump" => {
                let at = self.chance.below(self.dumps.len());
                self.dumps[at].clone()
            }
            "library" => LIBRARY.into(),
            "functions" => self.dumps[self.dumps.len() - 1].clone(),
            "script" => self.chance.pick(SCRIPTS).into(),
            "sha" => {
                let at = self.chance.below(self.shas.len() + 1);
                self.shas.get(at).map_or(vec![b'0'; 40], |sha| sha.clone().into())
            }
            other => panic!("no such kind of argument: {other}"),
        }
    }

    fn time_to_live(&mut self) -> i64 {
        self.step += 1;
        100_000 + 1_000 * self.step as i64
    }
}

/// A command with another one behind it, where it alone may leave two servers different.
fn completed(args: Args) -> Vec<Args> {
    if args[0].eq_ignore_ascii_case(b"hello") {
        // A HELLO that fails has set the name before, or not, depending on the server's version.
        return vec![args, ["CLIENT", "SETNAME", "named"].map(|word| word.as_bytes().to_vec()).to_vec()];
    }
    if args[0].eq_ignore_ascii_case(b"spop") && args.len() > 1 {
        // Which member went is not the same on two servers; then none must be left.
        let gone = vec![b"DEL".to_vec(), args[1].clone()];
        return vec![args, gone];
    }
    vec![args]
}

/// Where a group ends whose beginning has been read.
fn closing(words: &[&str]) -> usize {
    let mut open = 1;
    let end = words.iter().position(|word| {
        match *word {
            "[" | "(" | "{" | "#(" => open += 1,
            "]" | ")" | "}" => open -= 1,
            _ => {}
        }
        open == 0
    });
    end.expect("a group ends")
}

/// The parts between `/`; alternatives hold no groups with alternatives of their own.
fn alternatives<'a, 'w>(words: &'a [&'w str]) -> Vec<&'a [&'w str]> {
    words.split(|word| *word == "/").collect()
}

/// Takes out what would make two equal servers differ, or one of them suffer: the clock, chance, huge numbers.
fn tame(args: &mut Args, maker: &mut Maker) {
    let name = args[0].to_ascii_lowercase();
    let integer = |arg: &[u8]| std::str::from_utf8(arg).ok().and_then(|text| text.parse::<i64>().ok());
    let is = |arg: &[u8], word: &str| arg.eq_ignore_ascii_case(word.as_bytes());
    // What waits must not wait long, and never for ever.
    let waits = match name.as_slice() {
        b"blpop" | b"brpop" | b"blmove" | b"brpoplpush" | b"bzpopmin" | b"bzpopmax" | b"wait" => Some(args.len() - 1),
        b"blmpop" | b"bzmpop" => Some(1),
        _ => None,
    };
    if let Some(arg) = waits.and_then(|at| args.get_mut(at))
        && std::str::from_utf8(arg).ok().and_then(|text| text.parse::<f64>().ok()).is_some_and(f64::is_finite)
        && !arg.starts_with(b"-1")
        && !arg.starts_with(b"-9")
    {
        *arg = if name == b"wait" { b"1".to_vec() } else { b"0.001".to_vec() };
    }
    for at in 1..args.len() {
        let before = args[at - 1].clone();
        let Some(number) = integer(&args[at]) else {
            // An id that is the time.
            if name == b"xadd" && args[at] == b"*" {
                args[at] = b"0-1".to_vec();
            }
            continue;
        };
        let soon = (1..1_000_000_000).contains(&number);
        let changed = match name.as_slice() {
            b"xread" | b"xreadgroup" if is(&before, "block") && number >= 0 => Some(1),
            b"expire" | b"setex" if at == 2 && soon && number < 100_000 => Some(maker.time_to_live()),
            b"pexpire" | b"psetex" | b"restore" if at == 2 && soon && number < 100_000 => {
                Some(maker.time_to_live() * 1000)
            }
            b"set" | b"getex" if soon && number < 100_000 && (is(&before, "ex") || is(&before, "px")) => {
                Some(maker.time_to_live() * 1000)
            }
            b"setbit" | b"setrange" | b"bitfield" if (2_000..5_000_000_000).contains(&number) => Some(2_000),
            b"srandmember" | b"hrandfield" | b"zrandmember" if number < -100 && number > i64::MIN => Some(-5),
            b"xclaim" | b"xautoclaim" if at == 4 && soon => Some(0),
            b"xclaim" if is(&before, "idle") || is(&before, "time") => Some(0),
            b"xpending" if is(&before, "idle") && soon => Some(0),
            _ => None,
        };
        if let Some(changed) = changed {
            args[at] = changed.to_string().into_bytes();
        }
    }
}
