//! A request with more in some of its arguments: written, and known without being read again.
//!
//! Promises: what is written is a request as [`scan`](super::scan) would find it; no argument is looked at that stands behind the
//! last one that gets something; nothing is allocated where there is room for what is written.

#![expect(clippy::arithmetic_side_effects, reason = "places within requests, which are below 4 GiB")]

use super::request::{REMEMBERED, Span};
use super::{Request, write};

/// Bytes that an argument gets.
#[derive(Debug, Clone, Copy)]
pub struct Insert<'a> {
    /// The argument's number; 0 is the name.
    pub arg: u32,
    /// Where in it, in bytes from its beginning.
    pub at: u32,
    /// What it gets there.
    pub bytes: &'a [u8],
}

impl Request<'_> {
    /// Writes the request with these bytes put into its arguments, each into a later one than those before it, in the place of
    /// what `out` holds. `None` where an argument has no such place, and where it would be a request above 4 GiB.
    #[inline]
    pub fn with<'o, 'i>(
        &self,
        inserts: impl IntoIterator<Item = Insert<'i>>,
        out: &'o mut Vec<u8>,
    ) -> Option<Request<'o>> {
        out.clear();
        let (wire, known) = (self.wire(), self.spans.get(..self.argc().min(REMEMBERED))?);
        let mut spans = self.spans;
        // Those behind the remembered ones are walked as far as it takes.
        let (mut behind, mut next) = (self.args_behind(), REMEMBERED);
        let mut copied = 0;
        for Insert { arg, at, bytes } in inserts {
            let arg = arg as usize;
            let (head, Span { start, end }) = match known.get(arg) {
                Some(span) => (self.head_of(arg), *span),
                None => {
                    for _ in 0..arg.checked_sub(next)? {
                        behind.next()?;
                    }
                    let head = behind.at();
                    let length = behind.next()?.len();
                    let end = behind.at() - 2;
                    next = arg + 1;
                    (head, Span { start: (end - length) as u32, end: end as u32 })
                }
            };
            let middle = start.checked_add(at).filter(|&middle| middle <= end)? as usize;
            let length = (end - start) as usize + bytes.len();
            out.extend_from_slice(wire.get(copied..head)?);
            write::bulk_head(out, length);
            let begin = out.len();
            if at > 0 {
                out.extend_from_slice(wire.get(start as usize..middle)?);
            }
            out.extend_from_slice(bytes);
            copied = middle;
            if arg < known.len() {
                // Whatever stands behind it has moved as far as its end.
                let shift = begin + length - end as usize;
                for (now, before) in spans.iter_mut().zip(known).skip(arg) {
                    now.start = (before.start as usize + shift) as u32;
                    now.end = (before.end as usize + shift) as u32;
                }
                spans.get_mut(arg)?.start = begin as u32;
            }
        }
        out.extend_from_slice(wire.get(copied..)?);
        let argc = self.argc() as u32;
        u32::try_from(out.len()).ok().map(|_| Request { wire: out, argc, spans })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire(args: &[Vec<u8>]) -> Vec<u8> {
        let mut wire = Vec::new();
        write::request(&mut wire, &args.iter().map(Vec::as_slice).collect::<Vec<_>>());
        wire
    }

    fn insert(arg: u32, at: u32, bytes: &[u8]) -> Insert<'_> {
        Insert { arg, at, bytes }
    }

    #[test]
    fn places_that_are_not_there_are_told() {
        let wire = wire(&[b"GET".to_vec(), b"key".to_vec()]);
        let (request, mut out) = (Request::parse(&wire).unwrap(), b"old".to_vec());
        let with = |inserts: &[Insert<'_>], out: &mut Vec<u8>| {
            request.with(inserts.iter().copied(), out).map(|request| request.wire().to_vec())
        };
        assert_eq!(with(&[], &mut out).as_deref(), Some(&wire[..]));
        assert_eq!(with(&[insert(1, 3, b"s:")], &mut out).unwrap(), b"*2\r\n$3\r\nGET\r\n$5\r\nkeys:\r\n");
        assert_eq!(with(&[insert(1, 4, b"s:")], &mut out), None, "behind its end");
        assert_eq!(with(&[insert(2, 0, b"s:")], &mut out), None, "no such argument");
        assert_eq!(with(&[insert(1, 0, b"a"), insert(0, 0, b"b")], &mut out), None, "an earlier one");
        assert_eq!(with(&[insert(1, 1, b"a"), insert(1, 0, b"b")], &mut out), None, "the same one");
    }

    proptest! {
        /// What is written is what a scan finds in it, places included.
        #[test]
        fn what_is_written_is_what_would_be_read(
            args in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..120), any::<Option<u8>>()), 1..8),
            bytes in proptest::collection::vec(any::<u8>(), 0..130),
        ) {
            let (mut expected, mut inserts) = (Vec::new(), Vec::new());
            for (number, (arg, place)) in args.iter().enumerate() {
                let mut changed = arg.clone();
                if let Some(place) = place {
                    let at = usize::from(*place) % (arg.len() + 1);
                    changed.splice(at..at, bytes.iter().copied());
                    inserts.push(insert(number as u32, at as u32, &bytes));
                }
                expected.push(changed);
            }
            let before = wire(&args.iter().map(|(arg, _)| arg.clone()).collect::<Vec<_>>());
            let mut out = Vec::new();
            let written = Request::parse(&before).unwrap().with(inserts, &mut out).expect("places that are there");
            let read = Request::parse(written.wire()).expect("well formed");
            prop_assert_eq!(read.wire(), &wire(&expected)[..]);
            prop_assert_eq!(format!("{written:?}"), format!("{read:?}"));
            prop_assert_eq!(written.args().collect::<Vec<_>>(), expected);
        }
    }
}
