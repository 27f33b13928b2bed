//! The value of `users`: who may do what.
//!
//! Promises: rules and passwords that were read here compile; no message shows a password. Does not compare a user with
//! the pool's other keys; that is done in `build`.

use std::path::Path;

use super::keys::{self, Place};
use super::problems::{Report, quoted};
use super::written::{Fields, Written, flag, from_env, join, number, refuse_twice, scalar, secret};
use super::yaml::{Kind, Node};
use crate::acl::{self, Account};
use crate::units::{Expected, Secret};

const PASSWORDS: &str = "`password`, `passwords`, `password_env`, `password_file`";
const MAX_NAME: usize = 128;

impl<'n> Fields<'n, '_> {
    /// The users of a pool; none where the key is not there.
    pub(super) fn users(&mut self, dir: &Path) -> Vec<Written<Account>> {
        let Some(node) = self.get("users") else { return Vec::new() };
        let key = join(&self.key, "users");
        let Some(entries) = node.entries().filter(|entries| !entries.is_empty()) else {
            self.report.unfit_secret(node, &key, &Expected::new("a map of users by name"));
            return Vec::new();
        };
        refuse_twice(entries, &key, self.report);
        entries.iter().filter_map(|(name, user)| account(name, user, &key, dir, self.report)).collect()
    }

    /// How keys begin, of a pool or a user; an empty text is none.
    pub(super) fn prefix(&mut self) -> Option<Written<String>> {
        let node = self.get("prefix")?;
        let key = join(&self.key, "prefix");
        if node.text().is_none() {
            // Read as none it would let everybody in.
            self.report.unfit(node, &key, &Expected::new("how keys begin, such as `team-a:`"));
            return None;
        }
        scalar(node, &key, self.report, |text| acl::check_prefix(text).map(|()| text.to_owned()))
    }

    /// All passwords of a user, in the order of the keys' list.
    fn passwords(&mut self, dir: &Path) -> Vec<Secret> {
        let mut found: Vec<Option<Written<Secret>>> = Vec::new();
        let one = self.secret("password");
        found.push(self.formed("password", one));
        if let Some(node) = self.get("passwords") {
            let key = join(&self.key, "passwords");
            match &node.kind {
                Kind::List(items) if !items.is_empty() => {
                    for (i, item) in items.iter().enumerate() {
                        let name = format!("passwords[{i}]");
                        let one = secret(item, &join(&self.key, &name), self.report);
                        found.push(self.formed(&name, one));
                    }
                }
                _ => self.report.unfit_secret(node, &key, &Expected::new("a list of passwords")),
            }
        }
        let one = self.value("password_env", from_env);
        found.push(self.formed("password_env", one));
        let one = self.password_file(dir);
        found.push(self.formed("password_file", one));
        found.into_iter().flatten().map(|one| one.value).collect()
    }

    /// The password, if it is not a hash that is none.
    fn formed(&mut self, name: &str, one: Option<Written<Secret>>) -> Option<Written<Secret>> {
        let one = one?;
        match acl::check_password(&one.value) {
            Ok(()) => Some(one),
            Err(expected) => {
                self.report.add(one.at, join(&self.key, name), format!("read a text, expected {expected}"));
                None
            }
        }
    }
}

fn account(name: &Node, node: &Node, key: &str, dir: &Path, report: &mut Report) -> Option<Written<Account>> {
    let text = name.text().unwrap_or_default();
    if text.is_empty() || text.len() > MAX_NAME || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let expected = format!("the name of a user, of 1 to {MAX_NAME} characters without blanks");
        report.unfit(name, key, &Expected::new(expected));
        return None;
    }
    let key = join(key, text);
    if node.entries().is_none() {
        // What stands here instead may well be a password.
        report.unfit_secret(node, &key, &Expected::new("a user: a map with `password` and `rules`"));
        return None;
    }
    let mut user = Fields::open(node, key, &keys::names(Place::User), report)?;
    user.stands_at(name.id);
    let nopass = user.value("nopass", flag).is_some_and(|written| written.value);
    let passwords = user.passwords(dir);
    let given = ["password", "passwords", "password_env", "password_file"].iter().any(|name| user.get(name).is_some());
    match (nopass, given) {
        (false, false) => {
            let said = format!("missing, expected at least one of {PASSWORDS}, or `nopass: true`");
            user.report.add(user.at, join(&user.key, "password"), said);
        }
        (true, true) => {
            let said = format!("given beside a password, expected either `nopass: true` or some of {PASSWORDS}");
            let at = user.get("nopass").map_or(user.at, |node| node.id);
            user.report.add(at, join(&user.key, "nopass"), said);
        }
        _ => {}
    }
    user.require("rules", "rules such as `+@read ~app:*`");
    let rules = user.value("rules", |text| match text.trim() {
        "" => Err(Expected::new("rules such as `+@read ~app:*`")),
        text => Ok(text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")),
    });
    if let Some(rules) = &rules
        && let Err(wrong) = acl::check_rules(&rules.value)
    {
        for wrong in wrong {
            let said = format!("read {}, expected {}", quoted(&wrong.read), wrong.expected);
            user.report.add(rules.at, join(&user.key, "rules"), said);
        }
    }
    let read_only = user.value("read_only", flag).is_some_and(|written| written.value);
    let prefix = user.prefix().map(|written| written.value);
    let rules = rules.map(|rules| rules.value).unwrap_or_default();
    let connections = user.value("connections", |text| number(text, 1, 1_000_000));
    if let (Some(written), acl::DEFAULT, true) = (&connections, text, nopass) {
        let said = "whoever sends no AUTH is counted by `client_connections` of the pool";
        user.report.add(written.at, join(&user.key, "connections"), said);
    }
    let connections = connections.map(|written| written.value);
    let account = Account { name: text.to_owned(), passwords, nopass, rules, read_only, connections, prefix };
    Some(Written { value: account, at: name.id })
}
