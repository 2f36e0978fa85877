//! pax extended headers: `length key=value\n` records that override a header's fields.

use super::error::{ArchiveError, Fault, within};
use super::header::RawSegment;
use super::limits::Limits;
use super::{Timestamp, Xattr};

/// Longest name and value of an attribute, linux/limits.h `XATTR_NAME_MAX` and `XATTR_SIZE_MAX`.
const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 65536;

/// What the records of one header say. `None` and empty: not stated.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: PaxSparse,
}

/// GNU's keys for sparse files, formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    /// The real name: in 0.1 and 1.0 `path` is a made-up one for programs that do not know these keys.
    pub(super) name: Option<Vec<u8>>,
    /// Size with holes: `GNU.sparse.size` (0.x) or `GNU.sparse.realsize` (1.0).
    pub(super) size: Option<u64>,
    pub(super) segment_count: Option<u64>,
    /// Format 0.1: all segments in one record.
    pub(super) map: Option<Vec<RawSegment>>,
    /// Format 0.0: one pair of records for each segment.
    pub(super) segments: Vec<RawSegment>,
    /// An offset whose length has not come yet.
    open_offset: Option<u64>,
}

impl PaxSparse {
    pub(super) fn is_present(&self) -> bool {
        let Self { major, minor, name, size, segment_count, map, segments, open_offset } = self;
        major.is_some()
            || minor.is_some()
            || name.is_some()
            || size.is_some()
            || segment_count.is_some()
            || map.is_some()
            || !segments.is_empty()
            || open_offset.is_some()
    }
}

/// Reads the body of a pax header (type `x`) that stands at `offset`.
pub(super) fn parse(body: &[u8], limits: &Limits, offset: u64) -> Result<Pax, ArchiveError> {
    let mut pax = Pax::default();
    let mut xattr_bytes = 0;
    for record in Records(body) {
        let (key, value) = record.map_err(|fault| fault.at(offset))?;
        if let Some(xattr) = xattr(key, value).map_err(|fault| fault.at(offset))? {
            xattr_bytes += (xattr.name.len() + xattr.value.len()) as u64;
            within(offset, "the bytes of an entry's extended attributes", xattr_bytes, limits.xattr_bytes)?;
            pax.add_xattr(xattr).map_err(|fault| fault.at(offset))?;
        } else {
            pax.add(key, value, limits.sparse_segments).map_err(|fault| fault.at(offset))?;
        }
    }
    if pax.sparse.open_offset.is_some() {
        return Err(Fault::Sparse("an offset without its length").at(offset));
    }
    within(offset, "the segments of a sparse file", pax.sparse.segments.len() as u64, limits.sparse_segments)?;
    Ok(pax)
}

/// Reads the body of a global pax header (type `g`): only keys without effect on entries may stand in it, such as git's `comment`,
/// because half of the programs apply the others to all following entries and the other half do not.
pub(super) fn check_global(body: &[u8]) -> Result<(), Fault> {
    for record in Records(body) {
        let (key, value) = record?;
        let mut pax = Pax::default();
        pax.add(key, value, u64::MAX)?;
        let has_effect = xattr(key, value)?.is_some()
            || pax.sparse.is_present()
            || matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime");
        if has_effect {
            return Err(Fault::Pax("a global header that changes entries"));
        }
    }
    Ok(())
}

