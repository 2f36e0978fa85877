//! Paths of requests: one normal form, and patterns of it.

use std::fmt;

/// A pattern of paths: `*` stands for one whole segment, `**` at the end for any number of them, none included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
    /// Ends in `**`.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Is(String),
    Any,
}

/// Why a path is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with `/`, or is longer than anybody needs.
    #[error("a path begins with / and has at most {} bytes", MAX)]
    Form,
    /// `.`, `..` or an empty segment: servers disagree about what they mean.
    #[error("a path must not hold empty segments, `.` or `..`")]
    Dots,
    /// An encoded slash, backslash or dot, a broken encoding, or a character no path has.
    #[error("a path must not hold encoded slashes or dots, control characters, or broken %-encodings")]
    Encoding,
    /// A star that is not a whole segment, or `**` elsewhere than at the end.
    #[error("`*` stands for a whole segment and `**` for the rest, at the end: /a/*/b/**")]
    Star,
}

/// Longest path in bytes.
const MAX: usize = 8192;

/// The segments of a path in normal form: unreserved characters decoded (RFC 3986, section 6.2.2.2), other encodings in capitals. Whatever
/// two servers could read differently is an error.
///
/// # Errors
/// See [`PathError`].
pub fn segments(path: &[u8]) -> Result<Vec<String>, PathError> {
    if path.len() > MAX {
        return Err(PathError::Form);
    }
    let [b'/', rest @ ..] = path else { return Err(PathError::Form) };
    let count = rest.split(|b| *b == b'/').count();
    let mut out = Vec::with_capacity(count);
    for (index, raw) in rest.split(|b| *b == b'/').enumerate() {
        let segment = normal(raw)?;
        let last = index + 1 == count;
        // A slash at the end is a path of its own.
        if (segment.is_empty() && !last) || segment == "." || segment == ".." {
            return Err(PathError::Dots);
        }
        out.push(segment);
    }
    Ok(out)
}

fn normal(raw: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16)).ok_or(PathError::Encoding);
                let code = u8::try_from(digit()? * 16 + digit()?).map_err(|_| PathError::Encoding)?;
                match code {
                    b'/' | b'\\' | b'.' | 0..=0x1f | 0x7f => return Err(PathError::Encoding),
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => out.push(char::from(code)),
                    other => out.push_str(&format!("%{other:02X}")),
                }
            }
            // A path parameter (`/..;x/`) hides dots from some servers.
            b';' | b'\\' | b'?' | b'#' | 0..=0x20 | 0x7f..=0xff => return Err(PathError::Encoding),
            plain => out.push(char::from(plain)),
        }
    }
    Ok(out)
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn new(text: &str) -> Result<Self, PathError> {
        let mut parts = segments(text.as_bytes())?;
        let open = parts.last().is_some_and(|last| last == "**");
        if open {
            parts.pop();
        }
        let segments = parts
            .into_iter()
            .map(|part| match part.as_str() {
                "*" => Ok(Segment::Any),
                text if text.contains('*') => Err(PathError::Star),
                _ => Ok(Segment::Is(part)),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { segments, open })
    }

    /// Whether the path of [`segments`] is meant.
    #[must_use]
    pub fn matches(&self, path: &[String]) -> bool {
        let fits = |(own, other): (&Segment, &String)| match own {
            Segment::Is(text) => text == other,
            Segment::Any => !other.is_empty(),
        };
        let length = if self.open { path.len() > self.segments.len() } else { path.len() == self.segments.len() };
        length && self.segments.iter().zip(path).all(fits)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Is(text) => write!(f, "/{text}")?,
                Segment::Any => f.write_str("/*")?,
            }
        }
        f.write_str(if self.open { "/**" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_segments() {
        for (pattern, path, fits) in [
            ("/", "/", true),
            ("/", "/a", false),
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/simple/**", "/simple/", true),
            ("/simple/**", "/simple/pip/", true),
            ("/simple/**", "/simple", false),
            ("/simple/**", "/simpler/x", false),
            ("/a/*/b", "/a/x/b", true),
            ("/a/*/b", "/a/x/y/b", false),
            ("/a/*/b", "/a//b", false),
            ("/a%41", "/aA", true),
            ("/a", "/%61", true),
            ("/caf%c3%a9", "/caf%C3%A9", true),
        ] {
            let found = segments(path.as_bytes()).is_ok_and(|s| PathPattern::new(pattern).expect(pattern).matches(&s));
            assert_eq!(found, fits, "{pattern} {path}");
        }
    }

    #[test]
    fn what_servers_read_differently_is_refused() {
        for path in [
            "",
            "a",
            "//",
            "//a",
            "/a//b",
            "/.",
            "/..",
            "/a/../b",
            "/a/./b",
            "/%2e%2e/x",
            "/%2E",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a;b",
            "/..;/x",
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%00",
            "/a%0d%0a",
            "/a b",
            "/a\u{e9}",
            "/a?b",
            "/a#b",
            "/\n",
        ] {
            assert!(segments(path.as_bytes()).is_err(), "{path:?}");
        }
        assert!(segments(format!("/{}", "a".repeat(MAX)).as_bytes()).is_err());
        for path in ["/", "/a", "/a/", "/a.b/c", "/@scope%2B", "/a~b_c-d!$&'()*+,=:@"] {
            assert!(segments(path.as_bytes()).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn stars_have_their_places() {
        for pattern in ["/a*", "/**/a", "/a**", "/***"] {
            assert_eq!(PathPattern::new(pattern), Err(PathError::Star), "{pattern}");
        }
    }
}
