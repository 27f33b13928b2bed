//! The listeners of the process, and where accepted connections are dealt from.

use super::{Dealt, Listening, Place, Seat, Whose, spawn_needed, welcome};
use crate::downstream::config::Manner;
use crate::downstream::listener::{Accepted, Came, Listener};
use crate::downstream::reserve::Reserve;
use crate::error::{Cause, MAX_CLIENTS, OUT_OF_MEMORY};
use crate::hub::{Hub, Socket};
use crate::live::Live;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// The listeners of the process; on worker 0.
pub(super) struct Doors {
    pub(super) hub: Rc<Hub>,
    pub(super) number: usize,
    pub(super) seats: Rc<[Seat]>,
    pub(super) live: Rc<RefCell<Arc<Live>>>,
    pub(super) shutdown: CancellationToken,
    pub(super) reserve: Rc<Reserve>,
    /// By number.
    pub(super) open: HashMap<u64, Door>,
}

/// A listener that is open.
pub(super) struct Door {
    /// Closes it.
    closing: CancellationToken,
    /// Whose it is.
    pub(super) whose: Rc<Cell<Whose>>,
    /// Ends when it is closed.
    is_closed: oneshot::Receiver<()>,
}

impl Doors {
    /// Begins to accept.
    pub(super) fn open(&mut self, listening: Listening) -> io::Result<()> {
        let listener = listening.bound.start()?;
        let (closing, whose) = (self.shutdown.child_token(), Rc::new(Cell::new(listening.whose)));
        let table = Table {
            hub: Rc::clone(&self.hub),
            number: self.number,
            seats: Rc::clone(&self.seats),
            live: Rc::clone(&self.live),
            whose: Rc::clone(&whose),
            reserve: Rc::clone(&self.reserve),
        };
        let (open, is_closed) = oneshot::channel::<()>();
        let (hub, stop) = (Rc::clone(&self.hub), closing.clone());
        spawn_needed(&hub, "a listener", async move {
            accept(table, listener, stop).await;
            drop(open);
        });
        self.open.insert(listening.number, Door { closing, whose, is_closed });
        Ok(())
    }

    /// Accepts nothing more; what is returned ends when the listener is closed.
    pub(super) fn close(&mut self, number: u64) -> Option<oneshot::Receiver<()>> {
        let Door { closing, is_closed, .. } = self.open.remove(&number)?;
        closing.cancel();
        Some(is_closed)
    }
}

/// Where accepted connections are dealt from.
struct Table {
    hub: Rc<Hub>,
    number: usize,
    seats: Rc<[Seat]>,
    live: Rc<RefCell<Arc<Live>>>,
    whose: Rc<Cell<Whose>>,
    reserve: Rc<Reserve>,
}

async fn accept(table: Table, listener: Listener, closing: CancellationToken) {
    loop {
        let stream = tokio::select! {
            biased;
            () = closing.cancelled() => return,
            came = listener.accept(&table.reserve) => match came {
                Came::App(stream) => stream,
                Came::Beyond(stream) => {
                    table.reserve.complain(table.hub.now());
                    turn_away(&table, table.whose.get(), stream, Cause::MaxClients, MAX_CLIENTS);
                    table.reserve.keep();
                    continue;
                }
            },
        };
        let whose = table.whose.get();
        let pool = whose.pool;
        let Some((limit, open)) = table
            .live
            .borrow()
            .pools
            .get(usize::from(pool))
            .map(|live| (live.pool.downstream.client_connections as usize, Arc::clone(&live.open)))
        else {
            return;
        };
        if limit > 0 && open.load(Ordering::Relaxed) >= limit {
            turn_away(&table, whose, stream, Cause::MaxClients, MAX_CLIENTS);
            continue;
        }
        if table.hub.engine().budget().is_full() {
            turn_away(&table, whose, stream, Cause::Memory, OUT_OF_MEMORY);
            continue;
        }
        // The fewest sessions; among equals the first.
        let Some((seat_number, seat)) =
            table.seats.iter().enumerate().min_by_key(|(_, seat)| seat.load.load(Ordering::Relaxed))
        else {
            return;
        };
        open.fetch_add(1, Ordering::Relaxed);
        seat.load.fetch_add(1, Ordering::Relaxed);
        let place = Place { open, load: Arc::clone(&seat.load) };
        if seat_number == table.number {
            welcome(&table.hub, &table.live, stream, whose, place);
        } else if let Ok(accepted) = Accepted::detach(stream) {
            // Full means that the worker is behind; accepting then waits, and the kernel's backlog fills.
            let _ = seat.sender.send(Dealt { accepted, whose, place }).await;
        }
    }
}

/// Answers with an error and closes; closes only, where that would have to be encrypted first.
fn turn_away(table: &Table, whose: Whose, stream: Socket, cause: Cause, text: &str) {
    if let Some(counts) = table.hub.engine().pool_counts(whose.pool) {
        counts.client_refused += 1;
        counts.errors[cause] += 1;
    }
    if whose.manner == Manner::Encrypted {
        return;
    }
    let text = format!("-{text}\r\n");
    if let Ok(accepted) = Accepted::detach(stream) {
        // A new socket takes these few bytes at once; an app that has gone does not miss them.
        let _ = match accepted {
            Accepted::Tcp(mut socket) => socket.write(text.as_bytes()),
            Accepted::Unix(mut socket) => socket.write(text.as_bytes()),
        };
    }
}
