//! What came of a comparison, as a table and as JSON.

use super::load::{Load, Measured, Until};
use serde_json::{Value, json};

/// Threads that are as busy as this limit what is measured.
const BUSY: f64 = 0.9;
/// The width of a column.
const WIDTH: usize = 14;

/// A round: each side measured once, one soon after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Round {
    /// The server, if there is one to compare with.
    pub direct: Option<Measured>,
    /// The proxy.
    pub proxy: Option<Measured>,
}

/// Of several values the middle one and those farthest from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The least.
    pub least: f64,
    /// The middle one, or the mean of the two that are.
    pub median: f64,
    /// The greatest.
    pub most: f64,
}

impl Spread {
    /// Of these; `None` of none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut all: Vec<f64> = values.into_iter().collect();
        all.sort_by(f64::total_cmp);
        let (&least, &most) = (all.first()?, all.last()?);
        let middle = |at: usize| all.get(at).copied().unwrap_or(least);
        let median = (middle((all.len() - 1) / 2) + middle(all.len() / 2)) / 2.0;
        Some(Self { least, median, most })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "least": self.least, "most": self.most })
    }
}

/// A row: its name here and in JSON, how a number is written, whether it is to be compared, and what it is of a measurement.
struct Row {
    name: &'static str,
    field: &'static str,
    write: fn(f64) -> String,
    compared: bool,
    of: fn(&Measured) -> Option<f64>,
}

const ROWS: [Row; 7] = [
    Row {
        name: "requests a second",
        field: "requests_per_second",
        write: whole,
        compared: true,
        of: |m| Some(m.rate()),
    },
    Row { name: "p50, us", field: "p50_us", write: whole, compared: true, of: |m| Some(m.quantile(0.5)) },
    Row { name: "p95, us", field: "p95_us", write: whole, compared: true, of: |m| Some(m.quantile(0.95)) },
    Row { name: "p99, us", field: "p99_us", write: whole, compared: true, of: |m| Some(m.quantile(0.99)) },
    Row { name: "errors", field: "errors", write: whole, compared: false, of: |m| Some(m.errors as f64) },
    Row {
        name: "proxy's CPU a request, us",
        field: "cpu_us_per_request",
        write: tenths,
        compared: false,
        of: Measured::cpu_each,
    },
    Row {
        name: "asking threads' CPU, %",
        field: "own_cpu",
        write: |busy| whole(100.0 * busy),
        compared: false,
        of: |m| Some(m.busy()),
    },
];

impl Round {
    /// In a line.
    pub(super) fn told(&self) -> String {
        let side = |name: &str, measured: &Measured| {
            let errors = if measured.errors > 0 { format!(", {} errors", measured.errors) } else { String::new() };
            format!("{name} {}/s, p99 {} us{errors}", whole(measured.rate()), whole(measured.quantile(0.99)))
        };
        let sides = [("direct", &self.direct), ("proxy", &self.proxy)];
        let mut told: Vec<String> =
            sides.iter().filter_map(|(name, measured)| Some(side(name, measured.as_ref()?))).collect();
        if let (Some(direct), Some(proxy)) = (&self.direct, &self.proxy) {
            told.push(format!("proxy/direct {}", hundredths(proxy.rate() / direct.rate().max(1e-9))));
        }
        told.join(" | ")
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was asked.
    pub load: Load,
    /// Whether the proxy was in the process that asked.
    pub inside: bool,
    /// Whether it was ended before its last round.
    pub early: bool,
    /// What was measured.
    pub rounds: Vec<Round>,
    /// What happened that should not have.
    pub warnings: Vec<String>,
}

impl Report {
    pub(super) fn new(load: Load, inside: bool) -> Self {
        Self { load, inside, early: false, rounds: Vec::new(), warnings: Vec::new() }
    }

    fn side(&self, direct: bool) -> impl Iterator<Item = &Measured> {
        self.rounds.iter().filter_map(move |round| if direct { round.direct.as_ref() } else { round.proxy.as_ref() })
    }

