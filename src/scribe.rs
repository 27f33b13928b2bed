//! Lines of the audit log on their way to a file or to standard output.
//!
//! Promises: who tells something never waits for a disk, or for who reads a pipe: lines wait here, 1024 of them; of what is beyond
//! there is a number, as of all that is left out. Lines keep their order and are written whole, as far as the system takes them.

use super::SUPPRESSED;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait at most.
const MOST: usize = 1024;

/// The log is the process', and so is its queue.
static OWN: OnceLock<Queue> = OnceLock::new();

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: VecDeque<Vec<u8>>,
    /// One is being written.
    writing: bool,
}

impl Queue {
    /// Writes to it in a thread of its own from now on.
    ///
    /// # Errors
    /// Where there can be no thread.
    pub fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self::default();
        let own = queue.clone();
        std::thread::Builder::new().name("audit".into()).spawn(move || own.run(to))?;
        Ok(queue)
    }

    /// The same, for [`settle`].
    ///
    /// # Errors
    /// As [`Queue::start`].
    pub fn start_own(to: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self::start(to)?;
        Ok(OWN.get_or_init(|| queue).clone())
    }

    fn run(&self, mut to: impl Write) {
        let mut lines = self.lines();
        loop {
            let Some(line) = lines.waiting.pop_front() else {
                lines.writing = false;
                self.0.changed.notify_all();
                lines = self.0.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            lines.writing = true;
            drop(lines);
            if to.write_all(&line).and_then(|()| to.flush()).is_err() {
                SUPPRESSED.fetch_add(1, Ordering::Relaxed);
            }
            lines = self.lines();
        }
    }

    /// Waits until all is written, for so long at most; whether it is.
    pub fn settle(&self, most: Duration) -> bool {
        let busy = |lines: &mut Lines| lines.writing || !lines.waiting.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.lines(), most, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until all that the process has told is written, for so long at most.
pub fn settle(most: Duration) {
    if let Some(queue) = OWN.get() {
        queue.settle(most);
    }
}

impl Write for Queue {
    /// A line, which is taken whole or counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.lines();
        if lines.waiting.len() < MOST {
            lines.waiting.push_back(line.to_vec());
            self.0.changed.notify_all();
        } else {
            SUPPRESSED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// Takes a line when it may.
    struct Gate(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_tells_does_not_wait_for_who_reads() {
        let (open, gate) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let mut queue = Queue::start(Gate(gate, Arc::clone(&written))).unwrap();
        let before = SUPPRESSED.load(Ordering::Relaxed);
        let told: usize = 3 * MOST;
        for number in 0..told {
            queue.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        assert!(!queue.settle(Duration::from_millis(1)));
        let left_out = SUPPRESSED.load(Ordering::Relaxed) - before;
        drop(open);
        assert!(queue.settle(Duration::from_secs(60)));
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let count = written.lines().count();
        // One may have been taken before the others came.
        assert!((MOST..=MOST + 1).contains(&count), "{count}");
        assert!(left_out as usize >= told - count, "{left_out} of {told}, {count} written");
        assert!(written.lines().enumerate().all(|(at, line)| line == at.to_string()), "in their order");
    }
}
