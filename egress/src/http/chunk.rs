//! The lines between chunks (RFC 9112, section 7.1).

use super::HttpError;

/// Longest extension of a chunk's line in bytes. Nobody uses them but attackers.
const MAX_EXTENSION: usize = 256;

/// The length of a chunk's first line, with the line end of the chunk before unless it is the `first`, and the size of the chunk; `None`
/// while some of the line is missing.
pub(super) fn line(bytes: &[u8], first: bool) -> Result<Option<(u64, u64)>, HttpError> {
    let before = if first { 0 } else { 2 };
    let bytes = match bytes {
        _ if first => bytes,
        [b'\r', b'\n', rest @ ..] => rest,
        [] | [b'\r'] => return Ok(None),
        _ => return Err(HttpError::Chunk),
    };
    let digits = bytes.iter().take(17).take_while(|b| b.is_ascii_hexdigit()).count();
    let (number, rest) = bytes.split_at(digits);
    if digits > 16 || (digits == 0 && !rest.is_empty()) {
        return Err(HttpError::Chunk);
    }
    let extension = match rest {
        [b';', ..] => rest.iter().take(MAX_EXTENSION + 1).take_while(|b| matches!(b, b'\t' | b' '..=b'~')).count(),
        _ => 0,
    };
    if extension > MAX_EXTENSION {
        return Err(HttpError::Chunk);
    }
    match rest.split_at(extension).1 {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => {
            let number = std::str::from_utf8(number).map_err(|_| HttpError::Chunk)?;
            let size = u64::from_str_radix(number, 16).map_err(|_| HttpError::Chunk)?;
            // Where sizes have a sign, more than that is a small number or a negative one.
            if i64::try_from(size).is_err() {
                return Err(HttpError::Chunk);
            }
            let line = u64::try_from(before + digits + extension + 2).map_err(|_| HttpError::Chunk)?;
            Ok(Some((line, size)))
        }
        _ => Err(HttpError::Chunk),
    }
}
