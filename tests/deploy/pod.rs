//! A pod without a cluster: hotring's container as a process, with the files, the socket and the probes that the manifest gives
//! it, and in the place of the kubelet the test.

use crate::rules::{hotring, proxy_yaml};
use crate::support::{Client, FOREVER, Scratch, eventually};
use crate::tools::{at, list, of_kind, text};
use rustix::process::{Pid, Signal, kill_process};
use serde_yaml::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::process::{Child, Command, Stdio};

pub(crate) struct Pod {
    dir: Scratch,
    manifest: Value,
    container: Child,
    admin: String,
    versions: u32,
}

impl Pod {
    /// Lays out the volumes, starts hotring, and waits for its startup probe.
    pub(crate) fn start(documents: &[Value]) -> Self {
        let deployment = of_kind(documents, "Deployment").next().unwrap();
        let manifest = at(deployment, "spec.template.spec").clone();
        let dir = Scratch::new();
        for volume in ["etc", "run", "secrets"] {
            std::fs::create_dir(dir.file(volume)).unwrap();
        }
        for name in list(&manifest, "volumes").iter().map(|volume| text(volume, "secret.secretName")) {
            if !name.is_empty() {
                std::fs::create_dir(dir.file(&format!("secrets/{name}"))).unwrap();
                put(&dir, &format!("secrets/{name}"), 0, "password", "first\n");
            }
        }
        swap(&dir, 0, documents);
        let (container, admin) = run(&dir);
        let pod = Self { dir, manifest, container, admin, versions: 1 };
        pod.is_probed("startupProbe", 200);
        pod
    }

    /// What the ConfigMap says now is in the volume.
    pub(crate) fn update(&mut self, documents: &[Value]) {
        swap(&self.dir, self.versions, documents);
        self.versions += 1;
    }

    /// What the Secret says now is in its volume; it has one key, `password`, which was `first`.
    pub(crate) fn rotate(&mut self, name: &str, password: &str) {
        put(&self.dir, &format!("secrets/{name}"), self.versions, "password", password);
        self.versions += 1;
    }

    /// The container is killed and started anew, as after a failure; its volumes stay.
    pub(crate) fn crash(&mut self) {
        self.container.kill().unwrap();
        self.container.wait().unwrap();
        (self.container, self.admin) = run(&self.dir);
        self.is_probed("startupProbe", 200);
    }

    /// The socket as the app sees it.
    pub(crate) fn socket(&self) -> String {
        self.dir.file("run/main.sock")
    }

    /// Asks what a probe asks until the answer has this status.
    pub(crate) fn is_probed(&self, probe: &str, status: u16) {
        let (container, _) = hotring("pod", &self.manifest);
        let path = text(at(container, probe), "httpGet.path");
        eventually(probe, || self.page(path).is_some_and(|(found, _)| found == status));
    }

    /// Status and text of an admin page; none if nobody answers.
    pub(crate) fn page(&self, path: &str) -> Option<(u16, String)> {
        let mut socket = TcpStream::connect(&self.admin).ok()?;
        socket.set_read_timeout(Some(FOREVER)).ok()?;
        // As a kubelet asks: by the address of the pod, as nobody's browser.
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: 10.1.2.3:9380\r\nUser-Agent: kube-probe/1.37\r\nConnection: close\r\n\r\n"
        )
        .ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        Some((answer.split(' ').nth(1)?.parse().ok()?, answer.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// Seconds that the kubelet waits before it kills.
    pub(crate) fn grace(&self) -> u64 {
        at(&self.manifest, "terminationGracePeriodSeconds").as_u64().unwrap()
    }

    pub(crate) fn terminate(&self) {
        kill_process(Pid::from_child(&self.container), Signal::TERM).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.container.try_wait().unwrap().is_some()
    }

    /// Its exit code, once it has ended.
    pub(crate) fn end(&mut self) -> Option<i32> {
        eventually("it ends", || self.has_ended());
        self.container.wait().unwrap().code()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.container.kill();
        let _ = self.container.wait();
    }
}

/// The ConfigMap's next version.
fn swap(dir: &Scratch, version: u32, documents: &[Value]) {
    let yaml = proxy_yaml(of_kind(documents, "ConfigMap").next().unwrap());
    // What a pod has for itself, a test has not: paths and ports.
    let yaml = yaml.replace("/run/hotring", &dir.file("run")).replace("127.0.0.1:6380", "127.0.0.1:0");
    let yaml = yaml.replace("0.0.0.0:9380", "127.0.0.1:0").replace("/etc/hotring-secrets", &dir.file("secrets"));
    put(dir, "etc", version, "proxy.yaml", &yaml);
}

/// Puts a file into a volume as the kubelet does it: into a directory of its own, and then with one rename.
fn put(dir: &Scratch, volume: &str, version: u32, file: &str, text: &str) {
    let name = format!("..2026_01_01_00_00_0{version}.1234");
    std::fs::create_dir(dir.file(&format!("{volume}/{name}"))).unwrap();
    dir.write(&format!("{volume}/{name}/{file}"), text);
    symlink(&name, dir.file(&format!("{volume}/..data_tmp"))).unwrap();
    std::fs::rename(dir.file(&format!("{volume}/..data_tmp")), dir.file(&format!("{volume}/..data"))).unwrap();
    if version == 0 {
        symlink(format!("..data/{file}"), dir.file(&format!("{volume}/{file}"))).unwrap();
    }
}

/// The program, and where its admin listener is.
fn run(dir: &Scratch) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hotring"))
        .args(["-c", &dir.file("etc/proxy.yaml")])
        // Nothing of it is writable in the image, and nothing is asked of it.
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let admin = lines.find_map(|line| Some(line.ok()?.split_once("  admin")?.1.split_whitespace().next()?.to_owned()));
    (child, admin.expect("hotring tells where its admin listener is"))
}

/// An app that asks without a break, on one connection and on ever new ones, until it is to end; what went wrong.
pub(crate) fn ask_until(socket: &str, mut is_over: impl FnMut(usize) -> bool) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut app = Client::connect(socket);
    for round in 1.. {
        let reply = app.ask("INCR asked");
        if reply != format!(":{round}\r\n") {
            wrong.push(reply);
        }
        match Client::try_connect(socket) {
            Ok(mut other) => wrong.extend(Some(other.ask("PING")).filter(|reply| reply != "+PONG\r\n")),
            Err(error) => wrong.push(error.to_string()),
        }
        if is_over(round) || !wrong.is_empty() {
            break;
        }
    }
    wrong
}
