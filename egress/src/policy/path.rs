//! Paths of requests: one normal form, and patterns of it.

use std::fmt;

/// A pattern of paths: `*` stands for one whole segment, `**` at the end for any number of them, none included.
///
/// Servers disagree about an encoded slash: npm's `/@scope%2Fname` is one segment for some and two for others. So neither star reaches over one: only
/// a pattern that says it where the path has it matches. `/@scope%2F*` does, `/@scope/*`, `/*` and `/**` do not.
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
    /// Several, joined by encoded slashes.
    Joined(Vec<Segment>),
}

/// A slash inside a segment, in normal form. It cannot come about otherwise: a `%` that is meant as such is `%25`.
const SLASH: &str = "%2F";

impl Segment {
    fn new(text: &str) -> Result<Self, PathError> {
        if text.contains(SLASH) {
            return text.split(SLASH).map(Self::new).collect::<Result<_, _>>().map(Self::Joined);
        }
        match text {
            "*" => Ok(Self::Any),
            text if text.contains('*') => Err(PathError::Star),
            text => Ok(Self::Is(text.to_owned())),
        }
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Is(own) => own == text,
            Self::Any => !text.is_empty() && !text.contains(SLASH),
            Self::Joined(own) => {
                let parts: Vec<&str> = text.split(SLASH).collect();
                own.len() == parts.len() && own.iter().zip(parts).all(|(own, part)| own.fits(part))
            }
        }
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(text) => f.write_str(text),
            Self::Any => f.write_str("*"),
            Self::Joined(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    f.write_str(if index > 0 { SLASH } else { "" })?;
                    part.fmt(f)?;
                }
                Ok(())
            }
        }
    }
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
    /// An encoded backslash or dot, a broken encoding, or a character no path has.
    #[error("a path must not hold encoded backslashes or dots, control characters, or broken %-encodings")]
    Encoding,
    /// A star that is not a whole segment, or `**` elsewhere than at the end.
    #[error("`*` stands for a whole segment and `**` for the rest, at the end: /a/*/b/**")]
    Star,
}

/// Longest path in bytes.
const MAX: usize = 8192;

/// The segments of a path in normal form: unreserved characters decoded (RFC 3986, section 6.2.2.2), other encodings in capitals. Whatever
/// two servers could read differently is an error, but for encoded slashes: those stay in their segment as `%2F`, where no star matches them
/// ([`PathPattern`]), and what stands between them is held to the same as segments.
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
        // A slash at the end is a path of its own, an encoded one is not.
        let may_end = last && segment.is_empty();
        if segment.split(SLASH).any(|part| (part.is_empty() && !may_end) || part == "." || part == "..") {
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
                    b'\\' | b'.' | 0..=0x1f | 0x7f => return Err(PathError::Encoding),
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
        let segments = parts.iter().map(|part| Segment::new(part)).collect::<Result<_, _>>()?;
        Ok(Self { segments, open })
    }

    /// Whether the path of [`segments`] is meant.
    #[must_use]
    pub fn matches(&self, path: &[String]) -> bool {
        let count = self.segments.len();
        let length = if self.open { path.len() > count } else { path.len() == count };
        let fits = |(own, segment): (&Segment, &String)| own.fits(segment);
        // `**` reaches over no encoded slash.
        length && self.segments.iter().zip(path).all(fits) && path.iter().skip(count).all(|rest| !rest.contains(SLASH))
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            write!(f, "/{segment}")?;
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
            "/a%2f..%2fb",
            "/a%2F..",
            "/..%2fa",
            "/a%2f.%2fb",
            "/a%2f%2e%2e%2fb",
            "/%2fa",
            "/a%2f",
            "/a%2f/b",
            "/a%2f%2fb",
            "/%2F",
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

    /// R19: an encoded slash passes where a rule says it, and no star stands for it.
    #[test]
    fn an_encoded_slash_is_matched_by_itself_only() {
        for (pattern, fits) in [
            ("/@scope%2Fname", true),
            ("/@scope%2fname", true),
            ("/@scope%2F*", true),
            ("/*%2F*", true),
            ("/*%2Fname", true),
            ("/@scope%2Fother", false),
            ("/@scope/name", false),
            ("/@scope/*", false),
            ("/*", false),
            ("/**", false),
            ("/*%2F*%2F*", false),
            ("/@scope%2F*/**", false),
            ("/*/*", false),
        ] {
            let read = PathPattern::new(pattern).expect(pattern);
            for path in ["/@scope%2Fname", "/@scope%2fname", "/%40scope%2fname"] {
                let found = segments(path.as_bytes()).expect(path);
                // `@` is reserved: encoded it is another path, as before.
                let fits = fits && (path.starts_with("/@") || pattern.starts_with("/*"));
                assert_eq!(read.matches(&found), fits, "{pattern} {path}");
            }
            assert_eq!(PathPattern::new(&read.to_string()), Ok(read), "{pattern}");
        }
        let below = PathPattern::new("/-/**").expect("a pattern");
        let matches = |path: &str| segments(path.as_bytes()).is_ok_and(|path| below.matches(&path));
        assert!(matches("/-/a/b") && !matches("/-/a%2fb") && !matches("/-/a/b%2fc") && !matches("/-%2fa"));
        // A sign for percent that is meant as such is no slash.
        assert_eq!(segments(b"/a%252Fb"), Ok(vec!["a%252Fb".to_owned()]));
        assert!(PathPattern::new("/*").expect("a pattern").matches(&["a%252Fb".to_owned()]));
        for pattern in ["/@scope%2F**", "/a*%2Fb", "/a%2F..", "/a%2F"] {
            assert!(PathPattern::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn stars_have_their_places() {
        for pattern in ["/a*", "/**/a", "/a**", "/***"] {
            assert_eq!(PathPattern::new(pattern), Err(PathError::Star), "{pattern}");
        }
    }
}
