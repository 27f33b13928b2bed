//! Keys live where twemproxy puts them: the golden files were written by twemproxy itself (`tests/ring/make.py`, which
//! also tells their format), and where it is installed it is asked anew.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::print_stderr, reason = "says why the live test does nothing")]

use std::fs;
use std::path::Path;
use std::process::Command;

use hotring::ring::{Distribution, KeyHash, Ring, Shard, shard_name, socket_name};

/// Every golden file there must be, and how many cases it has.
const FILES: [(&str, usize); 7] =
    [("ejected", 8), ("ketama", 12), ("modula", 12), ("names", 9), ("sockets", 5), ("tags", 8), ("weights", 7)];

#[test]
fn keys_live_where_twemproxy_put_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ring");
    let golden = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "golden");
    let there = fs::read_dir(&folder).unwrap().filter(|entry| golden(entry.as_ref().unwrap())).count();
    assert_eq!(there, FILES.len(), "files in {}", folder.display());
    for (name, cases) in FILES {
        assert_eq!(check(&folder.join(name).with_extension("golden"), 10_000), cases, "cases in {name}");
    }
}

#[test]
fn keys_live_where_twemproxy_puts_them_now() {
    // Debian installs it where only root looks.
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    for (program, version) in [("nutcracker", "0.5.0"), ("redis-server", ""), ("python3", "Python 3")] {
        let Ok(output) = Command::new(program).arg("--version").env("PATH", &path).output() else {
            eprintln!("skipped: no {program} here, so twemproxy cannot be asked");
            return;
        };
        let said = [output.stdout, output.stderr].concat();
        if !String::from_utf8_lossy(&said).contains(version) {
            eprintln!("skipped: {program} is not {version}, so it may place keys differently");
            return;
        }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ring-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let make = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ring/make.py");
    let output = Command::new("python3").arg(make).arg("--live").arg(&folder).env("PATH", &path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (name, _) in FILES {
        assert_eq!(check(&folder.join(name).with_extension("golden"), 2_000), 1, "cases in {name}");
    }
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn keys_of_all_kinds_are_asked_for() {
    let keys = keys(10_000, 1);
    let with = |byte: &[u8]| keys.iter().filter(|key| key.windows(byte.len()).any(|window| window == byte)).count();
    assert!(keys.iter().any(Vec::is_empty));
    assert!(with(b"{") > 1000 && with(b"$") > 1000 && with(&[0xff]) > 50 && with("ж".as_bytes()) > 100);
}

/// Compares every key of every case of a golden file; gives the number of cases.
fn check(file: &Path, count: usize) -> usize {
    let text = fs::read_to_string(file).unwrap();
    let mut cases = 0;
    for text in text.split("case ").skip(1) {
        cases += 1;
        let case = Case::parse(text);
        assert_eq!(case.keys.len(), count, "{} {}: keys", file.display(), case.name);
        assert_eq!(case.placed.len(), count, "{} {}: placements", file.display(), case.name);
        let wrong: Vec<String> = case
            .keys
            .iter()
            .zip(&case.placed)
            .filter(|(key, placed)| case.ring.shard_of(key) != Some(**placed))
            .map(|(key, placed)| format!("{} is on {placed}, not {:?}", key.escape_ascii(), case.ring.shard_of(key)))
            .collect();
        let some = wrong.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
        assert!(wrong.is_empty(), "{} {}: {} keys, as\n{some}", file.display(), case.name, wrong.len());
    }
    cases
}

struct Case {
    name: String,
    ring: Ring,
    keys: Vec<Vec<u8>>,
    placed: Vec<u16>,
}

impl Case {
    fn parse(text: &str) -> Case {
        let mut lines = text.lines();
        let name = lines.next().unwrap().to_owned();
        let (mut hash, mut distribution, mut hash_tag) = (None, None, None);
        let (mut shards, mut ejected) = (Vec::new(), Vec::new());
        let keys = loop {
            let (word, value) = lines.next().unwrap().split_once(' ').unwrap();
            match word {
                "hash" => hash = Some(value.parse::<KeyHash>().unwrap()),
                "distribution" => distribution = Some(value.parse::<Distribution>().unwrap()),
                "hash_tag" => hash_tag = Some(value.as_bytes().try_into().unwrap()),
                "ejected" => ejected.extend(value.split(',').map(|number| number.parse::<usize>().unwrap())),
                "server" => shards.push(shard(value)),
                "keys" => {
                    let (count, seed) = value.split_once(' ').unwrap();
                    break keys(count.parse().unwrap(), seed.parse().unwrap());
                }
                _ => panic!("{name}: what is `{word}`?"),
            }
        };
        let live: Vec<bool> = (0..shards.len()).map(|i| !ejected.contains(&i)).collect();
        let ring = Ring::new(&shards, &live, hash.unwrap(), distribution.unwrap(), hash_tag);
        let placed = lines.flat_map(str::chars).map(|digit| digit.to_digit(36).unwrap() as u16).collect();
        Case { name, ring, keys, placed }
    }
}

/// `host:port:weight [alias]` or `/path:weight [alias]`.
fn shard(line: &str) -> Shard {
    let (address, alias) = line.split_once(' ').map_or((line, None), |(address, alias)| (address, Some(alias)));
    let (address, weight) = address.rsplit_once(':').unwrap();
    let name = match address.rsplit_once(':') {
        Some((host, port)) => shard_name(alias, host, port.parse().unwrap()),
        None => socket_name(alias, address),
    };
    Shard { name, weight: weight.parse().unwrap() }
}

/// The keys of a case: `keys` in `make.py`, draw for draw.
fn keys(count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut draw = Draw(seed);
    (0..count).map(|_| draw.key()).collect()
}

/// splitmix64.
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, count: u64, mut byte: impl FnMut(&mut Draw) -> u8) -> Vec<u8> {
        (0..count).map(|_| byte(self)).collect()
    }

    fn key(&mut self) -> Vec<u8> {
        match self.below(9) {
            0 => format!("user:{}", self.below(1_000_000)).into_bytes(),
            1 => format!("session:{:016x}:{}", self.next(), self.below(100)).into_bytes(),
            2 => {
                let count = 1 + self.below(40);
                self.bytes(count, |draw| draw.below(256) as u8)
            }
            3 => {
                let count = 1 + self.below(12);
                let letters = (0..count).map(|_| char::from_u32(0x430 + self.below(32) as u32).unwrap());
                letters.collect::<String>().into_bytes()
            }
            4 => format!("a:{}:{{{}}}:{}", self.below(1000), self.below(1000), self.below(1000)).into_bytes(),
            5 => format!("b:{}:${}$:{}", self.below(1000), self.below(1000), self.below(1000)).into_bytes(),
            6 => {
                let count = self.below(9);
                self.bytes(count, |draw| b"{}$ab"[draw.below(5) as usize])
            }
            7 => format!("shard{}-{}", self.below(12), self.below(40)).into_bytes(),
            _ => {
                let count = 100 + self.below(200);
                self.bytes(count, |draw| 0x20 + draw.below(95) as u8)
            }
        }
    }
}
