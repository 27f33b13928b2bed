//! The listeners: opened, changed, and handed to a process that replaces this one.

use super::{DoorChanges, Proxy, Signals, StartError};
use crate::admin;
use crate::config::{Config, Pool};
use crate::downstream::config::Manner;
use crate::downstream::listener::{Bound, SocketFile, bind_unix};
use crate::handover::{self, Taken};
use crate::live::Live;
use crate::units::Address;
use crate::worker::{Listening, Order, Reload, Whose};
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// What the admin listener's name begins with when it is handed over.
pub(super) const ADMIN: &str = "admin ";
/// Connections to the admin listener that the kernel may hold ready.
const ADMIN_BACKLOG: i32 = 128;

/// A listener of a pool, as the process knows it.
pub(super) struct Door {
    pub(super) number: u64,
    pub(super) pool: String,
    /// How its sessions are served.
    pub(super) manner: Manner,
    /// As it is configured.
    pub(super) address: Address,
    /// Where it is; port 0 has become a real one.
    pub(super) at: String,
    /// Its socket once more, for the process that may replace this one.
    pub(super) copy: Option<OwnedFd>,
    /// Set when its file is another process'.
    pub(super) stays: Option<Arc<AtomicBool>>,
}

impl Proxy {
    /// Listens for a process that is to replace this one.
    pub(super) fn offer(&self, config: &Config) -> Result<Option<(UnixListener, SocketFile)>, StartError> {
        let Some(path) = &config.handover else { return Ok(None) };
        let bad = |error| StartError::Bind { who: "handover".into(), address: path.display().to_string(), error };
        let (listener, file) = handover::listen(path).map_err(bad)?;
        Ok(Some((UnixListener::from_std(listener).map_err(bad)?, file)))
    }

    /// Gives the listeners to a process that has asked for them. Returns whether it serves now; this one then accepts nothing
    /// more.
    pub(super) async fn hand_over(
        &mut self,
        taker: UnixStream,
        admin: &AdminDoor,
        handover: Option<&(UnixListener, SocketFile)>,
        signals: &mut Signals,
    ) -> bool {
        let listeners = || -> io::Result<Vec<(String, OwnedFd)>> {
            let copies = self.doors.iter().map(|door| (name_of(&door.address), &door.copy));
            let copies = copies.chain([(admin.name.clone(), &admin.copy)]);
            copies.filter_map(|(name, copy)| Some(copy.as_ref()?.try_clone().map(|copy| (name, copy)))).collect()
        };
        let both_ends = || -> io::Result<_> {
            let taker = taker.into_std()?;
            Ok((taker.try_clone()?, taker, listeners()?))
        };
        let given = match both_ends() {
            Ok((end, taker, listeners)) => {
                tracing::info!("another process asks for the listeners");
                let giving = tokio::task::spawn_blocking(move || handover::give(taker, &listeners));
                tokio::select! {
                    given = giving => given,
                    () = signals.told_to_stop() => {
                        // Whoever waits for its word is woken. It may be serving all the same, so the files are its own.
                        let _ = end.shutdown(Shutdown::Both);
                        self.leave_files(admin, handover);
                        return true;
                    }
                }
            }
            Err(error) => Ok(Err(error)),
        };
        match given {
            Ok(Ok(true)) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the other process has not taken over: this one goes on");
                return false;
            }
            Ok(Ok(false)) | Err(_) => return false,
        }
        tracing::info!("the other process serves now: this one accepts nothing more and ends");
        self.leave_files(admin, handover);
        admin.quit.cancel();
        let (done, is_done) = oneshot::channel();
        let close = self.doors.drain(..).map(|door| door.number).collect();
        let order = Reload { live: self.shared.live(), open: Vec::new(), close, hand_over: Vec::new(), done };
        if let Some(desk) = self.shared.desks.first()
            && desk.send(Order::Reload(order)).await.is_ok()
        {
            let _ = is_done.await;
        }
        true
    }

    /// The files of unix sockets are another process' now.
    pub(super) fn leave_files(&self, admin: &AdminDoor, handover: Option<&(UnixListener, SocketFile)>) {
        let files = self.doors.iter().filter_map(|door| door.stays.as_ref()).chain(&admin.stays).cloned();
        let files = files.chain(handover.map(|(_, file)| file.stays()));
        files.for_each(|stays| stays.store(true, Ordering::Relaxed));
    }

    /// Binds what is new, before anything else is changed, and finds what is not wanted any more.
    pub(super) fn change_doors(&mut self, next: &Live) -> Result<DoorChanges, String> {
        let mut before: Vec<Door> = std::mem::take(&mut self.doors);
        let (mut doors, mut open, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        let mut number = before.iter().map(|door| door.number + 1).max().unwrap_or(0);
        let mut failed = None;
        for (pool, place) in next.listed() {
            for (address, manner) in place.pool.downstream.listeners() {
                let whose = Whose { pool, manner };
                let any_port = matches!(address, Address::Tcp { port: 0, .. });
                let same = |door: &Door| {
                    if any_port {
                        door.address == *address && door.pool == place.pool.name && door.manner == manner
                    } else {
                        door.address.is_same_place(address)
                    }
                };
                if let Some(at) = before.iter().position(same) {
                    let door = before.remove(at);
                    if door.pool != place.pool.name || door.manner != manner {
                        moved.push((door.number, whose));
                    }
                    doors.push(door);
                    continue;
                }
                match open_door(number, whose, &place.pool, address, None, next.config.handover.is_some()) {
                    Ok((door, listening)) => {
                        number += 1;
                        doors.push(door);
                        open.push(listening);
                    }
                    Err(error) => failed = failed.or(Some(error.to_string())),
                }
            }
        }
        if let Some(error) = failed {
            // Those just bound are closed again.
            let fresh: Vec<u64> = open.iter().map(|listening| listening.number).collect();
            doors.retain(|door| !fresh.contains(&door.number));
            doors.append(&mut before);
            self.doors = doors;
            return Err(error);
        }
        for door in &mut doors {
            // Only now: had anything failed, it would be the pool's that it was.
            let Some(&(_, whose)) = moved.iter().find(|(number, _)| *number == door.number) else { continue };
            if let Some(place) = next.pools.get(usize::from(whose.pool)) {
                door.pool.clone_from(&place.pool.name);
            }
            door.manner = whose.manner;
        }
        self.doors = doors;
        Ok((open, before.into_iter().map(|door| door.number).collect(), moved))
    }
}

