//! A strict reader of the Prometheus text format 0.0.4, written from its description and without the code under test.
//! Stricter than Prometheus: help and type come first and exactly once, a family's samples are contiguous, no blank line,
//! no timestamp, no series twice, histograms complete.

use std::collections::{BTreeMap, BTreeSet};

/// A metric family as read.
#[derive(Debug)]
pub(crate) struct Family {
    pub(crate) kind: String,
    #[allow(dead_code, reason = "not every test asks for it")]
    pub(crate) help: String,
    pub(crate) samples: Vec<Sample>,
}

/// One line with a value.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

/// All families by name, or what is wrong with the text.
pub(crate) fn read(text: &str) -> Result<BTreeMap<String, Family>, String> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut lines = text.strip_suffix('\n').ok_or("the last line does not end")?.split('\n').peekable();
    while let Some(line) = lines.next() {
        let (name, help) =
            line.strip_prefix("# HELP ").and_then(|l| l.split_once(' ')).ok_or(format!("help? {line}"))?;
        metric_name(name)?;
        let kind = lines.next().and_then(|l| l.strip_prefix("# TYPE ")?.strip_prefix(name)?.strip_prefix(' '));
        let kind = kind.filter(|k| ["counter", "gauge", "histogram"].contains(k)).ok_or(format!("type of {name}?"))?;
        let mut samples = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let sample = sample(line).map_err(|wrong| format!("{wrong}: {line}"))?;
            if !seen.insert(line.rsplit_once(' ').map(|(series, _)| series.to_owned())) {
                return Err(format!("twice: {line}"));
            }
            samples.push(sample);
        }
        let family = Family { kind: kind.to_owned(), help: help.to_owned(), samples };
        check(name, &family).map_err(|wrong| format!("{name}: {wrong}"))?;
        if families.insert(name.to_owned(), family).is_some() {
            return Err(format!("two families {name}"));
        }
    }
    Ok(families)
}

fn metric_name(name: &str) -> Result<(), String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let good = name.chars().all(valid) && name.chars().next().is_some_and(|c| !c.is_ascii_digit());
    if good { Ok(()) } else { Err(format!("`{name}` is no metric name")) }
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, mut rest) = line.split_at(end);
    metric_name(name)?;
    let mut labels = Vec::new();
    if let Some(mut inside) = rest.strip_prefix('{') {
        loop {
            let (label, after) = inside.split_once("=\"").ok_or("a label without a value")?;
            let valid = |c: char| c.is_ascii_lowercase() || c == '_';
            if label.is_empty() || !label.chars().all(valid) || labels.iter().any(|(known, _)| known == label) {
                return Err(format!("label `{label}`"));
            }
            let (value, after) = quoted(after)?;
            labels.push((label.to_owned(), value));
            if let Some(after) = after.strip_prefix(',') {
                inside = after;
            } else {
                rest = after.strip_prefix('}').ok_or("labels without an end")?;
                break;
            }
        }
    }
    let value = rest.strip_prefix(' ').ok_or("no space before the value")?;
    let digits = |c: char| c.is_ascii_digit() || ".-".contains(c);
    if value.is_empty() || !value.chars().all(digits) {
        return Err(format!("value `{value}`"));
    }
    let value = value.parse().map_err(|_| format!("value `{value}`"))?;
    Ok(Sample { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and what comes after.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match chars.next() {
                Some((_, '\\')) => '\\',
                Some((_, '"')) => '"',
                Some((_, 'n')) => '\n',
                _ => return Err("an unknown escape".to_owned()),
            }),
            c if c.is_control() => return Err("a control character".to_owned()),
            c => value.push(c),
        }
    }
    Err("a quote without an end".to_owned())
}

fn check(name: &str, family: &Family) -> Result<(), String> {
    if family.samples.is_empty() {
        return Err("no samples".to_owned());
    }
    if family.samples.iter().any(|sample| sample.value < 0.0) {
        return Err("a negative value".to_owned());
    }
    if family.kind == "histogram" {
        return histogram(name, &family.samples);
    }
    match family.samples.iter().find(|sample| sample.name != name) {
        Some(stray) => Err(format!("a sample of {}", stray.name)),
        None => Ok(()),
    }
}

/// Every series is buckets in ascending order of `le` with counts that never fall, ending in `+Inf`; then sum and count.
fn histogram(name: &str, samples: &[Sample]) -> Result<(), String> {
    let mut rest = samples.iter();
    while let Some(first) = rest.next() {
        let (mut sample, mut bound, mut below) = (first, f64::NEG_INFINITY, 0.0);
        let labels = &first.labels[..first.labels.len().saturating_sub(1)];
        while bound.is_finite() || bound == f64::NEG_INFINITY {
            let le = sample.labels.last().filter(|(label, _)| label == "le").ok_or("a bucket without le")?;
            let next = if le.1 == "+Inf" { f64::INFINITY } else { le.1.parse().map_err(|_| "le is no number")? };
            let same = sample.name == format!("{name}_bucket") && sample.labels[..sample.labels.len() - 1] == *labels;
            if !same || next <= bound || sample.value < below {
                return Err(format!("bucket {} out of order", le.1));
            }
            (bound, below) = (next, sample.value);
            sample = rest.next().ok_or("no sum")?;
        }
        if sample.name != format!("{name}_sum") || sample.labels != labels {
            return Err("no sum".to_owned());
        }
        let count = rest.next().ok_or("no count")?;
        if count.name != format!("{name}_count") || count.labels != labels || count.value != below {
            return Err("the count is not that of +Inf".to_owned());
        }
    }
    Ok(())
}

#[test]
fn the_reader_refuses_what_is_wrong() {
    let good = "# HELP a_total b\n# TYPE a_total counter\na_total{x=\"y\\\"\\\\\"} 1\n";
    assert_eq!(read(good).unwrap()["a_total"].samples[0].labels[0].1, "y\"\\");
    for (from, to) in [
        ("} 1\n", "} 1"),
        ("} 1\n", "} 1\n\n"),
        ("} 1\n", "} -1\n"),
        ("} 1\n", "} NaN\n"),
        ("} 1\n", "} 1 2\n"),
        ("} 1\n", "}  1\n"),
        ("} 1\n", ",} 1\n"),
        ("a_total{", "other{"),
        ("x=\"", "x=\"\\q"),
        ("counter", "count"),
        ("# HELP a_total b\n", ""),
        ("TYPE a_total", "TYPE b_total"),
    ] {
        assert!(read(&good.replacen(from, to, 1)).is_err(), "{from:?} -> {to:?}");
    }
    assert!(read(&good.repeat(2)).is_err());
    let buckets = "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n";
    read(buckets).unwrap();
    for (from, to) in [("h_count 2", "h_count 3"), ("} 1", "} 4"), ("+Inf", "0.5"), ("h_sum 3\n", ""), ("+Inf", "2")] {
        assert!(read(&buckets.replacen(from, to, 1)).is_err(), "{from:?} -> {to:?}");
    }
}
