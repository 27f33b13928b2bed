//! Lines on their way to a file, or to standard output or error, and the thread that writes them.
//!
//! Promises: who tells something never waits for a disk, or for who reads a pipe: lines wait here, [`MOST`] of them; what is beyond is
//! left out and counted, as is what cannot be written. Lines keep their order and are written whole, as far as the system takes them.
//! Does not: outlive the process. Who ends it waits for what is left with [`Scribe::settle`].

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait at most.
pub const MOST: usize = 1024;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Scribe(Arc<Shared>);

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
    lost: Lost,
}

/// Lines that nobody will read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// There was no room for them.
    pub beyond: u64,
    /// They could not be written.
    pub failed: u64,
}

impl Scribe {
    /// Writes to it in a thread of that name from now on.
    ///
    /// # Errors
    /// Where there can be no thread.
    pub fn start(name: &str, to: impl Write + Send + 'static) -> io::Result<Self> {
        let scribe = Self::default();
        let own = scribe.clone();
        std::thread::Builder::new().name(name.into()).spawn(move || own.run(to))?;
        Ok(scribe)
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
            let done = to.write_all(&line).and_then(|()| to.flush());
            lines = self.lines();
            lines.lost.failed += u64::from(done.is_err());
        }
    }

    /// Waits until all is written, for so long at most; whether it is.
    pub fn settle(&self, most: Duration) -> bool {
        let busy = |lines: &mut Lines| lines.writing || !lines.waiting.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.lines(), most, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// What was lost since this was last asked.
    #[must_use]
    pub fn take_lost(&self) -> Lost {
        std::mem::take(&mut self.lines().lost)
    }

    /// Whether a line would be taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.lines().waiting.len() < MOST
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Scribe {
    /// A line, which is taken whole or counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut lines = self.lines();
        if lines.waiting.len() >= MOST {
            lines.lost.beyond += 1;
            return Ok(line.len());
        }
        lines.waiting.push_back(line.to_vec());
        // Who writes looks for more before it rests.
        if !lines.writing {
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Scribe {
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
        let mut scribe = Scribe::start("test", Gate(gate, Arc::clone(&written))).unwrap();
        let told: usize = 3 * MOST;
        for number in 0..told {
            scribe.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        assert!(!scribe.settle(Duration::from_millis(1)));
        let lost = scribe.take_lost();
        assert_eq!(scribe.take_lost(), Lost::default());
        drop(open);
        assert!(scribe.settle(Duration::from_secs(60)) && scribe.has_room());
        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let written: Vec<usize> = written.lines().map(|line| line.parse().unwrap()).collect();
        let count = written.len();
        // One may have been taken while the others came.
        assert!((MOST..=MOST + 1).contains(&count), "{count}");
        assert_eq!(lost, Lost { beyond: (told - count) as u64, failed: 0 });
        assert!(written.is_sorted() && written.iter().take(MOST).copied().eq(0..MOST), "in their order");
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        struct Broken;
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut scribe = Scribe::start("test", Broken).unwrap();
        for _ in 0..3 {
            scribe.write_all(b"line\n").unwrap();
        }
        assert!(scribe.settle(Duration::from_secs(60)));
        assert_eq!(scribe.take_lost(), Lost { beyond: 0, failed: 3 });
    }
}
