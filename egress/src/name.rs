//! Host names in one normal form, and patterns of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A host name in normal form: lower case, ASCII (A-labels for others, RFC 5890), no dot at the end, labels of 1 to 63 of
/// `a-z 0-9 - _`, 253 characters at most (RFC 1035, section 2.3.4), and nothing that reads as an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// Why a text is no host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or an empty label.
    #[error("a name has labels with dots between them, none of them empty")]
    Empty,
    /// A character that no host name has; control characters come out escaped.
    #[error("{0:?} cannot stand in a host name")]
    Character(char),
    /// Letters beyond ASCII: what looks right may be another name.
    #[error("the name is not ASCII, and looks can deceive; if you mean it, write it as {0}")]
    NotAscii(String),
    /// Beyond ASCII and not valid IDNA either.
    #[error("the name is not ASCII, and no valid international name")]
    NotIdna,
    /// A label over 63 or a name over 253 characters.
    #[error("a label has at most 63 characters and a name 253")]
    TooLong,
    /// `10.1`, `0x7f.1`, `1.2.3.4`: some resolvers take it for an address.
    #[error("this reads as an address; a rule for addresses is written as ADDRESS/BITS")]
    Address,
}

impl Name {
    /// Longest name in characters, without the dot at the end.
    pub const MAX: usize = 253;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name lies below `parent`; a name does not lie below itself.
    #[must_use]
    pub fn is_below(&self, parent: &Self) -> bool {
        self.0.strip_suffix(&parent.0).is_some_and(|rest| rest.ends_with('.'))
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if !text.is_ascii() {
            return Err(match idna::domain_to_ascii_strict(text) {
                Ok(ascii) => NameError::NotAscii(ascii),
                Err(_) => NameError::NotIdna,
            });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if let Some(other) = text.chars().find(|c| !allowed(*c)) {
            return Err(NameError::Character(other));
        }
        if text.split('.').any(str::is_empty) {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX || text.split('.').any(|label| label.len() > 63) {
            return Err(NameError::TooLong);
        }
        let last = text.rsplit('.').next().unwrap_or(text);
        // WHATWG URL, "ends in a number": such a host is parsed as an IPv4 address or refused.
        let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
        if last.bytes().all(|b| b.is_ascii_digit()) || hex.is_some_and(|h| h.bytes().all(|b| b.is_ascii_hexdigit())) {
            return Err(NameError::Address);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One name, or every name below one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// Exactly this name.
    Exact(Name),
    /// `*.example.com`: all names below it, at any depth, but not `example.com` itself.
    Below(Name),
    /// `**`: every name.
    Any,
}

impl Pattern {
    /// Whether `name` is meant.
    #[must_use]
    pub fn matches(&self, name: &Name) -> bool {
        match self {
            Self::Exact(own) => own == name,
            Self::Below(parent) => name.is_below(parent),
            Self::Any => true,
        }
    }
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The part that has to be a name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A star elsewhere than as the first label.
    #[error("a `*` stands for whole labels, and only at the front: *.example.com")]
    Star,
    /// `*` or `*.com`: a rule for half of the internet is more likely a slip.
    #[error("`*.` needs at least two labels after it; every name at all is written `**`")]
    TooWide,
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text == "**" {
            return Ok(Self::Any);
        }
        let Some(rest) = text.strip_prefix("*.") else {
            if text.contains('*') {
                return Err(if text == "*" { PatternError::TooWide } else { PatternError::Star });
            }
            return Ok(Self::Exact(text.parse()?));
        };
        if rest.contains('*') {
            return Err(PatternError::Star);
        }
        let parent: Name = rest.parse()?;
        if parent.as_str().contains('.') { Ok(Self::Below(parent)) } else { Err(PatternError::TooWide) }
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Any => f.write_str("**"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn one_name_has_one_form() {
        for text in ["Example.COM", "example.com.", "EXAMPLE.com."] {
            assert_eq!(name(text).as_str(), "example.com");
        }
        assert_eq!(name("_dmarc.a-b.x1").as_str(), "_dmarc.a-b.x1");
        assert_eq!(name("localhost").as_str(), "localhost");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let error = |text: &str| text.parse::<Name>().expect_err(text);
        for text in ["", ".", "..", "a..b", ".a", "a.."] {
            assert_eq!(error(text), NameError::Empty, "{text:?}");
        }
        for c in ['\0', '\r', '\n', '@', '#', '/', ' ', '\u{1b}', '%', ':', '*', '[', '\\'] {
            assert_eq!(error(&format!("a{c}b.com")), NameError::Character(c));
        }
        assert_eq!(error(&format!("{}.com", "a".repeat(64))), NameError::TooLong);
        assert_eq!(error(&["a"; 128].join(".")), NameError::TooLong);
        for text in ["1.2.3.4", "10.1", "127", "a.0x7f", "x.0x", "0X1", "1.2.3.4."] {
            assert_eq!(error(text), NameError::Address, "{text}");
        }
        // Cyrillic а.
        assert_eq!(error("p\u{430}ypal.com"), NameError::NotAscii("xn--pypal-4ve.com".into()));
        assert_eq!(error("\u{200d}.com"), NameError::NotIdna);
    }

    #[test]
    fn stars_are_for_what_lies_below() {
        let pattern: Pattern = "*.Example.com".parse().expect("a pattern");
        for (text, inside) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            ("xexample.com", false),
            ("example.com.evil.org", false),
        ] {
            assert_eq!(pattern.matches(&name(text)), inside, "{text}");
        }
        let exact: Pattern = "example.com".parse().expect("a pattern");
        assert!(exact.matches(&name("example.com")) && !exact.matches(&name("a.example.com")));
        assert_eq!(pattern.to_string(), "*.example.com");
    }

    #[test]
    fn bad_patterns() {
        let error = |text: &str| text.parse::<Pattern>().expect_err(text);
        for text in ["*", "*.com", "*.com."] {
            assert_eq!(error(text), PatternError::TooWide, "{text}");
        }
        for text in ["a.*.com", "*a.com", "**.a.com", "*.*.com", "a*"] {
            assert_eq!(error(text), PatternError::Star, "{text}");
        }
        assert!(matches!(error("*."), PatternError::Name(NameError::Empty)));
    }
}
