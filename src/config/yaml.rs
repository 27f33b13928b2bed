//! YAML text to a tree of nodes, and from a node back to its line and column.
//!
//! The only file that names `serde_yaml`. That library stops at the first wrong value and its own tree knows no places, so
//! the tree here is untyped and keeps every scalar as it was written (`007` stays `007`, as twemproxy takes it); what a
//! scalar means is decided by the reader of a key. Places are looked up only when there is something to complain of: a
//! document is walked again, the walk fails on purpose at the node in question, and the library tells where it failed.
//!
//! Promises: bounded work for any input (bytes, nodes after aliases are followed, depth); two equal keys of a map are both
//! kept, for the reader to refuse. Absent on purpose: tags, directives and merge keys.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected,
    Visitor,
};

/// Bytes a file may have.
pub(super) const MAX_BYTES: usize = 1 << 20;
const MAX_NODES: usize = 100_000;
const MAX_DEPTH: usize = 16;

/// A place in a text, both counted from 1; columns count characters.
pub(super) type Place = (usize, usize);

/// One value or key of a document.
#[derive(Debug)]
pub(super) struct Node {
    /// Its number in the order of the document, for [`locate`].
    pub(super) id: usize,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Nothing, `~` or `null`, unquoted.
    Null,
    /// Any other scalar, quoted or not, as text.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// The entries of a map.
    pub(super) fn entries(&self) -> Option<&[(Self, Self)]> {
        match &self.kind {
            Kind::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value at a key of a map.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        self.entries()?.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
    }
}

/// Why a text is no tree.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) place: Option<Place>,
    pub(super) text: String,
}

/// Reads one document; an empty one is a `Null`.
pub(super) fn read(text: &str) -> Result<Node, Broken> {
    if text.len() > MAX_BYTES {
        return Err(Broken {
            place: None,
            text: format!("more than {MAX_BYTES} bytes, expected a configuration file"),
        });
    }
    refuse_bombs(text)?;
    let left = Cell::new(MAX_NODES);
    let shape = Survey { left: &left, depth: 0 }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| broken(text, &error))?;
    let next = Cell::new(0);
    Reading { shape: &shape, next: &next }
        .deserialize(serde_yaml::Deserializer::from_str(text))
        .map_err(|error| broken(text, &error))
}

/// Where the node numbered `id` stands in the text it was read from. An aliased node stands where its anchor does.
pub(super) fn locate(text: &str, id: usize) -> Place {
    let next = Cell::new(0);
    let seed = Search { target: id, next: &next };
    match seed.deserialize(serde_yaml::Deserializer::from_str(text)) {
        Ok(()) => (1, 1),
        Err(found) => found.location().map_or((1, 1), |at| (at.line(), at.column())),
    }
}

/// The library reads a whole document before the first visitor sees it, in time that is square in the depth of `[[[[` and
/// in the number of `%TAG` lines. Brackets inside a text or a comment count too, but no file of ours has so many open.
fn refuse_bombs(text: &str) -> Result<(), Broken> {
    const MAX_OPEN: usize = 1000;
    let broken = |line, column, text: &str| Err(Broken { place: Some((line + 1, column + 1)), text: text.to_owned() });
    let mut open = 0usize;
    for (line, characters) in text.lines().enumerate() {
        if characters.starts_with('%') {
            return broken(line, 0, "a directive (`%`), expected a plain document");
        }
        for (column, character) in characters.chars().enumerate() {
            match character {
                '[' | '{' => open += 1,
                ']' | '}' => open = open.saturating_sub(1),
                _ => continue,
            }
            if open > MAX_OPEN {
                return broken(line, column, "nested too deep");
            }
        }
    }
    Ok(())
}

fn broken(document: &str, error: &serde_yaml::Error) -> Broken {
    let place = error.location().map(|at| (at.line(), at.column()));
    let mut text = error.to_string();
    if let Some((line, column)) = place {
        text = text.replacen(&format!(" at line {line} column {column}"), "", 1);
    }
    // What fails even with nobody listening is the text's fault, not its meaning's.
    match IgnoredAny::deserialize(serde_yaml::Deserializer::from_str(document)) {
        Ok(_) => Broken { place, text },
        Err(_) if place.is_some() => Broken { place, text: format!("not YAML: {text}") },
        Err(_) => {
            let text = "a second document begins, expected only one".to_owned();
            Broken { place: second_document(document), text }
        }
    }
}

