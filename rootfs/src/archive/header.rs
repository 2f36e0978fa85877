//! One 512-byte header block: its fields, its numbers, its checksum.

use super::error::Fault;

/// Headers and data stand in blocks of this size.
pub(super) const BLOCK: usize = 512;

/// A header block whose checksum was verified.
pub(super) struct Header([u8; BLOCK]);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Before 1988: no magic, no prefix.
    V7,
    Posix,
    Gnu,
}

/// A piece of a sparse file as GNU headers state it: offset and length.
pub(super) type RawSegment = (u64, u64);

impl Header {
    /// Verifies magic and checksum. The caller has already looked for zero blocks.
    pub(super) fn parse(block: &[u8]) -> Result<Self, Fault> {
        let bytes: [u8; BLOCK] = block.try_into().map_err(|_| Fault::Truncated("a header"))?;
        let stored = unsigned("checksum", &bytes[148..156])?;
        // The field itself counts as eight spaces. Only the unsigned sum: the signed one is an accident of 1980s compilers.
        let computed = bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>()
            - bytes[148..156].iter().map(|byte| u64::from(*byte)).sum::<u64>()
            + 8 * u64::from(b' ');
        if stored != computed {
            return Err(Fault::Checksum { stored, computed });
        }
        let header = Self(bytes);
        header.dialect()?;
        Ok(header)
    }

    fn dialect(&self) -> Result<Dialect, Fault> {
        match &self.0[257..265] {
            b"ustar\x0000" => Ok(Dialect::Posix),
            b"ustar  \0" => Ok(Dialect::Gnu),
            [0, 0, 0, 0, 0, 0, 0, 0] => Ok(Dialect::V7),
            _ => Err(Fault::Magic),
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    /// The name, with the prefix field of the POSIX format.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        if self.dialect() != Ok(Dialect::Posix) {
            return name.to_vec();
        }
        // star's variant of ustar ends in "tar\0" and keeps times in the last 24 bytes of the prefix.
        let end = if &self.0[508..] == b"tar\0" { 476 } else { 500 };
        let prefix = text(&self.0[345..end]);
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<u32, Fault> {
        let mode = unsigned("mode", &self.0[100..108])?;
        // Old programs store the file type here too (S_IFMT); the type flag is what counts.
        if mode > 0o177_777 {
            return Err(Fault::Number { field: "mode", problem: "too large" });
        }
        Ok((mode & 0o7777) as u32)
    }

    pub(super) fn uid(&self) -> Result<u64, Fault> {
        unsigned("uid", &self.0[108..116])
    }

    pub(super) fn gid(&self) -> Result<u64, Fault> {
        unsigned("gid", &self.0[116..124])
    }

    pub(super) fn size(&self) -> Result<u64, Fault> {
        unsigned("size", &self.0[124..136])
    }

    /// Seconds; may be negative in base-256.
    pub(super) fn mtime(&self) -> Result<i64, Fault> {
        number("mtime", &self.0[136..148])
    }

    /// Major and minor number of a device.
    pub(super) fn device(&self) -> Result<(u32, u32), Fault> {
        let major = unsigned("device major", &self.0[329..337])?;
        let minor = unsigned("device minor", &self.0[337..345])?;
        // The kernel's dev_t, linux/kdev_t.h: 12 and 20 bits.
        if major >= 1 << 12 || minor >= 1 << 20 {
            return Err(Fault::Number { field: "device", problem: "too large" });
        }
        Ok((major as u32, minor as u32))
    }

    /// Old GNU sparse header (type `S`): appends its segments, and says whether an extension block follows.
    pub(super) fn gnu_sparse(&self, segments: &mut Vec<RawSegment>) -> Result<bool, Fault> {
        if self.dialect() != Ok(Dialect::Gnu) {
            return Err(Fault::Sparse("a header of type `S` that is not in GNU's format"));
        }
        gnu_segments(&self.0[386..482], segments)?;
        flag(self.0[482])
    }

    /// Old GNU sparse header: the size of the file with its holes.
    pub(super) fn gnu_real_size(&self) -> Result<u64, Fault> {
        unsigned("realsize", &self.0[483..495])
    }
}

/// An extension block of an old GNU sparse header: 21 more segments. True if yet another block follows.
pub(super) fn gnu_sparse_extension(block: &[u8], segments: &mut Vec<RawSegment>) -> Result<bool, Fault> {
    gnu_segments(&block[..504], segments)?;
    flag(block[504])
}

fn gnu_segments(fields: &[u8], segments: &mut Vec<RawSegment>) -> Result<(), Fault> {
    let mut used = true;
    for field in fields.chunks_exact(24) {
        if field[0] == 0 {
            used = false;
        } else if used {
            segments.push((unsigned("sparse offset", &field[..12])?, unsigned("sparse length", &field[12..])?));
        } else {
            return Err(Fault::Sparse("a segment after an unused one"));
        }
    }
    Ok(())
}

fn flag(byte: u8) -> Result<bool, Fault> {
    match byte {
        0 | b'0' => Ok(false),
        1 | b'1' => Ok(true),
        _ => Err(Fault::Sparse("an extension flag that is neither 0 nor 1")),
    }
}

/// A field up to its first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn unsigned(field: &'static str, bytes: &[u8]) -> Result<u64, Fault> {
    u64::try_from(number(field, bytes)?).map_err(|_| Fault::Number { field, problem: "negative" })
}

/// Octal digits with spaces or NULs around them, nothing at all (0), or GNU's base-256 (two's complement, high bit of the first byte set).
fn number(field: &'static str, bytes: &[u8]) -> Result<i64, Fault> {
    let wrong = |problem| Fault::Number { field, problem };
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        let negative = bytes[0] & 0x40 != 0;
        let mut value: i64 = if negative { -1 } else { 0 };
        for (index, byte) in bytes.iter().enumerate() {
            // The marker bit gives way to a copy of the sign bit.
            let byte = if index == 0 { (byte & 0x7f) | if negative { 0x80 } else { 0 } } else { *byte };
            if index > 0 && !(i64::MIN >> 8..=i64::MAX >> 8).contains(&value) {
                return Err(wrong("too large"));
            }
            value = if index == 0 { i64::from(byte as i8) } else { (value << 8) | i64::from(byte) };
        }
        return Ok(value);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let Some(first) = bytes.iter().position(|byte| !blank(byte)) else { return Ok(0) };
    let digits = &bytes[first..];
    let length = digits.iter().position(blank).unwrap_or(digits.len());
    if !digits[length..].iter().all(blank) {
        return Err(wrong("not a number"));
    }
    // At most 12 digits of 3 bits: no overflow.
    digits[..length].iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => Ok(value << 3 | i64::from(digit - b'0')),
        _ => Err(wrong("not a number")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let cases: [(&[u8], Option<i64>); 15] = [
            (b"0000644\0", Some(0o644)),
            (b" 644 \0\0\0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777777\0", Some(0o77_777_777_777)),
            (b"777777777777", Some(0o777_777_777_777)),
            (b"\x80\0\0\0\0\0\0\x01\0\0\0\0", Some(1 << 32)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"-1\0\0\0\0\0\0", None),
            (b"0000648\0", None),
            (b"12\x0034\0\0\0", None),
            (b"0x10\0\0\0\0", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(number("size", bytes).ok(), expected, "{}", bytes.escape_ascii());
        }
        assert!(unsigned("size", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
