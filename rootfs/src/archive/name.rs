//! Names in archives: normalising them, refusing the dangerous ones, showing them.

use super::error::{ArchiveError, Fault, within};
use super::limits::Limits;

/// Longest single part of a path on every Linux file system in use, limits.h `NAME_MAX`.
const NAME_MAX: usize = 255;

/// The path below the root that an archive's name means: no leading `/`, no empty or `.` parts; empty for the root itself.
///
/// A leading `/` or `./` is dropped because layers commonly have them and they mean the same place. A `..` is refused even where it
/// would stay inside: with symbolic links in between nobody can tell where it leads.
pub(super) fn normalise(name: &[u8], limits: &Limits, offset: u64) -> Result<Vec<u8>, ArchiveError> {
    within(offset, "the bytes of a path", name.len() as u64, limits.path_bytes)?;
    let refuse = |problem| Err(Fault::Name { name: name.to_vec(), problem }.at(offset));
    if name.is_empty() {
        return refuse("is empty");
    }
    if name.contains(&0) {
        return refuse("contains a NUL byte");
    }
    let mut path = Vec::with_capacity(name.len());
    let mut depth = 0;
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return refuse("contains `..`"),
            part if part.len() > NAME_MAX => return refuse("has a part of more than 255 bytes"),
            part => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(part);
                depth += 1;
            }
        }
    }
    within(offset, "the parts of a path", depth, limits.path_depth)?;
    Ok(path)
}

/// Checks the target of a symbolic link, which is kept as it is.
pub(super) fn link_target(target: Vec<u8>, limits: &Limits, offset: u64) -> Result<Vec<u8>, ArchiveError> {
    within(offset, "the bytes of a link target", target.len() as u64, limits.path_bytes)?;
    let problem = match target.as_slice() {
        [] => "is empty, as the target of a symbolic link",
        target if target.contains(&0) => "contains a NUL byte",
        _ => return Ok(target),
    };
    Err(Fault::Name { name: target, problem }.at(offset))
}

/// A name for messages: what is not UTF-8 or would move the cursor of a terminal is escaped.
#[must_use]
pub fn printable(name: &[u8]) -> String {
    let mut shown = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            // Format characters of Unicode such as right-to-left overrides are no control characters but lie as well.
            if character.is_control()
                || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
            {
                shown.extend(character.escape_default());
            } else {
                shown.push(character);
            }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalised(name: &[u8]) -> Result<Vec<u8>, String> {
        normalise(name, &Limits::STANDARD, 0).map_err(|error| error.to_string())
    }

    #[test]
    fn names_that_mean_the_same_come_out_the_same() {
        for name in ["a/b", "/a/b", "./a/b", "a//b", "a/./b/", "//./a/b/."] {
            assert_eq!(normalised(name.as_bytes()).as_deref(), Ok(&b"a/b"[..]), "{name}");
        }
        for root in ["/", ".", "./", "//."] {
            assert_eq!(normalised(root.as_bytes()).as_deref(), Ok(&b""[..]), "{root}");
        }
        assert_eq!(normalised(b"\xff\xfe/...").as_deref(), Ok(&b"\xff\xfe/..."[..]));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = vec![b'x'; 256];
        let deep = b"d/".repeat(257);
        for name in [&b""[..], b"..", b"../a", b"a/..", b"a/../b", b"/..", b"a\0b", &long, &deep, &vec![b'/'; 4096]] {
            assert!(normalised(name).is_err(), "{}", printable(name));
        }
        assert!(normalised(&long[..255]).is_ok());
        assert!(normalised(&deep[..512]).is_ok());
    }

    #[test]
    fn shown_names_cannot_drive_a_terminal() {
        assert_eq!(printable("grün\x1b[2J\n\u{202e}".as_bytes()), "grün\\u{1b}[2J\\n\\u{202e}");
        assert_eq!(printable(b"a\xff"), "a\\xff");
    }
}