    fn spread(&self, direct: bool, row: &Row) -> Option<Spread> {
        // The proxy's CPU is nothing that a server has.
        Spread::of(self.side(direct).filter_map(row.of))
    }

    /// What the proxy has of what the server has, within each round.
    fn ratio(&self, row: &Row) -> Option<Spread> {
        let of = |round: &Round| {
            let (direct, proxy) = ((row.of)(round.direct.as_ref()?)?, (row.of)(round.proxy.as_ref()?)?);
            (row.compared && direct > 0.0).then_some(proxy / direct)
        };
        Spread::of(self.rounds.iter().filter_map(of))
    }

    /// What makes the figures say less than they seem to.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = self.warnings.clone();
        for (name, direct) in [("direct", true), ("proxy", false)] {
            let busy = Spread::of(self.side(direct).map(Measured::busy)).map_or(0.0, |busy| busy.median);
            if busy >= BUSY {
                doubts.push(format!(
                    "the asking threads were busy for {} % of the {name} side: what they can do was measured, and not what {name} can; \
                     try more --threads",
                    whole(100.0 * busy)
                ));
            }
            if let Some(error) = self.side(direct).filter_map(|measured| measured.error.as_ref()).last() {
                let text: String = error.chars().flat_map(char::escape_debug).collect();
                doubts.push(format!("the {name} side answered with errors, such as: {text}"));
            }
        }
        if self.inside {
            doubts.push(
                "the proxy shares this process with those who ask; one of its own (`hotring -c FILE`, and --proxy) tells more".into(),
            );
        }
        if cfg!(debug_assertions) {
            doubts.push("this hotring was built without optimization: build it with `cargo build --release`".into());
        }
        doubts
    }

    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        if self.early {
            text += "Ended early.\n";
        }
        if self.rounds.is_empty() {
            return text + "Nothing was measured.\n";
        }
        let compares = self.side(true).next().is_some();
        let mut line = |name: &str, cells: &[String]| {
            let cells: String = cells.iter().map(|cell| format!("{cell:>WIDTH$}")).collect();
            text += format!("{name:<26}{cells}").trim_end();
            text.push('\n');
        };
        match compares {
            true => {
                line("median of the rounds", &["direct", "proxy", "proxy/direct", "least", "most"].map(String::from))
            }
            false => line("median of the rounds", &["proxy", "least", "most"].map(String::from)),
        }
        for row in &ROWS {
            let shown = |spread: Option<Spread>| spread.map_or_else(|| "-".to_owned(), |s| (row.write)(s.median));
            let proxy = self.spread(false, row);
            if proxy.is_none() {
                continue;
            }
            if !compares {
                let ends = proxy.map_or([0.0; 2], |s| [s.least, s.most]).map(row.write);
                line(row.name, &[&[shown(proxy)][..], &ends].concat());
                continue;
            }
            let direct = self.spread(true, row);
            let ratio = self.ratio(row).map(|ratio| [ratio.median, ratio.least, ratio.most].map(hundredths));
            let ratio = ratio.unwrap_or_default();
            line(row.name, &[&[shown(direct), shown(proxy)][..], &ratio].concat());
        }
        for doubt in self.doubts() {
            text += &format!("note: {doubt}\n");
        }
        text
    }

    /// For machines: what each round had, and what the table has.
    #[must_use]
    pub fn json(&self) -> Value {
        let measured = |measured: &Measured| -> Value {
            let fields = ROWS.iter().filter_map(|row| Some((row.field.to_owned(), json!((row.of)(measured)?))));
            fields.chain([("requests".to_owned(), json!(measured.requests))]).collect()
        };
        let rounds: Vec<Value> = self
            .rounds
            .iter()
            .map(|round| json!({ "direct": round.direct.as_ref().map(measured), "proxy": round.proxy.as_ref().map(measured) }))
            .collect();
        let all = |of: &dyn Fn(&Row) -> Option<Spread>| -> Value {
            ROWS.iter().filter_map(|row| Some((row.field.to_owned(), of(row)?.json()))).collect()
        };
        let Load { clients, threads, pipeline, size, keys, workload, until } = self.load;
        let (seconds, requests) = match until {
            Until::Time(time) => (Some(time.as_secs_f64()), None),
            Until::Requests(count) => (None, Some(count)),
        };
        json!({
            "hotring": env!("CARGO_PKG_VERSION"),
            "load": {
                "workload": workload.name(), "clients": clients, "threads": threads, "pipeline": pipeline, "size": size,
                "keys": keys, "seconds": seconds, "requests": requests,
            },
            "proxy_in_this_process": self.inside,
            "ended_early": self.early,
            "rounds": rounds,
            "direct": all(&|row| self.spread(true, row)),
            "proxy": all(&|row| self.spread(false, row)),
            "proxy_to_direct": all(&|row| self.ratio(row)),
            "notes": self.doubts(),
        })
    }
}

