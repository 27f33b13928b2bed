//! One question to an admin listener, which serves one a connection.

use crate::admin::status::{Status, VERSION};
use crate::units::{Address, Secret};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long connecting, and each part of an answer, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer has.
const MOST: u64 = 64 << 20;

trait Socket: Read + Write {}
impl<S: Read + Write> Socket for S {}

/// What the process at this admin address tells of itself, to whoever has this token, if it wants one.
///
/// # Errors
/// Where there is no answer, or none that is understood; for people.
pub fn fetch(admin: &Address, token: Option<&Secret>) -> Result<Box<Status>, String> {
    let answer = ask(admin, token).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    })?;
    read(&answer)
}

fn ask(admin: &Address, token: Option<&Secret>) -> io::Result<Vec<u8>> {
    let (mut socket, host): (Box<dyn Socket>, String) = match admin {
        Address::Unix { path, .. } => {
            let socket = UnixStream::connect(path)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            (Box::new(socket), "localhost".into())
        }
        Address::Tcp { host, port } => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            let mut found = None;
            for at in (host.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&at, PATIENCE) {
                    Ok(socket) => found = Some(socket),
                    Err(error) => last = error,
                }
                if found.is_some() {
                    break;
                }
            }
            let socket = found.ok_or(last)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            (Box::new(socket), admin.to_string())
        }
    };
    let shown = token.map_or(String::new(), |token| format!("Authorization: Bearer {}\r\n", token.expose()));
    write!(socket, "GET /status HTTP/1.1\r\nHost: {host}\r\n{shown}Connection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.take(MOST).read_to_end(&mut answer)?;
    Ok(answer)
}

fn read(answer: &[u8]) -> Result<Box<Status>, String> {
    let end = answer.windows(4).position(|some| some == b"\r\n\r\n").ok_or("what answers speaks no HTTP")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]), &answer[end + 4..]);
    let code = head.split(' ').nth(1).unwrap_or_default();
    if code != "200" {
        let why = String::from_utf8_lossy(body);
        return Err(format!("/status is answered with {code}: {}", why.lines().next().unwrap_or_default()));
    }
    let value: serde_json::Value =
        serde_json::from_slice(body).map_err(|error| format!("/status is no JSON: {error}"))?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(VERSION.into()) {
        let has = version.map_or("none".to_owned(), |version| version.to_string());
        return Err(format!("/status has version {has}, and this hotring knows {VERSION}: use that of the process"));
    }
    serde_json::from_value(value).map(Box::new).map_err(|error| format!("/status is not understood: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_what_it_says() {
        let answer = |code: &str, body: &str| format!("HTTP/1.1 {code} X\r\na: b\r\n\r\n{body}").into_bytes();
        let status = Status { version: VERSION, now: 7, ..Status::default() };
        let text = serde_json::to_string(&status).unwrap();
        assert_eq!(read(&answer("200", &text)), Ok(Box::new(status)));
        for (code, body, why) in [
            ("404", "no such page\n", "answered with 404: no such page"),
            ("200", "{\"version\": 9}", "has version 9"),
            ("200", "{}", "has version none"),
            ("200", "{\"version\": 1}", "is not understood"),
            ("200", "<html>", "is no JSON"),
        ] {
            let told = read(&answer(code, body)).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
        assert!(read(b"-ERR no\r\n").is_err());
    }
}
