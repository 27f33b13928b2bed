//! `hotring top`: what it shows is what the process tells, at any size, and the terminal is as before when it ends.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use hotring::admin::status::{HotKey, Pool, Process, Shard, Status, VERSION};
use hotring::top::{Screen, text};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use support::{Client, Scratch, eventually, key_on, now, pool, shards};

const BINARY: &str = env!("CARGO_BIN_EXE_hotring");

/// What a process might tell, with names that nobody should have.
fn canned() -> Status {
    let shard = |name: &str, state: &str, per_second: f64| Shard {
        name: name.into(),
        state: state.into(),
        role: "primary".into(),
        requests: hotring::admin::status::Rates { total: 1, per_second },
        ..Shard::default()
    };
    let key = HotKey { key: "a\u{1b}[2J\u{202e}b".into(), level: "hot".into(), ..HotKey::default() };
    let main = Pool {
        name: "main".into(),
        shards: vec![shard("first", "up", 5.0), shard("second", "down", 700.0), shard("third\u{7}", "idle", 20.0)],
        hot_keys: vec![key],
        hot_keys_count: 1,
        ..Pool::default()
    };
    let process = Process { hotring: "0.1.0".into(), process: 7, ..Process::default() };
    Status { version: VERSION, now: 1, process, pools: vec![main] }
}

fn drawn(screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame, now())).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(|y| row(y) + "\n").collect()
}

fn press(screen: &mut Screen, code: KeyCode) {
    screen.press(KeyEvent::new(code, KeyModifiers::NONE));
}

#[test]
fn names_are_no_commands_to_the_terminal() {
    let told = text(&canned());
    assert!(!told.contains(|c: char| c.is_control() && c != '\n') && !told.contains('\u{202e}'), "{told:?}");
    assert!(told.contains("a\\u{1b}[2J\\u{202e}b") && told.contains("third\\u{7}"), "{told}");
}

#[test]
fn what_answers_oddly_is_no_command_to_the_terminal() {
    for answer in ["HTTP/1.1 5\u{1b}[2J X\r\n\r\n", "HTTP/1.1 500 X\r\n\r\n\u{1b}]0;owned\u{7}\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let admin = listener.local_addr().unwrap().to_string();
        let answers = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            // All of the question, so that closing is no reset.
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            socket.write_all(answer.as_bytes()).unwrap();
        });
        let (code, told, complained) = once(&admin);
        answers.join().unwrap();
        assert!(code != 0 && told.is_empty() && complained.contains("\\u{1b}"), "{complained:?}");
        assert!(!complained.trim_end().contains(char::is_control), "{complained:?}");
    }
}

#[test]
fn numbers_and_names_beyond_all_bounds_are_borne() {
    let mut status = canned();
    for shard in &mut status.pools[0].shards {
        (shard.in_queue, shard.out_queue, shard.address) = (u64::MAX, u64::MAX, "a".repeat(70_000));
    }
    assert!(text(&status).contains(&u64::MAX.to_string()));
    let mut screen = Screen::new("127.0.0.1:9380".into(), now());
    screen.take(Ok(Box::new(status)), now());
    press(&mut screen, KeyCode::Right);
    for _ in 0..4 {
        press(&mut screen, KeyCode::Char('s'));
        assert!(drawn(&mut screen, 200, 24).contains("by "));
    }
}

