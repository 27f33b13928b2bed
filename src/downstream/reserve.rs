//! A descriptor kept for bad times: with it a connection that comes when there are none left can still be told so.
//!
//! Without it such a connection would wait in the kernel's queue, and its app with it, until another one ends.

use crate::stages::Micros;
use std::cell::{Cell, RefCell};
use std::fs::File;

/// What is held open in the meantime.
const NOTHING: &str = "/dev/null";
/// Least time between two lines in the log, in microseconds.
const SELDOM: Micros = 10_000_000;

/// See the module. One for all listeners of a thread.
#[derive(Debug)]
pub struct Reserve {
    kept: RefCell<Option<File>>,
    next: Cell<Micros>,
}

impl Default for Reserve {
    fn default() -> Self {
        let reserve = Self { kept: RefCell::new(None), next: Cell::new(0) };
        reserve.keep();
        reserve
    }
}

impl Reserve {
    /// Lets go of it, for one connection. Returns whether it was there.
    pub(super) fn spend(&self) -> bool {
        self.kept.borrow_mut().take().is_some()
    }

    /// Takes one again, if there is one.
    pub fn keep(&self) {
        let mut kept = self.kept.borrow_mut();
        if kept.is_none() {
            *kept = File::open(NOTHING).ok();
        }
    }

    /// Says that descriptors are used up, unless it was said just before.
    pub fn complain(&self, now: Micros) {
        if now >= self.next.get() {
            self.next.set(now.saturating_add(SELDOM));
            tracing::warn!(
                "no descriptor is left: clients are refused until others leave; raise the limit of open files"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_once_until_it_is_kept_again() {
        let reserve = Reserve::default();
        assert!(reserve.spend() && !reserve.spend());
        reserve.keep();
        assert!(reserve.spend());
    }
}
