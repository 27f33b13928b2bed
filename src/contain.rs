//! Keeps a panic where it happened.
//!
//! A panic is a mistake of hotring's own; no bytes of an app or a shard should ever cause one. If one does all the same, it
//! costs the session or the connection in whose turn it happened, and nobody else: whoever serves one of them calls it
//! through here, and afterwards has the engine look after what was left half done ([`crate::engine::Engine::mend`]).
//!
//! What was being done is not resumed: the task ends. Needs a build that unwinds (`panic = "unwind"`, as all profiles have).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// Does something that might panic.
///
/// # Errors
/// The panic's message. What was touched may be half done.
#[inline]
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
    })
}

/// Does something that might panic and takes its time.
///
/// # Errors
/// As [`contain`].
pub async fn contained<T>(task: impl Future<Output = T>) -> Result<T, String> {
    let mut task = pin!(task);
    std::future::poll_fn(|cx| match contain(|| task.as_mut().poll(cx)) {
        Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(message) => Poll::Ready(Err(message)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_done_and_a_panic_is_told() {
        assert_eq!(contain(|| 1), Ok(1));
        assert_eq!(contain(|| -> u8 { panic!("no way") }), Err("no way".into()));
        assert_eq!(contain(|| -> u8 { panic!("no {}", 2) }), Err("no 2".into()));
        assert_eq!(contain(|| std::panic::panic_any(3)), Err("no message".into()));
    }

    #[tokio::test]
    async fn a_panic_after_a_wait_is_told_too() {
        assert_eq!(contained(async { 1 }).await, Ok(1));
        let late = async {
            tokio::task::yield_now().await;
            panic!("late");
        };
        assert_eq!(contained(late).await, Err::<(), _>("late".into()));
    }
}