fn hundredths(number: f64) -> String {
    format!("{number:.2}")
}

fn tenths(number: f64) -> String {
    format!("{number:.1}")
}

/// A whole number, its digits in threes.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::load::Workload;
    use super::*;
    use crate::metrics::SharedHistogram;
    use std::time::Duration;

    fn measured(requests: u64, busy: u64) -> Measured {
        Measured {
            requests,
            errors: 0,
            error: None,
            took: Duration::from_secs(1),
            latency: SharedHistogram::default().snapshot(),
            own_cpu: Duration::from_millis(busy * 10),
            threads: 1,
            cpu: None,
        }
    }

    fn report(rounds: Vec<Round>) -> Report {
        let until = Until::Time(Duration::from_secs(1));
        let load = Load { clients: 1, threads: 1, pipeline: 1, size: 1, keys: 1, workload: Workload::Get, until };
        Report { rounds, ..Report::new(load, false) }
    }

    #[test]
    fn the_middle_is_the_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0, 1.0, 8.0]), Some(Spread { least: 1.0, median: 3.0, most: 8.0 }));
        assert_eq!(Spread::of([4.0, 1.0]).map(|spread| spread.median), Some(2.5));
        assert_eq!([0.0, 999.0, 1000.0, 1234567.4].map(whole), ["0", "999", "1,000", "1,234,567"]);
    }

    /// A machine that is slow in one round is slow for both sides.
    #[test]
    fn what_is_compared_is_within_a_round() {
        let round = |direct, proxy| Round { direct: Some(measured(direct, 10)), proxy: Some(measured(proxy, 10)) };
        let report = report(vec![round(1000, 900), round(100, 80), round(1000, 700)]);
        let row = ROWS.iter().find(|row| row.field == "requests_per_second").unwrap();
        assert_eq!(report.ratio(row), Some(Spread { least: 0.7, median: 0.8, most: 0.9 }));
        let table = report.table();
        let line = table.lines().find(|line| line.starts_with("requests a second")).unwrap();
        assert_eq!(line.split_whitespace().skip(3).collect::<Vec<_>>(), ["1,000", "700", "0.80", "0.70", "0.90"]);
        assert!(!table.contains("proxy's CPU") && !table.contains("were busy"), "{table}");
        assert_eq!(report.json()["proxy_to_direct"]["requests_per_second"]["median"], 0.8);
    }

    #[test]
    fn who_measures_itself_says_so() {
        let mut busy = report(vec![Round { direct: None, proxy: Some(measured(1000, 97)) }]);
        assert!(busy.table().contains("busy for 97 % of the proxy side"), "{}", busy.table());
        let first = busy.rounds[0].proxy.as_mut().unwrap();
        (first.errors, first.error) = (1, Some("ERR \u{1b}[2J".into()));
        assert!(busy.table().contains("such as: ERR \\u{1b}[2J\n"), "{}", busy.table());
        assert_eq!(busy.json()["direct"], json!({}));
        assert_eq!(report(Vec::new()).table(), "Nothing was measured.\n");
    }
}