#[test]
fn each_view_is_drawn_at_any_size() {
    let mut screen = Screen::new("127.0.0.1:9380".into(), now());
    assert!(drawn(&mut screen, 80, 24).contains("asking 127.0.0.1:9380"));
    screen.take(Ok(Box::new(canned())), now());
    for (wanted, also) in [("2/3", "hotring 0.1.0"), ("second", "700"), ("a\\u{1b}[2J", "hot"), ("no errors", "")] {
        let shown = drawn(&mut screen, 80, 24);
        assert!(shown.contains(wanted) && shown.contains(also), "{shown}");
        for (width, height) in [(1, 1), (20, 3), (33, 10), (300, 100)] {
            drawn(&mut screen, width, height);
        }
        press(&mut screen, KeyCode::Tab);
    }
    // It begins again, and one can go back.
    press(&mut screen, KeyCode::Right);
    let at = |shown: &str, name: &str| shown.find(name).unwrap_or_else(|| panic!("no {name}: {shown}"));
    let shown = drawn(&mut screen, 80, 24);
    assert!(at(&shown, "first") < at(&shown, "second"));
    press(&mut screen, KeyCode::Char('s'));
    let shown = drawn(&mut screen, 80, 24);
    assert!(at(&shown, "second") < at(&shown, "third") && at(&shown, "third") < at(&shown, "first"), "{shown}");
    press(&mut screen, KeyCode::Char('?'));
    assert!(drawn(&mut screen, 80, 24).contains("the views"));
    press(&mut screen, KeyCode::Esc);
    // Nobody answers: what there was stays, and it is said.
    screen.take(Err("Connection refused\u{1b}".into()), now());
    let shown = drawn(&mut screen, 80, 24);
    assert!(shown.contains("NO ANSWER for 0s from 127.0.0.1:9380: Connection refused\\u{1b}"), "{shown}");
    assert!(shown.contains("second"), "{shown}");
    screen.take(Ok(Box::new(canned())), now());
    assert!(!drawn(&mut screen, 80, 24).contains("NO ANSWER"));
    press(&mut screen, KeyCode::Char('p'));
    assert!(drawn(&mut screen, 80, 24).contains("held"));
    screen.press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert!(screen.is_over());
}

#[test]
fn hot_keys_are_sorted_by_what_one_likes() {
    let key = |key: &str, [share, requests, saved, writes]: [f64; 4]| HotKey {
        key: key.into(),
        level: "hot".into(),
        share,
        requests,
        saved,
        writes,
        ..HotKey::default()
    };
    let mut status = canned();
    let quiet = Pool { name: "quiet".into(), hot_keys: vec![key("few", [0.9, 10.0, 0.0, 9.0])], ..Pool::default() };
    status.pools[0].hot_keys = vec![key("most", [0.5, 900.0, 1.0, 5.0]), key("spared", [0.2, 300.0, 290.0, 1.0])];
    status.pools.push(quiet);
    let mut screen = Screen::new("127.0.0.1:9380".into(), now());
    screen.take(Ok(Box::new(status)), now());
    let order = |screen: &mut Screen| {
        let shown = drawn(screen, 160, 24);
        let first = |line: &str| line.split_whitespace().next().unwrap_or_default().to_owned();
        let by = shown.lines().nth(1).unwrap().split("  by ").nth(1).unwrap_or_default().to_owned();
        (by, shown.lines().skip(3).map(first).filter(|name| !name.is_empty()).collect::<Vec<_>>().join(" "))
    };
    // Where nothing is sorted nothing is said of it, and it leaves the other views alone.
    press(&mut screen, KeyCode::Char('s'));
    assert_eq!(order(&mut screen).0, "");
    press(&mut screen, KeyCode::Right);
    assert_eq!(order(&mut screen).0, "the file");
    press(&mut screen, KeyCode::Right);
    for (by, keys) in [
        ("share", "few most spared"),
        ("requests", "most spared few"),
        ("saved", "spared most few"),
        ("writes", "few most spared"),
        ("share", "few most spared"),
    ] {
        assert_eq!(order(&mut screen), (by.to_owned(), keys.to_owned()));
        press(&mut screen, KeyCode::Char('s'));
    }
}

/// A hotring of its own process with an admin listener on a unix socket, and its file.
struct Running(std::process::Child, Scratch);

impl Running {
    fn over(at: &[String]) -> (Self, String) {
        Self::with(at, &[])
    }

