//! `listen_tls`, `tls`, `server_tls` and `sentinel_tls`: where TLS is spoken, and with which certificates.
//!
//! Promises: files of certificates and keys are read whole here, and noted as ones that the configuration depends on; what was read
//! fits together. No message shows what is in a key.

use super::keys::{self, Place};
use super::problems::{Report, quoted};
use super::text::quoted as in_yaml;
use super::topology;
use super::written::{Fields, PoolWritten, ServersWritten, Written, flag, join, some_time};
use super::yaml::{Kind, Node};
use crate::downstream;
use crate::tls::{
    Client, ClientAuth, ClientSettings, HANDSHAKE_TIMEOUT, MinVersion, Pair, Server, ServerSettings, Unfit,
};
use crate::units::{Address, Expected, Millis};
use crate::upstream;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a file of certificates may have, in bytes.
const MOST: u64 = 1 << 20;
const CLIENT: &str = "`true`, `false` or a map with `ca`";

/// What a pool says of TLS.
#[derive(Debug, Default)]
pub(super) struct TlsWritten {
    pub(super) listen: Vec<Written<Address>>,
    /// `None` inside: it could not be read.
    side: Option<Written<Option<Server>>>,
    server: Option<Written<Option<Client>>>,
    sentinel: Option<Written<Option<Client>>>,
}

impl TlsWritten {
    /// What the sentinels are spoken to with: as the servers are, where nothing else is said.
    pub(super) fn sentinel(&self) -> Option<Client> {
        self.sentinel.as_ref().or(self.server.as_ref())?.value.clone()
    }

    /// What the servers are spoken to with.
    pub(super) fn server(&self) -> Option<Client> {
        self.server.as_ref()?.value.clone()
    }

    /// What apps are shown, and where they connect to.
    pub(super) fn side(self) -> (Vec<Address>, Option<Server>) {
        (self.listen.into_iter().map(|address| address.value).collect(), self.side.and_then(|side| side.value))
    }
}

impl<'n> Fields<'n, '_> {
    /// What a pool says of TLS; `listen` are the addresses of `listen_tls`.
    pub(super) fn tls(&mut self, listen: Vec<Written<Address>>, dir: &Path) -> TlsWritten {
        let side = self.get("tls").map(|node| Written { value: self.server_side(dir), at: node.id });
        TlsWritten { listen, side, server: self.client("server_tls", dir), sentinel: self.client("sentinel_tls", dir) }
    }

    fn server_side(&mut self, dir: &Path) -> Option<Server> {
        let mut tls = self.fields("tls", Place::Tls)?;
        let default = tls.pair(dir);
        let others = tls.certificates(dir);
        let client_ca = tls.value("client_ca", path);
        let client_auth = tls.value("client_auth", str::parse);
        let min_version = tls.value("min_version", str::parse);
        let handshake_timeout = tls.value("handshake_timeout", some_time);
        if let (None, Some(auth)) = (&client_ca, &client_auth)
            && auth.value != ClientAuth::Off
        {
            let said = "missing, expected the file of the CAs that issue the certificates of apps";
            tls.report.add(auth.at, join(&tls.key, "client_ca"), said);
            return None;
        }
        let required = client_ca.as_ref().map_or(ClientAuth::Off, |_| ClientAuth::Required);
        let settings = ServerSettings {
            default: default?,
            others: others?,
            client_ca: client_ca.map(|ca| ca.value),
            client_auth: client_auth.map_or(required, |auth| auth.value),
            min_version: min_version.map_or(MinVersion::default(), |version| version.value),
            handshake_timeout: handshake_timeout.map_or(HANDSHAKE_TIMEOUT, |span| span.value),
        };
        let at = tls.at;
        let made = Server::new(settings, &mut |file| read(file, dir, tls.report));
        made.map_err(|unfit| tls.unfit(at, &unfit)).ok()
    }

    /// `cert` and `key`, which go together.
    fn pair(&mut self, dir: &Path) -> Option<Pair> {
        self.require("cert", "the file of a certificate, PEM");
        self.require("key", "the file of the certificate's key, PEM");
        let (cert, key) = (self.value("cert", path), self.value("key", path));
        if let Some(key) = &key {
            self.report.keeps_secret(dir.join(&key.value));
        }
        Some(Pair { cert: cert?.value, key: key?.value })
    }

    fn certificates(&mut self, dir: &Path) -> Option<Vec<Pair>> {
        let Some(node) = self.get("certificates") else { return Some(Vec::new()) };
        let key = join(&self.key, "certificates");
        let Kind::List(items) = &node.kind else {
            self.report.unfit(node, &key, &Expected::new("a list of maps with `cert` and `key`"));
            return None;
        };
        let one = |(i, node): (usize, &Node)| {
            let known = keys::names(Place::Certificate);
            Fields::open(node, format!("{key}[{i}]"), &known, self.report)?.pair(dir)
        };
        items.iter().enumerate().map(one).collect()
    }

    /// `true`, `false` or a map.
    fn client(&mut self, name: &str, dir: &Path) -> Option<Written<Option<Client>>> {
        let node = self.get(name)?;
        let key = join(&self.key, name);
        let settings = if node.entries().is_none() {
            let on = self.value(name, |text| flag(text).map_err(|_| Expected::new(CLIENT)))?;
            if !on.value {
                return Some(Written { value: None, at: node.id });
            }
            ClientSettings::default()
        } else {
            let mut tls = Fields::open(node, key.clone(), &keys::names(Place::ServerTls), self.report)?;
            let ca = tls.value("ca", path).map(|ca| ca.value);
            let shows = tls.get("cert").or(tls.get("key")).is_some();
            let own = if shows { Some(tls.pair(dir)) } else { None };
            let server_name = tls.value("server_name", |text| match text {
                "" => Err(Expected::new("a DNS name or an address")),
                name => Ok(name.to_owned()),
            });
            let verify = tls.value("verify", flag).is_none_or(|verify| verify.value);
            let own = match own {
                Some(pair) => Some(pair?),
                None => None,
            };
            ClientSettings { ca, own, server_name: server_name.map(|name| name.value), verify }
        };
        let made = Client::new(settings, &mut |file| read(file, dir, self.report));
        match made {
            Ok(client) => Some(Written { value: Some(client), at: node.id }),
            Err(unfit) => {
                self.report.add(node.id, join(&key, &unfit.key), unfit.text);
                None
            }
        }
    }

    fn unfit(&mut self, at: usize, unfit: &Unfit) {
        self.report.add(at, join(&self.key, &unfit.key), unfit.text.clone());
    }
}

