//! The value of `mirror`: what of a pool's requests is also sent to another.
//!
//! Promises: the pool that is named is there and is another one, and the share is one of a thousand parts.

use super::hot::{from_thousandths, thousandths};
use super::keys::Place;
use super::problems::{Report, quoted};
use super::written::{Fields, PoolWritten, Written, flag, join};
use super::yaml::Kind;
use crate::stages::mirror::{Commands, Mirroring, WHOLE};
use crate::units::Expected;

const MAX_PREFIXES: usize = 256;

impl Fields<'_, '_> {
    /// What is mirrored; `None` where the key is not there.
    pub(super) fn mirror(&mut self) -> Option<Written<Mirroring>> {
        let mut fields = self.fields("mirror", Place::Mirror)?;
        fields.require("pool", "the name of a pool");
        let to = fields.value("pool", |text| match text {
            "" => Err(Expected::new("the name of a pool")),
            text => Ok(text.to_owned()),
        });
        let share = fields.value("share", share);
        let commands = fields.value("commands", |text| {
            text.parse::<Commands>().map_err(|()| Expected::new("`reads`, `writes` or `all`"))
        });
        let compare = fields.value("compare", flag);
        let prefixes = fields.mirrored_prefixes();
        let commands_are = commands.map_or(Commands::default(), |written| written.value);
        if let Some(compare) = compare.as_ref().filter(|compare| compare.value && commands_are == Commands::Writes) {
            let said = "compares replies to reads, which `commands: writes` does not mirror";
            fields.report.add(compare.at, join(&fields.key, "compare"), said);
        }
        let to = to?;
        let value = Mirroring {
            to: to.value,
            share: share.map_or(WHOLE, |written| written.value),
            commands: commands_are,
            prefixes,
            compare: compare.is_some_and(|written| written.value),
        };
        Some(Written { value, at: to.at })
    }

    /// How keys begin, each once.
    fn mirrored_prefixes(&mut self) -> Vec<Box<[u8]>> {
        let Some(node) = self.get("prefixes") else { return Vec::new() };
        let key = join(&self.key, "prefixes");
        let expected =
            || Expected::new(format!("a list of 1 to {MAX_PREFIXES} beginnings of keys such as `\"user:\"`"));
        let Kind::List(items) = &node.kind else {
            self.report.unfit(node, &key, &expected());
            return Vec::new();
        };
        if !(1..=MAX_PREFIXES).contains(&items.len()) {
            self.report.unfit(node, &key, &expected());
        }
        let mut out: Vec<Box<[u8]>> = Vec::new();
        for (i, item) in items.iter().enumerate() {
            match item.text().filter(|text| !text.is_empty()) {
                Some(text) => out.push(text.as_bytes().into()),
                None => {
                    self.report.unfit(item, &format!("{key}[{i}]"), &Expected::new("how keys begin, such as `user:`"))
                }
            }
        }
        out
    }
}

fn share(text: &str) -> Result<u32, Expected> {
    let share = thousandths(text).filter(|share| (1..=WHOLE).contains(share));
    share.ok_or_else(|| Expected::new("a number from 0.001 to 1.0 such as `0.1`"))
}

/// What does not fit together.
pub(super) fn check(pools: &[PoolWritten], report: &mut Report) {
    for pool in pools {
        // One that nobody speaks to is of use to those that are mirrored there, or whose keys live there.
        let is_mirror =
            || pools.iter().any(|other| other.mirror.as_ref().is_some_and(|m| m.value.to == pool.name.value));
        if !pool.has_listen && !is_mirror() && !super::routes::lead_to(pools, &pool.name.value) {
            let said = "missing, expected an address such as `127.0.0.1:6379`";
            report.add(pool.name.at, format!("{}.listen", pool.key), said);
        }
        let Some(Written { value, at }) = &pool.mirror else { continue };
        let said = if pool.name.value == value.to {
            "a pool cannot be its own mirror".to_owned()
        } else if pools.iter().any(|other| other.name.value == value.to) {
            continue;
        } else {
            format!("there is no pool {}", quoted(&value.to))
        };
        report.add(*at, format!("{}.mirror.pool", pool.key), said);
    }
}

/// The map as lines of a file, each key with its value.
pub(super) fn lines(mirror: &Mirroring) -> Vec<String> {
    let mut out = vec![
        format!("pool: {}", super::text::quoted(&mirror.to)),
        format!("share: {}", from_thousandths(mirror.share)),
        format!("commands: {}", mirror.commands),
        format!("compare: {}", mirror.compare),
    ];
    if !mirror.prefixes.is_empty() {
        let prefixes = mirror.prefixes.iter().map(|prefix| super::text::quoted(&String::from_utf8_lossy(prefix)));
        out.push(format!("prefixes: [{}]", prefixes.collect::<Vec<_>>().join(", ")));
    }
    out
}