/// Opens a listener, or takes the one that another process has `given`. A `copy` of it is kept if it may be handed on.
pub(super) fn open_door(
    number: u64,
    whose: Whose,
    config: &Pool,
    address: &Address,
    given: Option<OwnedFd>,
    copy: bool,
) -> Result<(Door, Listening), StartError> {
    let bad = |error| StartError::Bind { who: format!("pool {}", config.name), address: address.to_string(), error };
    let bound = match given {
        Some(given) => Bound::inherited(address, given),
        None => Bound::new(address, &config.downstream),
    };
    let bound = bound.map_err(bad)?;
    let (copy, stays) =
        if copy { bound.copy().map(|(copy, stays)| (Some(copy), stays)).map_err(bad)? } else { (None, None) };
    let at = bound.address();
    let (pool, manner) = (config.name.clone(), whose.manner);
    let door = Door { number, pool, manner, address: address.clone(), at, copy, stays };
    Ok((door, Listening { number, whose, bound }))
}

/// The admin listener, as the process knows it.
#[derive(Default)]
pub(super) struct AdminDoor {
    /// What it is called when it is handed over: at another place it is another one.
    pub(super) name: String,
    pub(super) copy: Option<OwnedFd>,
    pub(super) stays: Option<Arc<AtomicBool>>,
    /// Ends it.
    pub(super) quit: CancellationToken,
}

/// What a listener is called when it is handed over: its place, whoever's it is.
pub(super) fn name_of(address: &Address) -> String {
    match address {
        Address::Tcp { host, port } => format!("tcp {host} {port}"),
        Address::Unix { path, .. } => format!("unix {}", path.display()),
    }
}

/// The listeners of the process that listens there for one that replaces it.
pub(super) fn take_over(path: &Path) -> Option<Taken> {
    match Taken::from(path) {
        Ok(Some(taken)) => {
            tracing::info!("taking over the listeners of the process that runs");
            Some(taken)
        }
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "the listeners cannot be taken over");
            None
        }
    }
}

/// The next process that wants to replace this one; never, if that is not wanted.
pub(super) async fn accept_taker(handover: Option<&(UnixListener, SocketFile)>) -> UnixStream {
    let Some((listener, _)) = handover else { return std::future::pending().await };
    loop {
        match listener.accept().await {
            Ok((taker, _)) => return taker,
            // Out of descriptors, say: it will come again.
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}

/// Binds the admin listener, or takes the one that another process has given. Returns where it is.
pub(super) async fn bind_admin(address: &Address, given: Option<OwnedFd>) -> io::Result<(Bound, String)> {
    let bound = match (given, address) {
        (Some(given), _) => Bound::inherited(address, given)?,
        (None, Address::Tcp { host, port }) => {
            let listener = tokio::net::TcpListener::bind((host.as_str(), *port)).await?;
            Bound::Tcp(listener.into_std()?)
        }
        (None, Address::Unix { path, mode }) => {
            let (listener, file) = bind_unix(path, *mode, ADMIN_BACKLOG)?;
            Bound::Unix(listener, file)
        }
    };
    let at = bound.address();
    Ok((bound, at))
}

/// A unix socket's file is removed with what is returned for it.
pub(super) fn admin_listener(bound: Bound) -> io::Result<(admin::Listener, Option<SocketFile>)> {
    Ok(match bound {
        Bound::Tcp(listener) => (tokio::net::TcpListener::from_std(listener)?.into(), None),
        Bound::Unix(listener, file) => (UnixListener::from_std(listener)?.into(), Some(file)),
    })
}
