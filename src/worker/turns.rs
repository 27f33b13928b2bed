//! Handshakes of apps take turns, so that a storm of them holds up nobody who is there already.
//!
//! A handshake is a fifth of a millisecond of work, in which the worker does nothing else. Of a thousand apps that come back at once
//! all would have theirs before it looks at any other socket.
//!
//! Promises: between two looks at all sockets a worker takes [`AT_ONCE`] steps of handshakes, in the order in which they asked. Who has
//! nothing to be worked on takes no turn, so that nobody is kept out by those who stand still.

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Steps between two looks: so many may a reply wait for, and so many there are in each pass that other work makes long.
const AT_ONCE: usize = 4;

thread_local! {
    /// The worker's.
    static TURNS: Arc<Semaphore> = Arc::new(Semaphore::new(AT_ONCE));
}

/// Waits for a turn on this thread. It lasts until what is returned is dropped, for which all who are ready should have had theirs
/// ([`tokio::task::yield_now`]).
pub(super) async fn turn() -> Option<OwnedSemaphorePermit> {
    // It is never closed.
    TURNS.with(Arc::clone).acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::task::{spawn_local, yield_now};

    #[test]
    fn others_have_their_turn_between_a_few_steps() {
        let runtime = Builder::new_current_thread().build_local(LocalOptions::default()).unwrap();
        let seen = Rc::new(RefCell::new(String::new()));
        runtime.block_on(async {
            let other = Rc::clone(&seen);
            let other = spawn_local(async move {
                loop {
                    other.borrow_mut().push(' ');
                    yield_now().await;
                }
            });
            let steps: Vec<_> = (0..100)
                .map(|_| {
                    let seen = Rc::clone(&seen);
                    spawn_local(async move {
                        let turn = turn().await;
                        seen.borrow_mut().push('x');
                        yield_now().await;
                        drop(turn);
                    })
                })
                .collect();
            for step in steps {
                step.await.unwrap();
            }
            other.abort();
        });
        let seen = seen.borrow();
        let most = seen.split(' ').map(str::len).max();
        assert_eq!((most, seen.matches('x').count()), (Some(AT_ONCE), 100), "{seen}");
    }
}