impl Pax {
    fn add(&mut self, key: &[u8], value: &[u8], max_segments: u64) -> Result<(), Fault> {
        let sparse = &mut self.sparse;
        match key {
            b"path" => once(key, &mut self.path, name(value)?),
            b"linkpath" => once(key, &mut self.link_path, name(value)?),
            b"size" => once(key, &mut self.size, decimal("size", value)?),
            b"uid" => once(key, &mut self.uid, decimal("uid", value)?),
            b"gid" => once(key, &mut self.gid, decimal("gid", value)?),
            b"mtime" => once(key, &mut self.mtime, timestamp(value)?),
            b"GNU.sparse.major" => once(key, &mut sparse.major, decimal("GNU.sparse.major", value)?),
            b"GNU.sparse.minor" => once(key, &mut sparse.minor, decimal("GNU.sparse.minor", value)?),
            b"GNU.sparse.name" => once(key, &mut sparse.name, name(value)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => {
                once(key, &mut sparse.size, decimal("GNU.sparse.size", value)?)
            }
            b"GNU.sparse.numblocks" => once(key, &mut sparse.segment_count, decimal("GNU.sparse.numblocks", value)?),
            b"GNU.sparse.map" => once(key, &mut sparse.map, Some(sparse_map(value, max_segments)?)),
            b"GNU.sparse.offset" => {
                let offset = decimal("GNU.sparse.offset", value)?.ok_or(Fault::Sparse("an empty offset"))?;
                match sparse.open_offset.replace(offset) {
                    None => Ok(()),
                    Some(_) => Err(Fault::Sparse("an offset without its length")),
                }
            }
            b"GNU.sparse.numbytes" => {
                let length = decimal("GNU.sparse.numbytes", value)?.ok_or(Fault::Sparse("an empty length"))?;
                let offset = sparse.open_offset.take().ok_or(Fault::Sparse("a length without its offset"))?;
                sparse.segments.push((offset, length));
                Ok(())
            }
            // Changes what follows in ways that only its own program understands.
            _ if key.starts_with(b"GNU.sparse.")
                || key.starts_with(b"GNU.volume.")
                || matches!(key, b"GNU.dumpdir" | b"SCHILY.realsize") =>
            {
                Err(Fault::Pax("a key of an unsupported format"))
            }
            // atime, ctime, uname, gname, comment, hdrcharset, SCHILY.dev, SCHILY.ino, LIBARCHIVE.creationtime and whatever a
            // vendor thought of: POSIX says that unknown keys are ignored.
            _ => Ok(()),
        }
    }

    /// The same attribute may stand in both spellings if they agree.
    fn add_xattr(&mut self, xattr: Xattr) -> Result<(), Fault> {
        match self.xattrs.iter().find(|known| known.name == xattr.name) {
            None => self.xattrs.push(xattr),
            Some(known) if known.value == xattr.value => {}
            Some(_) => return Err(Fault::PaxConflict(xattr.name)),
        }
        Ok(())
    }
}

/// Stores a value that may stand only once. An empty one (`None`) means "as in the header", POSIX pax, "Extended Header".
fn once<T: PartialEq>(key: &[u8], slot: &mut Option<T>, value: Option<T>) -> Result<(), Fault> {
    match (&*slot, value) {
        (None, value) => *slot = value,
        (Some(known), Some(value)) if *known == value => {}
        _ => return Err(Fault::PaxConflict(key.to_vec())),
    }
    Ok(())
}

/// The records of a header's body.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = split_record(self.0);
        self.0 = match &record {
            Ok((_, _, rest)) => rest,
            Err(_) => &[],
        };
        Some(record.map(|(key, value, _)| (key, value)))
    }
}

/// Key, value, and what follows the record.
type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn split_record(body: &[u8]) -> Result<Record<'_>, Fault> {
    let space = body.iter().take(20).position(|byte| *byte == b' ').ok_or(Fault::Pax("a record without a length"))?;
    let length = decimal("pax record length", &body[..space])?.ok_or(Fault::Pax("a record without a length"))?;
    let length = usize::try_from(length).map_err(|_| Fault::Pax("a record longer than its header"))?;
    let record = body.get(space + 1..length).ok_or(Fault::Pax("a record that does not fit into its header"))?;
    let Some((b'\n', record)) = record.split_last() else {
        return Err(Fault::Pax("a record that does not end in a newline"));
    };
    let equals = record.iter().position(|byte| *byte == b'=').ok_or(Fault::Pax("a record without `=`"))?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    if key.is_empty() || key.contains(&0) {
        return Err(Fault::Pax("a record without a key, or with NUL in it"));
    }
    Ok((key, value, &body[length..]))
}

