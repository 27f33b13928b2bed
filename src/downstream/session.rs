//! One app's connection: reads requests into the engine; the flusher writes the replies.
//!
//! An idle session owns no buffer. Bytes are read into the worker's scratch; only an incomplete request is kept, in a buffer
//! that grows as its bytes arrive and never ahead of them, whatever length the app has announced.

use crate::contain::contain;
use crate::engine::{SessionId, Then};
use crate::hub::{Hub, Socket, let_others, trap};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

/// Reads after which a session lets others go first.
const TURNS: u32 = 4;
/// Bytes asked for at least while a request is incomplete: what follows it most likely comes with it.
const LEAST: usize = 4 * 1024;
/// Bytes taken in behind a command that waits, at least. Whether the app leaves is seen as far as what it sent beyond fits the
/// kernel's buffer: what does not keeps the end from being told.
const MOST_BEHIND: usize = 256 * 1024;
/// Bytes asked for at most at once, so that memory follows what arrives and not what was announced.
const MOST: usize = 256 * 1024;

/// Serves an app until it leaves. `place` is let go of then.
///
/// A future written by hand: ten thousand idle apps are ten thousand of these, and what a compiler makes of an `async` block
/// keeps its arguments twice.
pub struct Session<P> {
    hub: Rc<Hub>,
    /// An incomplete request, or what was read before the session was paused.
    tail: Vec<u8>,
    /// Bytes that `tail` must have before looking at it again makes sense.
    need: usize,
    id: SessionId,
    eof: bool,
    /// It has had its turn, and there may be more in `tail`.
    again: bool,
    broken: bool,
    panicked: bool,
    _place: P,
}

impl<P> Session<P> {
    /// Opens a session for an app that has connected to a listener of the pool, a `strict` one or not.
    pub fn new(hub: Rc<Hub>, socket: Socket, pool: u16, strict: bool, place: P) -> Self {
        let id = hub.with(|engine, sockets| {
            let id = if strict { engine.open_strict(pool) } else { engine.open(pool) };
            sockets.add_app(id, socket);
            id
        });
        // `broken` until it has ended well: a panic ends it, too.
        Self {
            hub,
            tail: Vec::new(),
            need: 1,
            id,
            eof: false,
            again: false,
            broken: true,
            panicked: false,
            _place: place,
        }
    }
}

impl<P> Drop for Session<P> {
    fn drop(&mut self) {
        let closed = contain(|| {
            self.hub.with(|engine, sockets| {
                if self.panicked {
                    engine.mend(sockets);
                }
                engine.close(self.id, self.broken, sockets);
                sockets.remove_app(self.id);
            });
        });
        if let Err(message) = closed {
            // What it leaves behind is not known.
            self.hub.break_down("the end of a session", &message);
        }
    }
}

impl<P: Unpin> Future for Session<P> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let session = self.as_mut().get_mut();
        match contain(|| session.advance(cx)) {
            Ok(ended) => session.broken = ready!(ended).is_err(),
            Err(message) => {
                session.panicked = true;
                session.hub.panicked("a session", &message);
            }
        }
        Poll::Ready(())
    }
}