    fn with(at: &[String], more: &[&str]) -> (Self, String) {
        let dir = Scratch::new();
        let admin = dir.file("admin.sock");
        let listen = format!("listen: {}", dir.file("app.sock"));
        let text = pool(at, &[&["^log: {level: off}", &listen], more].concat())
            .replace("admin: off\n", &format!("admin: {admin}\n"));
        let config = dir.write("proxy.yaml", &text);
        let mut command = Command::new(BINARY);
        let child = command.args(["-c", &config]).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let running = Self(child, dir);
        eventually("it listens", || std::os::unix::net::UnixStream::connect(&admin).is_ok());
        (running, admin)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn once(admin: &str) -> (i32, String, String) {
    let done = Command::new(BINARY).args(["top", "--once", "--admin", admin]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
}

#[test]
fn a_shard_that_is_killed_is_seen() {
    let (mut redis, at) = shards(2);
    let (running, admin) = Running::over(&at);
    let mut app = Client::connect(&running.1.file("app.sock"));
    let state = |name: &str| {
        let (code, told, complained) = once(&admin);
        assert_eq!((code, complained.as_str()), (0, ""), "{told}");
        assert!(!told.contains('\u{1b}'), "{told}");
        let line = told.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {told}"));
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    eventually("both are well", || ["s0", "s1"].iter().all(|name| matches!(state(name).as_str(), "up" | "idle")));
    redis[0].kill();
    let lost = key_on(0, 2);
    eventually("it is seen", || {
        // Who is never asked anything is not known to be gone.
        app.ask(&format!("GET {lost}"));
        !matches!(state("s0").as_str(), "up" | "idle")
    });
    assert!(matches!(state("s1").as_str(), "up" | "idle"));
}

/// Where who reads must show the token, it is in a file.
#[test]
fn the_token_is_shown_where_it_is_wanted() {
    let (_redis, at) = shards(1);
    let (running, admin) = Running::with(&at, &["^admin_token: a-token-of-some-length", "^admin_token_for: all"]);
    let told = |token: &str| {
        let file = running.1.write("token", token);
        let done =
            Command::new(BINARY).args(["top", "--once", "--admin", &admin, "--token-file", &file]).output().unwrap();
        (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let (code, said, complained) = once(&admin);
    assert!(
        code == 71 && said.is_empty() && complained.contains("/status is answered with 401: expected"),
        "{complained}"
    );
    let (code, said, complained) = told("a-token-of-some-length\n");
    assert!(code == 0 && said.contains("\nSHARDS\n") && complained.is_empty(), "{said}{complained}");
    assert_eq!(told("another-token-of-some-length").0, 71);
    for wrong in ["", "two\r\nlines-of-some-length", "a blank"] {
        let (code, _, complained) = told(wrong);
        assert!(code == 64 && complained.contains("expected a token") && !complained.contains("lines"), "{complained}");
    }
}

#[test]
fn nobody_there_is_told() {
    let (code, told, complained) = once("/nowhere/admin.sock");
    assert!(code == 71 && told.is_empty() && complained.starts_with("hotring: /nowhere/admin.sock: "), "{complained}");
    let done = Command::new(BINARY).arg("top").stdin(Stdio::null()).output().unwrap();
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(64), &[][..]));
}

/// In a terminal of Python's; what is compared is how the terminal is set, before and after.
const PTY: &str = r#"
import fcntl, os, pty, select, signal, struct, subprocess, sys, termios, time
binary, admin, end = sys.argv[1:4]
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
before = termios.tcgetattr(theirs)
child = subprocess.Popen([binary, "top", "--admin", admin], stdin=theirs, stdout=theirs, stderr=theirs)
seen = b""
deadline = time.monotonic() + 60
while b"[overview]" not in seen:
    assert time.monotonic() < deadline, seen
    if select.select([ours], [], [], 1)[0]:
        seen += os.read(ours, 65536)
assert termios.tcgetattr(theirs)[3] != before[3], "it is not raw"
if end == "key":
    os.write(ours, b"q")
elif end == "interrupt":
    os.write(ours, b"\x03")
else:
    child.send_signal(signal.SIGTERM)
while child.poll() is None:
    assert time.monotonic() < deadline
    if select.select([ours], [], [], 0.1)[0]:
        seen += os.read(ours, 65536)
while select.select([ours], [], [], 0)[0]:
    seen += os.read(ours, 65536)
assert child.returncode == 0, child.returncode
assert termios.tcgetattr(theirs) == before, "it is not as before"
assert seen.rfind(b"\x1b[?1049l") > seen.rfind(b"\x1b[?1049h") >= 0, seen
assert seen.rfind(b"\x1b[?25h") > seen.rfind(b"\x1b[?25l"), seen
"#;

#[test]
fn the_terminal_is_as_before() {
    let (_redis, at) = shards(1);
    let (_running, admin) = Running::over(&at);
    for end in ["key", "interrupt", "signal"] {
        let mut python = Command::new("python3")
            .args(["-", BINARY, &admin, end])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 is there: tests/setup");
        python.stdin.take().unwrap().write_all(PTY.as_bytes()).unwrap();
        let done = python.wait_with_output().unwrap();
        assert!(done.status.success(), "{end}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