#[expect(clippy::unnecessary_wraps, reason = "one shape for all fields; the name itself is judged where it is used")]
fn name(value: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// Digits only; empty is `None`.
fn decimal(field: &'static str, value: &[u8]) -> Result<Option<u64>, Fault> {
    if value.is_empty() {
        return Ok(None);
    }
    let mut number = 0u64;
    for digit in value {
        let digit = match digit {
            b'0'..=b'9' => u64::from(digit - b'0'),
            b'-' => return Err(Fault::Number { field, problem: "negative" }),
            _ => return Err(Fault::Number { field, problem: "not a number" }),
        };
        number = number
            .checked_mul(10)
            .and_then(|number| number.checked_add(digit))
            .ok_or(Fault::Number { field, problem: "too large" })?;
    }
    Ok(Some(number))
}

/// Seconds with an optional sign and fraction. Digits beyond nanoseconds are dropped.
fn timestamp(value: &[u8]) -> Result<Option<Timestamp>, Fault> {
    let field = "mtime";
    let (negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let (whole, fraction) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Some(whole) = decimal(field, whole)? else {
        return if value.is_empty() { Ok(None) } else { Err(Fault::Number { field, problem: "not a number" }) };
    };
    let whole = i64::try_from(whole).map_err(|_| Fault::Number { field, problem: "too large" })?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Number { field, problem: "not a number" });
    }
    let nanoseconds =
        (0..9).fold(0, |sum, index| sum * 10 + fraction.get(index).map_or(0, |digit| u32::from(digit - b'0')));
    Ok(Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds: whole, nanoseconds },
        (true, 0) => Timestamp { seconds: -whole, nanoseconds },
        (true, _) => Timestamp { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    }))
}

/// `offset,length,offset,length…` of format 0.1.
fn sparse_map(value: &[u8], max_segments: u64) -> Result<Vec<RawSegment>, Fault> {
    let mut segments = Vec::new();
    if value.is_empty() {
        return Ok(segments);
    }
    let mut numbers = value.split(|byte| *byte == b',');
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or(Fault::Sparse("an odd count of numbers"))?;
        let number = |digits| decimal("GNU.sparse.map", digits)?.ok_or(Fault::Sparse("an empty number"));
        if segments.len() as u64 >= max_segments {
            return Err(Fault::Sparse("too many segments"));
        }
        segments.push((number(offset)?, number(length)?));
    }
    Ok(segments)
}

/// The attribute that a record states, if it does: star's spelling (raw) or libarchive's (name URL-encoded, value base64).
fn xattr(key: &[u8], value: &[u8]) -> Result<Option<Xattr>, Fault> {
    let xattr = if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        Xattr { name: name.to_vec(), value: value.to_vec() }
    } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
        let wrong = |problem| Fault::Xattr { name: name.to_vec(), problem };
        Xattr {
            name: url_decode(name).ok_or_else(|| wrong("is not URL-encoded"))?,
            value: base64_decode(value).ok_or_else(|| wrong("has a value that is not base64"))?,
        }
    } else {
        return Ok(None);
    };
    let problem = if xattr.name.is_empty() || xattr.name.len() > XATTR_NAME_MAX {
        "has a name of 0 or more than 255 bytes"
    } else if xattr.name.contains(&0) {
        "has NUL in its name"
    } else if xattr.value.len() > XATTR_SIZE_MAX {
        "has a value of more than 64 KiB"
    } else {
        return Ok(Some(xattr));
    };
    Err(Fault::Xattr { name: xattr.name, problem })
}