/// The `---` or `...` that ends the first document.
fn second_document(text: &str) -> Option<Place> {
    let mut begun = false;
    for (line, characters) in text.lines().enumerate() {
        let mark = matches!(characters.split_whitespace().next(), Some("---" | "...")) && !characters.starts_with(' ');
        if mark && begun {
            return Some((line + 1, 1));
        }
        begun |= !characters.trim_start().is_empty() && !characters.trim_start().starts_with('#');
    }
    None
}

/// What kinds of nodes a document has, without their texts: `deserialize_any` tells the kind but turns `007` into
/// something else, `deserialize_str` gives the text but must know that there is one. Hence two walks.
enum Shape {
    Null,
    Scalar,
    List(Vec<Shape>),
    Map(Vec<(Shape, Shape)>),
}

#[derive(Clone, Copy)]
struct Survey<'a> {
    left: &'a Cell<usize>,
    depth: usize,
}

impl Survey<'_> {
    fn count<E: serde::de::Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| E::custom(format!("more than {MAX_NODES} values")))?);
        Ok(())
    }

    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(Survey { left: self.left, depth: self.depth + 1 })
    }

    fn scalar<E: serde::de::Error>(self) -> Result<Shape, E> {
        self.count().map(|()| Shape::Scalar)
    }
}

impl<'de> DeserializeSeed<'de> for Survey<'_> {
    type Value = Shape;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Shape, D::Error> {
        from.deserialize_any(self)
    }
}

/// The visits of every kind of scalar, all answered alike.
macro_rules! scalars {
    ($($visit:ident: $type:ty),* => $answer:ident) => {
        $(fn $visit<E: serde::de::Error>(self, _: $type) -> Result<Self::Value, E> {
            self.$answer()
        })*
    };
}

