//! A headless Chromium, spoken to by its DevTools protocol: just enough of a WebSocket for that.

use super::support::{FOREVER, Scratch, now};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A browser with one page. What it says on its console, and what it asks the network for, is kept.
pub(crate) struct Browser {
    child: Child,
    _dir: Scratch,
    socket: BufReader<TcpStream>,
    session: String,
    asked: u64,
    /// Errors and warnings of the console, and exceptions.
    pub(crate) complaints: Vec<String>,
    /// The addresses of all requests.
    pub(crate) requests: Vec<String>,
}

impl Browser {
    /// With an empty page.
    pub(crate) fn start() -> Self {
        let dir = Scratch::new();
        let mut child = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio"])
            .args(["--remote-debugging-port=0", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", dir.0.display()))
            .arg("about:blank")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromium: {error}; tests/setup installs it"));
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let at = loop {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "chromium ended before it listened");
            if let Some((_, at)) = line.split_once("DevTools listening on ws://") {
                break at.trim().to_owned();
            }
        };
        // It would stop at a full pipe.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let (host, path) = at.split_once('/').unwrap();
        let mut socket = TcpStream::connect(host).unwrap();
        socket.set_read_timeout(Some(FOREVER)).unwrap();
        write!(
            socket,
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: \
             13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        .unwrap();
        let mut socket = BufReader::new(socket);
        while line != "\r\n" {
            line.clear();
            assert!(socket.read_line(&mut line).unwrap() > 0);
        }
        let mut browser = Self {
            child,
            _dir: dir,
            socket,
            session: String::new(),
            asked: 0,
            complaints: Vec::new(),
            requests: Vec::new(),
        };
        let target = browser.order("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.order("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.order(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Has it do something, and returns what it answers.
    pub(crate) fn order(&mut self, method: &str, parameters: Value) -> Value {
        self.asked += 1;
        let mut order = json!({"id": self.asked, "method": method, "params": parameters});
        if !self.session.is_empty() {
            order["sessionId"] = self.session.clone().into();
        }
        self.send(order.to_string().as_bytes());
        loop {
            let told: Value = serde_json::from_slice(&self.receive()).unwrap();
            if told["id"] == self.asked {
                assert!(told["error"].is_null(), "{method}: {told}");
                return told["result"].clone();
            }
            self.note(&told);
        }
    }

    fn note(&mut self, told: &Value) {
        let parameters = &told["params"];
        match told["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                self.requests.push(parameters["request"]["url"].as_str().unwrap().to_owned());
            }
            "Runtime.exceptionThrown" => self.complaints.push(parameters["exceptionDetails"].to_string()),
            "Runtime.consoleAPICalled" => self.complaints.push(parameters["args"].to_string()),
            "Log.entryAdded" if parameters["entry"]["level"] != "verbose" => {
                self.complaints.push(parameters["entry"].to_string());
            }
            "Page.javascriptDialogOpening" => self.complaints.push(format!("a dialog: {parameters}")),
            _ => {}
        }
    }

    /// Opens a page with a window so wide and high.
    pub(crate) fn open(&mut self, address: &str, size: (u32, u32)) {
        let (width, height) = size;
        let window = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.order("Emulation.setDeviceMetricsOverride", window);
        self.order("Page.navigate", json!({"url": address}));
    }

    /// What an expression of JavaScript is in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let wanted = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let told = self.order("Runtime.evaluate", wanted);
        assert!(told["exceptionDetails"].is_null(), "{expression}: {told}");
        told["result"]["value"].clone()
    }

    /// Asks until an expression is true. Returns after how many milliseconds it was.
    pub(crate) fn until(&mut self, expression: &str) -> u128 {
        let begun = now();
        while self.value(expression) != true {
            let page = || "document.body ? document.body.innerText : ''";
            assert!(begun.elapsed() < FOREVER, "never so: {expression}\n{}", self.value(page()));
        }
        begun.elapsed().as_millis()
    }

    /// The page as it looks, whole, below `target/`.
    pub(crate) fn picture(&mut self, name: &str) -> PathBuf {
        let told = self.order("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}));
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{name}.png"));
        std::fs::write(&path, base64(told["data"].as_str().unwrap())).unwrap();
        path
    }

    /// One frame of text. The mask is nothing: that is allowed, and hides nothing either way.
    fn send(&mut self, text: &[u8]) {
        let mut frame = vec![0x81];
        match text.len() {
            short @ ..126 => frame.push(0x80 | short as u8),
            middle @ ..65_536 => {
                frame.push(0x80 | 126);
                frame.extend((middle as u16).to_be_bytes());
            }
            long => {
                frame.push(0x80 | 127);
                frame.extend((long as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(text);
        self.socket.get_mut().write_all(&frame).unwrap();
    }

    /// One message, of however many frames.
    fn receive(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        loop {
            let mut head = [0; 2];
            self.socket.read_exact(&mut head).unwrap();
            let length = match head[1] & 0x7f {
                126 => {
                    let mut length = [0; 2];
                    self.socket.read_exact(&mut length).unwrap();
                    u64::from(u16::from_be_bytes(length))
                }
                127 => {
                    let mut length = [0; 8];
                    self.socket.read_exact(&mut length).unwrap();
                    u64::from_be_bytes(length)
                }
                short => u64::from(short),
            };
            let start = message.len();
            message.resize(start + length as usize, 0);
            self.socket.read_exact(&mut message[start..]).unwrap();
            assert!(head[0] & 0x0f <= 2, "a frame that is no part of a message: {head:?}");
            if head[0] & 0x80 != 0 {
                return message;
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bytes of a text in base64.
fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter(|byte| *byte != b'=') {
        held = held << 6 | DIGITS.iter().position(|known| *known == digit).unwrap() as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}