fn url_decode(text: &[u8]) -> Option<Vec<u8>> {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
            decoded.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

/// RFC 4648 base64, padded or (as libarchive writes it) not.
fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = &text[..text.len() - padding];
    if padding > 2 || (padding > 0 && !text.len().is_multiple_of(4)) || digits.len() % 4 == 1 {
        return None;
    }
    let mut decoded = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    // Bits left over must be zero, or two texts would mean the same value.
    (bits == 0).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        crate::archive::build::pax_record(key.as_bytes(), value)
    }

    fn parsed(records: &[(&str, &[u8])]) -> Result<Pax, String> {
        let body: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
        parse(&body, &Limits::STANDARD, 0).map_err(|error| error.to_string())
    }

    #[test]
    fn records_must_be_exact() {
        for body in [
            &b"11 path=abc"[..],
            b"12 path=abc",
            b"99 path=abc\n",
            b"path=abc\n",
            b" 12 path=abc\n",
            b"0 \n",
            b"3 \n",
            b"6 =ab\n",
            b"8 pathx\n",
            b"-12 path=ab\n",
            b"18446744073709551616 path=abc\n",
            b"12 path=abc\nx",
            b"12 pat\0=abc\n",
        ] {
            assert!(parse(body, &Limits::STANDARD, 0).is_err(), "{}", body.escape_ascii());
        }
        assert_eq!(parse(b"12 path=abc\n", &Limits::STANDARD, 0).expect("valid").path.as_deref(), Some(&b"abc"[..]));
        assert_eq!(parsed(&[("path", b"a=b\nc")]).expect("newlines are data").path.as_deref(), Some(&b"a=b\nc"[..]));
    }

    #[test]
    fn keys_stand_once_or_agree() {
        assert!(parsed(&[("path", b"a"), ("path", b"a")]).is_ok());
        for key in ["path", "linkpath", "size", "uid", "gid", "mtime", "SCHILY.xattr.user.a", "GNU.sparse.size"] {
            assert!(parsed(&[(key, b"1"), (key, b"2")]).is_err(), "{key}");
        }
        assert!(parsed(&[("path", b"a"), ("path", b"")]).is_err());
        assert!(parsed(&[("comment", b"a"), ("comment", b"b")]).is_ok());
    }

    #[test]
    fn times() {
        for (text, expected) in [
            ("0", (0, 0)),
            ("1.5", (1, 500_000_000)),
            ("-1.25", (-2, 750_000_000)),
            ("-3", (-3, 0)),
            ("1.0000000019", (1, 1)),
            ("7.", (7, 0)),
        ] {
            let time = timestamp(text.as_bytes()).expect(text).expect("stated");
            assert_eq!((time.seconds, time.nanoseconds), expected, "{text}");
        }
        for text in ["x", "-", ".5", "1.x", "1.-5", "--1", "9223372036854775808", "1e3", "+1"] {
            assert!(timestamp(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn both_spellings_of_attributes() {
        let pax = parsed(&[
            ("SCHILY.xattr.user.a b", b"\0\xff="),
            ("LIBARCHIVE.xattr.user.a%20b", b"AP89"),
            ("SCHILY.xattr.user.e", b""),
        ])
        .expect("they agree");
        assert_eq!(
            pax.xattrs,
            [
                Xattr { name: b"user.a b".to_vec(), value: b"\0\xff=".to_vec() },
                Xattr { name: b"user.e".to_vec(), value: Vec::new() },
            ]
        );
        for bad in ["A", "A=", "AB=C", "AP8*", "AP9", "===="] {
            assert!(parsed(&[("LIBARCHIVE.xattr.user.a", bad.as_bytes())]).is_err(), "{bad}");
        }
        assert!(parsed(&[("SCHILY.xattr.", b"")]).is_err());
        assert!(parsed(&[("LIBARCHIVE.xattr.user.a%00", b"")]).is_err());
        assert!(parsed(&[("SCHILY.xattr.user.a", &vec![0; XATTR_SIZE_MAX + 1])]).is_err());
    }

    #[test]
    fn global_headers_have_no_effect() {
        assert!(check_global(&record("comment", b"0123")).is_ok());
        for key in ["path", "size", "uid", "mtime", "SCHILY.xattr.user.a", "GNU.sparse.major"] {
            assert!(check_global(&record(key, b"1")).is_err(), "{key}");
        }
    }
}
