//! Where a demo is watched: a terminal, whose last line changes, or what keeps lines.

use std::io::{self, Write};
use std::time::Duration;

/// How often it is looked what there is to tell, and a line on a terminal is drawn anew.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// How often a line is written where lines stay.
const LINE: Duration = Duration::from_secs(1);

pub(super) struct Screen<'a> {
    pub(super) out: &'a mut dyn Write,
    redraw: bool,
    due: Duration,
}

impl<'a> Screen<'a> {
    /// With `redraw` progress is one line that changes.
    pub(super) fn new(out: &'a mut dyn Write, redraw: bool) -> Self {
        Self { out, redraw, due: Duration::ZERO }
    }

    /// What goes on, so long after the beginning.
    pub(super) fn progress(&mut self, since: Duration, line: &dyn Fn() -> String) -> io::Result<()> {
        if !self.redraw && since < self.due {
            return Ok(());
        }
        self.due = Duration::from_secs(since.as_secs()) + LINE;
        // To the start of the line, which is emptied.
        let (before, after) = if self.redraw { ("\r\x1b[2K", "") } else { ("", "\n") };
        write!(self.out, "{before}{}{after}", line())?;
        self.out.flush()
    }

    /// The last that goes on was told.
    pub(super) fn settle(&mut self, early: bool) -> io::Result<()> {
        self.due = Duration::ZERO;
        if self.redraw {
            writeln!(self.out)?;
        }
        if early {
            writeln!(self.out, "Ended early.")?;
        }
        writeln!(self.out)
    }
}
