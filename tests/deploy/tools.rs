//! The tools that deployments are checked with, as `tests/setup` installs them; one that is missing fails the test.

use crate::support::authority::Authority;
use crate::support::{Scratch, installed};
use serde::Deserialize;
use serde_yaml::Value;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file or directory of deploy/.
pub(crate) fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether it ended well, and all that it said.
pub(crate) fn run(command: &mut Command) -> (bool, String) {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `tests/setup` installs it"));
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Runs it to a good end and returns what it said.
pub(crate) fn well(command: &mut Command) -> String {
    let (well, said) = run(command);
    assert!(well, "{command:?}\n{said}");
    said
}

/// A program of the environment for Python.
pub(crate) fn python_tool(name: &str) -> Command {
    Command::new(installed(&format!("deploy/bin/{name}")))
}

/// helm, with nothing of the machine's own settings.
pub(crate) fn helm(home: &Scratch) -> Command {
    let mut command = Command::new(installed("helm/helm"));
    for (name, directory) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
    {
        command.env(name, home.file(directory));
    }
    command
}

/// What the chart renders with these values, as text and by documents.
pub(crate) fn render(chart: &Path, values: &str) -> Result<(String, Vec<Value>), String> {
    let dir = Scratch::new();
    let mut command = helm(&dir);
    command.args(["template", "try"]).arg(chart).arg("--values").arg(dir.write("values.yaml", values));
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `tests/setup` installs it"));
    if !done.status.success() {
        return Err(String::from_utf8_lossy(&done.stderr).into_owned());
    }
    let text = String::from_utf8(done.stdout).unwrap();
    let documents = documents(&text);
    Ok((text, documents))
}

/// The app's chart with the sidecar as its dependency, put together by helm itself.
pub(crate) fn app_chart(dir: &Scratch) -> PathBuf {
    let charts = dir.0.join("charts");
    well(Command::new("cp").arg("-r").arg(deploy("helm")).arg(&charts));
    let app = charts.join("app");
    well(helm(dir).args(["dependency", "build"]).arg(&app));
    app
}

/// The documents of a file.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let all = serde_yaml::Deserializer::from_str(text).map(|one| Value::deserialize(one).unwrap());
    all.filter(|one| !one.is_null()).collect()
}

/// What is there at a path such as `spec.template.spec`; null if nothing is.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, key| match key.parse::<usize>() {
        Ok(number) if value.is_sequence() => &value[number],
        _ => value.get(key).unwrap_or(&Value::Null),
    })
}

pub(crate) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The elements of a list; none if it is not there.
pub(crate) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    at(value, path).as_sequence().map_or(&[], Vec::as_slice)
}

pub(crate) fn of_kind<'a>(documents: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    documents.iter().filter(move |one| text(one, "kind") == kind)
}

/// Has Kubernetes' own schemas look at it, of the oldest version with native sidecars and of the newest; `file` is for
/// messages. They do not know what other projects add, such as a PodMonitor: that is left to the caller.
pub(crate) fn validate(files: &[(String, String)]) {
    let dir = Scratch::new();
    let foreign = |document: &str| document.contains("\napiVersion: monitoring.coreos.com/");
    let mut paths = Vec::new();
    for (name, text) in files {
        let known: Vec<&str> = text.split("\n---\n").filter(|document| !foreign(&format!("\n{document}"))).collect();
        paths.push(dir.write(name, &known.join("\n---\n")));
    }
    for version in ["1.29", "1.37"] {
        let said = well(python_tool("kubernetes-validate").args(["--strict", "--no-warn", "-k", version]).args(&paths));
        assert!(said.matches(" passed ").count() >= files.len(), "{said}");
    }
}

/// Has `hotring check` look at it.
pub(crate) fn check(config: &str) {
    let dir = Scratch::new();
    let config = with_secrets(config, &dir);
    let path = dir.write("proxy.yaml", &config);
    let said = well(Command::new(env!("CARGO_BIN_EXE_hotring")).args(["check", "-c", &path]));
    assert!(!said.contains("warning: "), "{config}\n{said}");
}

/// The same with what is in Secrets put where it can be read: passwords, and certificates under the names that Kubernetes gives them.
pub(crate) fn with_secrets(config: &str, dir: &Scratch) -> String {
    let ca = config.contains("/tls.crt").then(Authority::new);
    let own = ca.as_ref().map(|ca| ca.local("tls"));
    let secrets = config.split("/etc/hotring-secrets/").skip(1);
    for name in secrets.map(|rest| rest.split([' ', '\n', '}', ',']).next().unwrap().to_owned()) {
        let path = dir.0.join("secrets").join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let content = match (&own, name.rsplit('/').next().unwrap()) {
            (Some(own), "tls.crt") => read(Path::new(&own.cert)),
            (Some(own), "tls.key") => read(Path::new(&own.key)),
            _ => "a-password-or-token\n".to_owned(),
        };
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
    config.replace("/etc/hotring-secrets", &dir.file("secrets"))
}
