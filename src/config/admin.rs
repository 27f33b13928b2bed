//! The keys about who may use the admin listener.

use std::path::Path;

use super::written::{Fields, Written, from_env, join, scalar};
use super::yaml::Kind;
use crate::units::{Expected, Secret};

/// Fewer characters could be guessed.
const LEAST: usize = 16;
const KEYS: [&str; 3] = ["admin_token", "admin_token_env", "admin_token_file"];

impl Fields<'_, '_> {
    /// What must be shown by who changes something; nothing where no key names it.
    pub(super) fn admin_token(&mut self, dir: &Path) -> Option<Written<Secret>> {
        let given: Vec<&'static str> = KEYS.into_iter().filter(|name| self.get(name).is_some()).collect();
        let (name, token) = match given[..] {
            [] => return None,
            ["admin_token"] => {
                // One that looks like the hash of a password is a secret all the same: it is compared as it stands.
                self.report.holds_secret();
                ("admin_token", self.secret("admin_token")?)
            }
            ["admin_token_env"] => ("admin_token_env", self.value("admin_token_env", from_env)?),
            ["admin_token_file"] => ("admin_token_file", self.secret_file("admin_token_file", dir)?),
            _ => {
                let said = format!("given twice, expected only one of `{}`", KEYS.join("`, `"));
                let at = given.last().and_then(|name| self.get(name)).map_or(self.at, |node| node.id);
                self.report.add(at, join(&self.key, given[given.len() - 1]), said);
                return None;
            }
        };
        // Others could not stand in a header.
        if token.value.expose().len() < LEAST || !token.value.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            let said = format!("read a text, expected a token of at least {LEAST} ASCII characters without blanks");
            self.report.add(token.at, join(&self.key, name), said);
            return None;
        }
        Some(token)
    }

    /// Whether who reads must show it, too.
    pub(super) fn admin_token_for_reads(&mut self) -> Option<Written<bool>> {
        let wanted = self.value("admin_token_for", |text| match text {
            "changes" => Ok(false),
            "all" => Ok(true),
            _ => Err(Expected::new("`changes` or `all`")),
        })?;
        if wanted.value && !KEYS.iter().any(|name| self.get(name).is_some()) {
            let said =
                format!("`all` without a token: nobody could read anything, expected one of `{}`", KEYS.join("`, `"));
            self.report.add(wanted.at, join(&self.key, "admin_token_for"), said);
        }
        Some(wanted)
    }

    /// Further names of the admin listener.
    pub(super) fn admin_hosts(&mut self) -> Vec<Written<String>> {
        let Some(node) = self.get("admin_hosts") else { return Vec::new() };
        let key = join(&self.key, "admin_hosts");
        let name = |text: &str| {
            let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if !text.is_empty() && text.len() <= 253 && text.bytes().all(is_name) {
                Ok(text.trim_end_matches('.').to_ascii_lowercase())
            } else {
                Err(Expected::new("a list of names without ports, such as `[hotring.example.com]`"))
            }
        };
        match &node.kind {
            Kind::List(items) => {
                let item = |(i, node)| scalar(node, &format!("{key}[{i}]"), self.report, name);
                items.iter().enumerate().filter_map(item).collect()
            }
            _ => scalar(node, &key, self.report, name).into_iter().collect(),
        }
    }
}
