//! Sparse maps: which pieces of a file an archive holds. Everything between them is a hole.

use super::error::{ArchiveError, Fault, within};
use super::header::RawSegment;
use super::limits::Limits;
use super::pax::PaxSparse;

/// A checked map: pieces in order, apart from each other, inside the file, together as long as what the archive stores.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Segments(Vec<RawSegment>);

impl Segments {
    /// A file without holes.
    pub(super) fn whole(size: u64) -> Self {
        Self(if size == 0 { Vec::new() } else { vec![(0, size)] })
    }

    /// Checks a map against the file's `size` and the `stored` bytes that the archive holds of it.
    pub(super) fn checked(mut segments: Vec<RawSegment>, size: u64, stored: u64) -> Result<Self, Fault> {
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in &segments {
            if *offset < end {
                return Err(Fault::Sparse("segments overlap or are out of order"));
            }
            end = offset.checked_add(*length).ok_or(Fault::Sparse("a segment beyond all sizes"))?;
            // No overflow: the segments are disjoint below `end`.
            sum += length;
        }
        if end > size {
            return Err(Fault::Sparse("a segment beyond the end of the file"));
        }
        if sum != stored {
            return Err(Fault::Sparse("the segments are not as long as the stored data"));
        }
        segments.retain(|(_, length)| *length > 0);
        segments.reverse();
        Ok(Self(segments))
    }

    /// The next piece that has data.
    pub(super) fn pop(&mut self) -> Option<RawSegment> {
        self.0.pop()
    }
}

/// What the pax keys of a sparse file mean.
pub(super) enum PaxForm {
    /// Formats 0.0 and 0.1: the map stood in the header.
    Map(Vec<RawSegment>),
    /// Format 1.0: the map stands before the data.
    Inline,
}

/// Tells the formats apart and gives the size of the file with its holes.
pub(super) fn pax_form(sparse: PaxSparse) -> Result<(PaxForm, u64), Fault> {
    let size = sparse.size.ok_or(Fault::Sparse("the size of the file is missing"))?;
    let form = match (sparse.major, sparse.minor) {
        (Some(1), Some(0)) => {
            if sparse.map.is_some() || !sparse.segments.is_empty() {
                return Err(Fault::Sparse("two maps for one file"));
            }
            return Ok((PaxForm::Inline, size));
        }
        (None, None) | (Some(0), Some(0 | 1)) => match (sparse.map, sparse.segments) {
            (Some(map), segments) if segments.is_empty() => map,
            (Some(_), _) => return Err(Fault::Sparse("two maps for one file")),
            (None, segments) => segments,
        },
        _ => return Err(Fault::Sparse("an unknown version")),
    };
    match sparse.segment_count {
        Some(count) if count == form.len() as u64 => Ok((PaxForm::Map(form), size)),
        _ => Err(Fault::Sparse("the count of segments is missing or wrong")),
    }
}

/// Collects the map of format 1.0, decimal numbers on lines of their own, from blocks that come in one after the other.
pub(super) struct InlineMap {
    count: Option<u64>,
    offset: Option<u64>,
    number: Option<u64>,
    segments: Vec<RawSegment>,
}

impl InlineMap {
    pub(super) fn new() -> Self {
        Self { count: None, offset: None, number: None, segments: Vec::new() }
    }

    /// Takes one block; true when the map is complete. What follows in the block is padding.
    pub(super) fn block(&mut self, block: &[u8], limits: &Limits, at: u64) -> Result<bool, ArchiveError> {
        for byte in block {
            match byte {
                b'0'..=b'9' => {
                    self.number = self
                        .number
                        .unwrap_or(0)
                        .checked_mul(10)
                        .and_then(|number| number.checked_add(u64::from(byte - b'0')));
                    if self.number.is_none() {
                        return Err(Fault::Sparse("a number that is too large").at(at));
                    }
                }
                b'\n' => {
                    let number = self.number.take().ok_or(Fault::Sparse("an empty line").at(at))?;
                    if self.line(number, limits, at)? {
                        return Ok(true);
                    }
                }
                _ => return Err(Fault::Sparse("a line that is no number").at(at)),
            }
        }
        Ok(false)
    }

    fn line(&mut self, number: u64, limits: &Limits, at: u64) -> Result<bool, ArchiveError> {
        let Some(count) = self.count else {
            within(at, "the segments of a sparse file", number, limits.sparse_segments)?;
            self.count = Some(number);
            return Ok(number == 0);
        };
        match self.offset.take() {
            None => self.offset = Some(number),
            Some(offset) => self.segments.push((offset, number)),
        }
        Ok(self.segments.len() as u64 == count)
    }

    pub(super) fn into_segments(self) -> Vec<RawSegment> {
        self.segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_must_fit_the_file() {
        assert!(Segments::checked(vec![(0, 5), (5, 0), (10, 5), (20, 0)], 20, 10).is_ok());
        for (segments, size, stored) in [
            (vec![(5, 5), (0, 5)], 20, 10),
            (vec![(0, 5), (4, 5)], 20, 10),
            (vec![(0, 5)], 4, 5),
            (vec![(0, 5)], 20, 4),
            (vec![(u64::MAX, 1)], u64::MAX, 1),
            (vec![(1, u64::MAX)], u64::MAX, u64::MAX),
        ] {
            assert!(Segments::checked(segments.clone(), size, stored).is_err(), "{segments:?} in {size}");
        }
    }

    #[test]
    fn inline_maps_may_span_blocks() {
        let mut map = InlineMap::new();
        assert!(!map.block(b"2\n10\n2", &Limits::STANDARD, 0).expect("part"));
        assert!(map.block(b"0\n40\n5\n\0\0\0", &Limits::STANDARD, 0).expect("rest"));
        assert_eq!(map.into_segments(), [(10, 20), (40, 5)]);
        for bad in [&b"-1\n"[..], b"\n", b"1\nx\n", b"99999999999999999999999\n", b"262145\n", b"\0"] {
            assert!(InlineMap::new().block(bad, &Limits::STANDARD, 0).is_err(), "{}", bad.escape_ascii());
        }
    }
}
