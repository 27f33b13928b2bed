//! What is wrong with a file: all of it at once, each with its place.
//!
//! Promises: one line a problem, in the order of the file; what was read is shown shortened and never a secret.

use std::fmt;
use std::path::{Path, PathBuf};

use super::yaml::{self, Node, Place};
use crate::units::Expected;

/// More than this many and the rest is only counted.
const MAX_SHOWN: usize = 50;
/// Characters of a wrong value that are shown.
const MAX_READ: usize = 60;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Line and column from 1; `None` where the whole file is meant.
    pub place: Option<(usize, usize)>,
    /// The key, such as `pools.main.timeout`; empty where the whole file is meant.
    pub key: String,
    /// What was read and what was expected.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.text)
    }
}

/// Everything that is wrong with a file, at least one thing. `Display` gives one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// One by one, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    pub(super) fn of_file(path: &Path, place: Option<Place>, text: impl Into<String>) -> Self {
        Self(vec![Problem { path: path.to_owned(), place, key: String::new(), text: text.into() }])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Gathers problems while a tree is read, by node; places are looked up at the end.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<Found>,
    files: Vec<PathBuf>,
    /// Those of them that hold a secret.
    secrets: Vec<PathBuf>,
    /// A secret stands in the file itself.
    holds_secret: bool,
}

impl Report {
    /// Notes that a secret stands in the file itself.
    pub(super) fn holds_secret(&mut self) {
        self.holds_secret = true;
    }

    /// Notes a file that holds a secret.
    pub(super) fn keeps_secret(&mut self, file: PathBuf) {
        if !self.secrets.contains(&file) {
            self.secrets.push(file);
        }
    }

    /// The files that hold secrets; `path` is the one that is read.
    pub(super) fn secrets(&mut self, path: &Path) -> Vec<PathBuf> {
        let own = self.holds_secret.then(|| path.to_owned());
        own.into_iter().chain(std::mem::take(&mut self.secrets)).collect()
    }

    /// Notes a file that was read for the sake of this one.
    pub(super) fn depends_on(&mut self, file: PathBuf) {
        self.files.push(file);
    }

    /// The files that were noted.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.files.clone()
    }
}

#[derive(Debug)]
struct Found {
    at: usize,
    key: String,
    text: String,
    first: Option<usize>,
}

impl Report {
    /// Something is wrong at a node.
    pub(super) fn add(&mut self, at: usize, key: impl Into<String>, text: impl Into<String>) {
        self.found.push(Found { at, key: key.into(), text: text.into(), first: None });
    }

    /// Something stands twice; the message ends with the line of the first.
    pub(super) fn twice(&mut self, at: usize, first: usize, key: impl Into<String>, text: impl Into<String>) {
        self.found.push(Found { at, key: key.into(), text: text.into(), first: Some(first) });
    }

    /// A node is not what it should be.
    pub(super) fn unfit(&mut self, node: &Node, key: &str, expected: &Expected) {
        self.add(node.id, key, format!("read {}, expected {expected}", shown(node)));
    }

    /// As [`unfit`](Self::unfit) for nodes whose text is not for everybody's eyes.
    pub(super) fn unfit_secret(&mut self, node: &Node, key: &str, expected: &Expected) {
        let read = if node.text().is_some_and(|text| !text.is_empty()) { "a text" } else { &shown(node) };
        self.add(node.id, key, format!("read {read}, expected {expected}"));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All problems with their places in `text`.
    pub(super) fn finish(mut self, text: &str, path: &Path) -> Problems {
        // Looking up a place walks the text, so only what is shown is looked up; numbers follow the order of the file.
        self.found.sort_by_key(|found| found.at);
        let more = self.found.len().saturating_sub(MAX_SHOWN);
        self.found.truncate(MAX_SHOWN);
        let mut problems: Vec<Problem> = self.found.into_iter().map(|found| found.place(text, path)).collect();
        problems.sort_by_key(|problem| problem.place);
        if more > 0 {
            let text = format!("{more} more problems are not shown");
            problems.push(Problem { path: path.to_owned(), place: None, key: String::new(), text });
        }
        Problems(problems)
    }
}

impl Found {
    fn place(self, text: &str, path: &Path) -> Problem {
        let mut said = self.text;
        if let Some(first) = self.first {
            said = format!("{said}, first on line {}", yaml::locate(text, first).0);
        }
        Problem { path: path.to_owned(), place: Some(yaml::locate(text, self.at)), key: self.key, text: said }
    }
}

/// A node in a message.
fn shown(node: &Node) -> String {
    match &node.kind {
        yaml::Kind::Null => "nothing".to_owned(),
        yaml::Kind::List(_) => "a list".to_owned(),
        yaml::Kind::Map(_) => "a map".to_owned(),
        yaml::Kind::Scalar(text) if text.is_empty() => "an empty text".to_owned(),
        yaml::Kind::Scalar(text) => quoted(text),
    }
}

/// A text in a message: in backticks, without control characters, not endless.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (i, c) in text.chars().enumerate() {
        if i == MAX_READ {
            out.push_str("...");
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.push('`');
    out
}
