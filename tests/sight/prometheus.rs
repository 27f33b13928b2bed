//! A Prometheus that reads one hotring every second, promtool, and the queries of the dashboard and the alerts.

use super::support::{Process, Scratch, free_port};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file of the package.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs promtool with this on its standard input; what it said, if it ended well.
pub(crate) fn promtool(arguments: &[&str], input: &str) -> Result<String, String> {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(file("deploy/prometheus"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("promtool: {error}; `tests/setup` installs it"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let done = child.wait_with_output().unwrap();
    // It may end without having read all.
    let _ = writer.join().unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    if done.status.success() { Ok(said) } else { Err(said) }
}

/// What an alert is.
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expr: String,
    pub(crate) severity: String,
    pub(crate) annotations: Vec<String>,
    pub(crate) runbook: String,
}

/// The alerts of the file.
pub(crate) fn alerts() -> Vec<Alert> {
    let file: serde_yaml::Value = serde_yaml::from_str(&read("deploy/prometheus/alerts.yaml")).unwrap();
    let text = |value: &serde_yaml::Value| value.as_str().unwrap_or_default().to_owned();
    let groups = file["groups"].as_sequence().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_sequence().unwrap());
    rules
        .map(|rule| Alert {
            name: text(&rule["alert"]),
            expr: text(&rule["expr"]),
            severity: text(&rule["labels"]["severity"]),
            annotations: ["summary", "description"].map(|name| text(&rule["annotations"][name])).into(),
            runbook: text(&rule["annotations"]["runbook_url"]),
        })
        .collect()
}

/// The dashboard.
pub(crate) fn dashboard() -> Value {
    serde_json::from_str(&read("deploy/grafana/hotring.json")).unwrap()
}

/// Its queries, with the titles of their panels.
pub(crate) fn queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    queries
}

/// A running Prometheus.
pub(crate) struct Prometheus {
    _process: Process,
    _dir: Scratch,
    port: u16,
}

impl Prometheus {
    /// One that reads `/metrics` at this address, with the alerts.
    pub(crate) fn reading(address: &str) -> Self {
        let (dir, port) = (Scratch::new(), free_port());
        let rules = file("deploy/prometheus/alerts.yaml");
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             scrape_configs:\n  - job_name: hotring\n    static_configs: [{{targets: ['{address}']}}]\n",
            rules.display()
        );
        let path = dir.write("prometheus.yml", &config);
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={path}")).arg(format!("--storage.tsdb.path={}", dir.file("data")));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).current_dir(&dir.0);
        Self { _process: Process::start(&mut command), _dir: dir, port }
    }

    /// What a query of the moment gives; nothing while it cannot be asked.
    pub(crate) fn ask(&self, query: &str) -> Option<Vec<Value>> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let query: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        write!(socket, "GET /api/v1/query?query={query} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
        if answer["status"] == "error" && answer["errorType"] == "bad_data" {
            panic!("{answer}");
        }
        answer["data"]["result"].as_array().cloned()
    }
}

/// As Grafana fills in its variables.
pub(crate) fn filled_in(query: &str) -> String {
    let filled =
        ["$pool", "$backend", "$instance"].iter().fold(query.to_owned(), |text, name| text.replace(name, ".*"));
    filled.replace("$__rate_interval", "30s")
}