impl<P> Session<P> {
    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for _ in 0..TURNS {
            let (over, paused, closing, waiting) = self.hub.with(|engine, sockets| {
                sockets.read_by(self.id, cx);
                if engine.is_blocked(self.id) && sockets.poll_app(self.id, cx).is_ready() {
                    engine.app_writable(self.id);
                }
                let paused = engine.is_paused(self.id);
                let waiting = paused && engine.is_waiting(self.id);
                (engine.is_over(self.id), paused, engine.is_closing(self.id), waiting)
            });
            if self.eof && self.hub.engine().ends_with_app(self.id) {
                // As Redis does: what it waits for goes to others.
                return Poll::Ready(Ok(()));
            }
            if over {
                self.read_away(cx);
                return Poll::Ready(Ok(()));
            }
            // What a session asks behind a command that waits is taken in up to a bound, so that its leaving is seen.
            let watched = waiting && !closing && !self.eof && self.tail.len() < MOST_BEHIND;
            if (paused || closing) && !watched {
                // Not read any further, and yet it must not take what others could have when it is gone.
                let asks = waiting && !self.eof && self.hub.engine().ends_with_app(self.id);
                if asks && self.hub.sockets().has_left(self.id) {
                    return Poll::Ready(Ok(()));
                }
                return Poll::Pending;
            }
            if !watched && !self.tail.is_empty() && self.tail.len() >= self.need {
                self.submit_tail();
                if self.again {
                    break;
                }
                continue;
            }
            if self.eof {
                // The app may have closed its half only: it still gets all it asked for.
                let done = self.hub.with(|engine, _| engine.finish(self.id));
                return if done { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            let fresh = self.tail.is_empty() && !watched;
            let count = match if fresh { self.read_fresh(cx) } else { self.read_more(cx) } {
                Poll::Ready(Ok(count)) => count,
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            if count == 0 {
                // What it asked behind a command that waits is still to be carried out.
                self.eof = true;
            }
            if self.again {
                break;
            }
        }
        let_others(cx);
        Poll::Pending
    }

    /// Takes what the app has sent and nobody will read: closing a socket with unread bytes resets the connection, and the
    /// app might lose the last reply, which says why it is closed.
    fn read_away(&self, cx: &mut Context<'_>) {
        let hub = Rc::clone(&self.hub);
        let mut scratch = hub.scratch();
        for _ in 0..TURNS {
            match hub.sockets().poll_read_app(self.id, cx, &mut scratch) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                _ => return,
            }
        }
    }

    /// Reads into the shared scratch; keeps what is left of an incomplete request.
    fn read_fresh(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let hub = Rc::clone(&self.hub);
        let mut scratch = hub.scratch();
        let count = ready!(hub.sockets().poll_read_app(self.id, cx, &mut scratch))?;
        let bytes = scratch.get(..count).unwrap_or_default();
        if !bytes.is_empty() {
            let now = hub.now();
            let done = hub.with(|engine, sockets| {
                trap("session", bytes);
                engine.submit(self.id, bytes, now, sockets)
            });
            let rest = bytes.get(done.consumed..).unwrap_or_default();
            if done.then != Then::Close && !rest.is_empty() {
                self.tail = rest.to_vec();
                self.tell_tail();
            }
            self.expect(done.then);
        }
        Poll::Ready(Ok(count))
    }

    /// Reads on behind an incomplete request.
    fn read_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let have = self.tail.len();
        let step = self.need.saturating_sub(have).clamp(LEAST, MOST);
        if have.saturating_add(step) > self.tail.capacity() {
            // Not twice as much each time: what many hold at once is to stay near the budget.
            self.tail.reserve_exact(step.max(have / 4));
        }
        self.tail.resize(have.saturating_add(step), 0);
        let room = self.tail.get_mut(have..).unwrap_or_default();
        let read = self.hub.sockets().poll_read_app(self.id, cx, room);
        let count = match &read {
            Poll::Ready(Ok(count)) => *count,
            _ => 0,
        };
        self.tail.truncate(have.saturating_add(count));
        if count > 0 {
            self.tell_tail();
        }
        read
    }

    fn submit_tail(&mut self) {
        let now = self.hub.now();
        let done = self.hub.with(|engine, sockets| engine.submit(self.id, &self.tail, now, sockets));
        if done.consumed >= self.tail.len() || done.then == Then::Close {
            self.tail = Vec::new();
            self.tell_tail();
        } else if done.consumed > 0 {
            self.tail.drain(..done.consumed);
            self.tell_tail();
        }
        self.expect(done.then);
    }

    /// Tells what the buffer of an incomplete request takes. Where that is too much, the session is paused.
    fn tell_tail(&self) {
        let _ = self.hub.with(|engine, _| engine.request_buffer(self.id, self.tail.capacity()));
    }

    fn expect(&mut self, then: Then) {
        self.need = match then {
            Then::Read { need } => need,
            Then::Yield | Then::Pause | Then::Close => 0,
        };
        self.again = then == Then::Yield;
    }
}