impl<'de> Visitor<'de> for Survey<'_> {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64,
        visit_str: &str => scalar);

    fn visit_unit<E: serde::de::Error>(self) -> Result<Shape, E> {
        self.count().map(|()| Shape::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Shape, E> {
        self.visit_unit()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
        self.count()?;
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Shape::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        self.count()?;
        let inner = self.deeper()?;
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry_seed(inner, inner)? {
            entries.push(entry);
        }
        Ok(Shape::Map(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<Shape, A::Error> {
        Err(A::Error::custom("a tag (`!`), expected a plain value"))
    }
}

/// The second walk: fills a known shape with texts and numbers.
#[derive(Clone, Copy)]
struct Reading<'a> {
    shape: &'a Shape,
    next: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Node, D::Error> {
        let id = self.next.replace(self.next.get() + 1);
        let kind = match self.shape {
            Shape::Null => from.deserialize_ignored_any(IgnoredAny).map(|_| Kind::Null),
            Shape::Scalar => from.deserialize_str(self),
            Shape::List(_) => from.deserialize_seq(self),
            Shape::Map(_) => from.deserialize_map(self),
        };
        Ok(Node { id, kind: kind? })
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Kind, A::Error> {
        let Shape::List(shapes) = self.shape else {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        };
        let mut items = Vec::with_capacity(shapes.len());
        for shape in shapes {
            items.extend(list.next_element_seed(Reading { shape, ..self })?);
        }
        Ok(Kind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let Shape::Map(shapes) = self.shape else {
            return Err(A::Error::invalid_type(Unexpected::Map, &self));
        };
        let mut entries = Vec::with_capacity(shapes.len());
        for (key, value) in shapes {
            entries.extend(map.next_entry_seed(Reading { shape: key, ..self }, Reading { shape: value, ..self })?);
        }
        Ok(Kind::Map(entries))
    }
}

/// A walk that counts as `Reading` does and fails at one node.
#[derive(Clone, Copy)]
struct Search<'a> {
    target: usize,
    next: &'a Cell<usize>,
}

impl Search<'_> {
    fn step<E: serde::de::Error>(self) -> Result<(), E> {
        if self.next.replace(self.next.get() + 1) == self.target { Err(E::custom("here")) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value")
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_i128: i128, visit_u128: u128, visit_f64: f64,
        visit_str: &str => step);

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.step()
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<(), E> {
        self.step()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.step()?;
        while list.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.step()?;
        while map.next_entry_seed(self, self)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every scalar of a tree with its place.
    fn places(text: &str) -> Vec<(String, Place)> {
        fn walk(node: &Node, text: &str, out: &mut Vec<(String, Place)>) {
            match &node.kind {
                Kind::Null => out.push(("~".to_owned(), locate(text, node.id))),
                Kind::Scalar(scalar) => out.push((scalar.clone(), locate(text, node.id))),
                Kind::List(items) => items.iter().for_each(|item| walk(item, text, out)),
                Kind::Map(entries) => {
                    for (key, value) in entries {
                        walk(key, text, out);
                        walk(value, text, out);
                    }
                }
            }
        }
        let mut out = Vec::new();
        walk(&read(text).unwrap(), text, &mut out);
        out
    }

    fn placed(list: &[(&str, Place)]) -> Vec<(String, Place)> {
        list.iter().map(|(text, place)| ((*text).to_owned(), *place)).collect()
    }

    #[test]
    fn scalars_keep_their_text_and_have_places() {
        let text = "a: 007\nb:\n  - 1.10\n  - \"x y\"   # said\n  - [0x10, {c: True}]\n'd': ~\n";
        assert_eq!(
            places(text),
            placed(&[
                ("a", (1, 1)),
                ("007", (1, 4)),
                ("b", (2, 1)),
                ("1.10", (3, 5)),
                ("x y", (4, 5)),
                ("0x10", (5, 6)),
                ("c", (5, 13)),
                ("True", (5, 16)),
                ("d", (6, 1)),
                ("~", (6, 6)),
            ])
        );
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(places("é: [ü, x]"), placed(&[("é", (1, 1)), ("ü", (1, 5)), ("x", (1, 8))]));
    }

    #[test]
    fn containers_stand_where_they_begin() {
        let text = "a:\n  b: 1\nc: {d: 2}\n";
        let root = read(text).unwrap();
        assert_eq!(locate(text, root.get("a").unwrap().id), (2, 3));
        assert_eq!(locate(text, root.get("c").unwrap().id), (3, 4));
    }

    #[test]
    fn equal_keys_are_both_kept() {
        assert_eq!(read("a: 1\na: 2\n").unwrap().entries().map(<[_]>::len), Some(2));
    }

    #[test]
    fn aliases_are_followed() {
        let text = "a: &x\n  - 1\nb: *x\nc: 3\n";
        assert_eq!(
            places(text),
            placed(&[("a", (1, 1)), ("1", (2, 5)), ("b", (3, 1)), ("1", (2, 5)), ("c", (4, 1)), ("3", (4, 4))])
        );
    }

    #[test]
    fn an_empty_document_is_nothing() {
        for text in ["", "\n", "# only a comment\n", "---\n"] {
            assert!(matches!(read(text).unwrap().kind, Kind::Null), "{text:?}");
        }
    }

    #[test]
    fn bombs_do_not_go_off() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..9 {
            let of = format!("*a{}, ", i - 1).repeat(9);
            laughs.push_str(&format!("a{i}: &a{i} [{of}]\n"));
        }
        assert!(read(&laughs).is_err());
        assert!(read("a: &a [*a]\n").is_err());
        assert!(read(&"[".repeat(MAX_BYTES)).is_err());
        assert!(read(&"- ".repeat(5_000)).is_err());
        assert!(read(&"%TAG !a! x\n".repeat(90_000)).is_err());
        assert!(read(&"x\n".repeat(MAX_BYTES)).is_err());
        assert!(read(&"- x\n".repeat(MAX_NODES)).is_err());
        assert!(read(&format!("a: {}x{}", "[".repeat(20), "]".repeat(20))).unwrap_err().text.contains("16 deep"));
    }

    #[test]
    fn syntax_errors_have_places() {
        let broken = read("a: 1\n b: 2\n").unwrap_err();
        assert_eq!(broken.place, Some((2, 3)));
        assert!(!broken.text.contains("line 2"), "{}", broken.text);
        assert!(read("a: !secret b\n").unwrap_err().text.contains("tag"));
    }
}