fn path(text: &str) -> Result<PathBuf, Expected> {
    if text.is_empty() { Err(Expected::new("the path of a file")) } else { Ok(PathBuf::from(text)) }
}

/// The bytes of a file that is named in one in `dir`.
fn read(file: &Path, dir: &Path, report: &mut Report) -> Result<Vec<u8>, String> {
    let file = dir.join(file);
    report.depends_on(file.clone());
    let mut bytes = Vec::new();
    let read = File::open(&file).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes));
    let named = quoted(&file.display().to_string());
    match read {
        Err(error) => Err(format!("{named} cannot be read: {error}")),
        Ok(_) if bytes.len() as u64 > MOST => Err(format!("{named} is above 1 MiB, expected certificates")),
        Ok(_) => Ok(bytes),
    }
}

/// Tells what does not fit together.
pub(super) fn check(pool: &PoolWritten, report: &mut Report) {
    let tls = &pool.tls;
    for (i, address) in tls.listen.iter().enumerate() {
        if matches!(address.value, Address::Unix { .. }) {
            let key = format!("{}.listen_tls[{i}]", pool.key);
            report.add(address.at, key, "a unix socket has no TLS, expected an address such as `0.0.0.0:6379`");
        }
    }
    match (tls.listen.first(), &tls.side) {
        (Some(listen), None) => {
            let said = "missing, expected a map with `cert` and `key`: `listen_tls` needs a certificate";
            report.add(listen.at, format!("{}.tls", pool.key), said);
        }
        (None, Some(side)) => {
            let said = "is for `listen_tls`: nobody speaks TLS to this pool, and to its servers it is `server_tls`";
            report.add(side.at, format!("{}.tls", pool.key), said);
        }
        _ => {}
    }
    if let (Some(ServersWritten::Embedded(_)), Some(server)) = (&pool.servers, &tls.server) {
        let said = "is for pools of servers: embedded nodes are in this process";
        report.add(server.at, format!("{}.server_tls", pool.key), said);
    }
    if let Some(sentinel) = tls.sentinel.as_ref().filter(|_| pool.topology.kind() != topology::Kind::Sentinel) {
        report.add(sentinel.at, format!("{}.sentinel_tls", pool.key), "is for `topology: sentinel`");
    }
}

/// What is allowed but seldom meant.
pub(super) fn warnings(upstream: &upstream::Config) -> Vec<String> {
    let mut out = Vec::new();
    let sentinel = match &upstream.topology {
        upstream::Topology::Sentinel { tls, .. } => tls.as_ref(),
        _ => None,
    };
    for (name, tls) in [("server_tls", upstream.tls.as_ref()), ("sentinel_tls", sentinel)] {
        if tls.is_some_and(|tls| !tls.settings().verify) {
            out.push(format!(
                "`{name}.verify: false`: whoever stands between hotring and a server can read and change everything; give \
                 `ca` instead"
            ));
        }
    }
    out
}

/// The lines of the effective configuration about apps.
pub(super) fn lines(downstream: &downstream::Config) -> Vec<String> {
    let Some(tls) = &downstream.tls else { return Vec::new() };
    let tls = tls.settings();
    let mut lines = vec!["tls:".to_owned()];
    lines.extend(of_pair(&tls.default).map(|line| format!("  {line}")));
    if !tls.others.is_empty() {
        lines.push("  certificates:".into());
    }
    for pair in &tls.others {
        let [cert, key] = of_pair(pair);
        lines.push(format!("    - {{{cert}, {key}}}"));
    }
    if let Some(ca) = &tls.client_ca {
        lines.push(format!("  client_ca: {}", of_path(ca)));
    }
    lines.push(format!("  client_auth: {}", in_yaml(&tls.client_auth.to_string())));
    lines.push(format!("  min_version: {}", in_yaml(&tls.min_version.to_string())));
    lines.push(format!("  handshake_timeout: {}", Millis::from(tls.handshake_timeout)));
    lines
}

/// The same about servers or sentinels.
pub(super) fn client_lines(name: &str, client: &Client) -> Vec<String> {
    let tls = client.settings();
    let mut lines = vec![format!("{name}:")];
    lines.extend(tls.ca.as_ref().map(|ca| format!("  ca: {}", of_path(ca))));
    lines.extend(tls.own.iter().flat_map(of_pair).map(|line| format!("  {line}")));
    lines.extend(tls.server_name.as_ref().map(|name| format!("  server_name: {}", in_yaml(name))));
    lines.push(format!("  verify: {}", tls.verify));
    lines
}

fn of_pair(pair: &Pair) -> [String; 2] {
    [format!("cert: {}", of_path(&pair.cert)), format!("key: {}", of_path(&pair.key))]
}

fn of_path(path: &Path) -> String {
    in_yaml(&path.display().to_string())
}
