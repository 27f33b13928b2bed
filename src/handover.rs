//! The listeners go from a running hotring to the one that replaces it, so that no connection is refused meanwhile.
//!
//! The old process listens on a unix socket (`handover`). The new one connects there at its start, is given the listening
//! sockets themselves (SCM_RIGHTS, unix(7)), starts, and says so; from then on the old one accepts nothing more and ends as
//! `drain` says. Connections that were waiting to be accepted wait on: the kernel's queue belongs to the socket. If the new
//! process fails at any point before its word, the old one goes on as if nothing had been.
//!
//! ```text
//! old -> new   4 bytes: the length of what follows; a line for each listener
//! old -> new   for each listener one byte that carries it
//! new -> old   "ready"
//! ```
//!
//! Promises: nothing here waits for longer than [`PATIENCE`] for each step. Does not hand over sessions, or what embedded
//! nodes hold. Whoever may open the socket may take the listeners: it has mode 0600.

use crate::downstream::listener::SocketFile;
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::fs;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// How long each side waits for the other to go on.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long the old process waits for the new one to have started.
const STARTING: Duration = Duration::from_secs(60);
/// Most bytes of the list of listeners.
const LIST: usize = 1 << 20;
const READY: &[u8; 5] = b"ready";
const GREETING: &str = "hotring listeners 1";

/// Listeners that another process has given.
#[derive(Debug)]
pub struct Taken {
    listeners: Vec<(String, OwnedFd)>,
    giver: UnixStream,
}

impl Taken {
    /// Asks the process that listens on this socket for its listeners; `None` where there is none.
    ///
    /// # Errors
    /// Where there is one that does not give them.
    pub fn from(path: &Path) -> io::Result<Option<Self>> {
        let mut giver = match UnixStream::connect(path) {
            Ok(giver) => giver,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        giver.set_read_timeout(Some(PATIENCE))?;
        giver.set_write_timeout(Some(PATIENCE))?;
        let mut length = [0; 4];
        giver.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > LIST {
            return Err(other("it is no hotring"));
        }
        let mut list = vec![0; length];
        giver.read_exact(&mut list)?;
        let list = String::from_utf8(list).map_err(|_| other("it is no hotring"))?;
        let mut lines = list.lines();
        if lines.next() != Some(GREETING) {
            return Err(other("it is no hotring, or one of another kind"));
        }
        let mut listeners = Vec::new();
        for name in lines {
            listeners.push((name.to_owned(), receive(&giver)?));
        }
        Ok(Some(Self { listeners, giver }))
    }

    /// The listener of that name, once.
    pub fn find(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.listeners.iter().position(|(given, _)| given == name)?;
        Some(self.listeners.swap_remove(at).1)
    }

    /// Tells the other process that this one serves now. What was not found a use for is closed.
    ///
    /// # Errors
    /// Where it cannot be told: it goes on serving, unless it has ended.
    pub fn confirm(mut self) -> io::Result<()> {
        let told = self.giver.write_all(READY);
        for (name, listener) in self.listeners {
            // The other process leaves the files of its sockets to this one.
            if let Some((_, path)) = name.split_once("unix ") {
                drop(listener);
                let _ = fs::remove_file(path);
            }
        }
        told
    }
}

/// Gives a process that has connected these listeners. Returns whether it serves now.
///
/// # Errors
/// Where it breaks off.
pub fn give(mut taker: UnixStream, listeners: &[(String, OwnedFd)]) -> io::Result<bool> {
    taker.set_nonblocking(false)?;
    taker.set_write_timeout(Some(PATIENCE))?;
    taker.set_read_timeout(Some(STARTING))?;
    let mut list = GREETING.to_owned();
    for (name, _) in listeners {
        list.push('\n');
        list.push_str(name);
    }
    let length = u32::try_from(list.len()).map_err(|_| other("too many listeners"))?;
    taker.write_all(&length.to_be_bytes())?;
    taker.write_all(list.as_bytes())?;
    for (_, listener) in listeners {
        send(&taker, listener)?;
    }
    let mut word = [0; READY.len()];
    taker.read_exact(&mut word)?;
    Ok(word == *READY)
}

/// Listens for a process that is to replace this one, at a place of its own for now: with [`SocketFile::move_to`] the socket
/// takes the place of another's in one step. Who has not come up yet must not be in the way of the next one.
///
/// # Errors
/// As `bind(2)`.
pub fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let mut own = path.as_os_str().to_owned();
    own.push(format!(".{}", std::process::id()));
    let own = Path::new(&own);
    // One of a process of the same number that ended long ago.
    let _ = fs::remove_file(own);
    let listener = UnixListener::bind(own)?;
    let file = SocketFile::new(own);
    fs::set_permissions(own, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok((listener, file))
}

fn send(to: &UnixStream, what: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    let what = [what.as_fd()];
    if !message.push(SendAncillaryMessage::ScmRights(&what)) {
        return Err(other("no room for a descriptor"));
    }
    // On a socket with a timeout a process that is stopped and continued is interrupted.
    retry_on_intr(|| sendmsg(to, &[IoSlice::new(b"+")], &mut message, SendFlags::NOSIGNAL))?;
    Ok(())
}

fn receive(from: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    retry_on_intr(|| recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut message, RecvFlags::CMSG_CLOEXEC))?;
    for part in message.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = part
            && let Some(descriptor) = descriptors.next()
        {
            return Ok(descriptor);
        }
    }
    Err(other("a listener is missing"))
}

fn other(text: &'static str) -> io::Error {
    io::Error::other(text)
}
