//! Secrets that stay outside: the cell holds a placeholder, and the value takes its place on the way out.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use super::provider;
use crate::name::{Name, Pattern};

/// A secret for one header of the requests to one host.
///
/// It is replaced in that header only, and only where the cell wrote the placeholder. What the host itself does with the header is out of reach: a host that
/// echoes it shows the secret to the cell.
pub struct Secret {
    host: Pattern,
    header: HeaderName,
    placeholder: String,
    value: Value,
}

/// Bytes that nobody sees by accident and that are wiped when they are dropped.
struct Value(Zeroizing<Vec<u8>>);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why something is no secret; says nothing of its value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not the name of a header.
    #[error("{0:?} is no name of a header")]
    Header(String),
    /// A header in which a value would change what the request is about.
    #[error("the header {0} is not for secrets")]
    NotForSecrets(HeaderName),
    /// Nothing.
    #[error("the secret is empty")]
    Empty,
    /// Bytes that no header carries: a line break at its end, most of the time.
    #[error("the secret holds a line break or a control character")]
    Control,
    /// Longer than servers take.
    #[error("the secret has more than {} bytes", Secret::MAX)]
    TooLong,
    /// The machine gave no random numbers.
    #[error("there are no random numbers")]
    Random,
}

impl Secret {
    /// Longest value in bytes: common servers take 8 KiB for a header.
    pub const MAX: usize = 8192;

    /// A secret with a new placeholder.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn new(host: Pattern, header: &str, value: Vec<u8>) -> Result<Self, SecretError> {
        let mut random = [0; 16];
        provider().secure_random.fill(&mut random).map_err(|_| SecretError::Random)?;
        Self::with_placeholder(host, header, &format!("cellblock-{:032x}", u128::from_be_bytes(random)), value)
    }

    /// A secret that is known inside by a placeholder which was made before.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn with_placeholder(
        host: Pattern,
        header: &str,
        placeholder: &str,
        value: Vec<u8>,
    ) -> Result<Self, SecretError> {
        let value = Value(Zeroizing::new(value));
        let header: HeaderName = header.parse().map_err(|_| SecretError::Header(header.to_owned()))?;
        if super::head::is_framing(&header) {
            return Err(SecretError::NotForSecrets(header));
        }
        match value.0.as_slice() {
            [] => return Err(SecretError::Empty),
            bytes if bytes.len() > Self::MAX => return Err(SecretError::TooLong),
            bytes if HeaderValue::from_bytes(bytes).is_err() => return Err(SecretError::Control),
            _ => {}
        }
        Ok(Self { host, header, placeholder: placeholder.to_owned(), value })
    }

    /// What stands for the secret inside.
    #[must_use]
    pub fn placeholder(&self) -> &str {
        &self.placeholder
    }

    /// The hosts it is for.
    #[must_use]
    pub fn host(&self) -> &Pattern {
        &self.host
    }

    /// The header it is for.
    #[must_use]
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    pub(super) fn is_for(&self, name: &Name) -> bool {
        self.host.matches(name)
    }

    /// Puts the value in the place of the placeholder; whether there was one.
    pub(super) fn replace(&self, headers: &mut HeaderMap) -> bool {
        let mut found = false;
        let mut values = match headers.entry(&self.header) {
            hyper::header::Entry::Occupied(entry) => entry,
            hyper::header::Entry::Vacant(_) => return false,
        };
        for value in values.iter_mut() {
            let Some(replaced) = self.filled(value.as_bytes()) else { continue };
            // Too long or no header after all: the placeholder stays, and the server refuses it.
            let Ok(mut filled) = HeaderValue::from_bytes(&replaced) else { continue };
            // Not shown by Debug, and never put into HPACK's table (RFC 7541, section 7.1.3).
            filled.set_sensitive(true);
            *value = filled;
            found = true;
        }
        found
    }

    fn filled(&self, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        if let Some(filled) = self.put(text) {
            return Some(filled);
        }
        // `Basic BASE64(USER:PASSWORD)`, RFC 7617.
        let (scheme, rest) = text.split_at_checked(6)?;
        if self.header != AUTHORIZATION || !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        let plain = Zeroizing::new(STANDARD.decode(rest.trim_ascii()).ok()?);
        let filled = self.put(&plain)?;
        let encoded = Zeroizing::new(STANDARD.encode(&*filled));
        Some(Zeroizing::new([scheme, encoded.as_bytes()].concat()))
    }

    fn put(&self, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let wanted = self.placeholder.as_bytes();
        let mut out = Vec::with_capacity(text.len() + self.value.0.len());
        let mut rest = text;
        let mut found = false;
        while let Some(at) = rest.windows(wanted.len()).position(|part| part == wanted) {
            out.extend_from_slice(&rest[..at]);
            out.extend_from_slice(&self.value.0);
            rest = &rest[at + wanted.len()..];
            found = true;
        }
        out.extend_from_slice(rest);
        let out = Zeroizing::new(out);
        found.then_some(out)
    }
}

/// A request's `Basic` credentials (RFC 7617): what git sends for a name and a password.
#[derive(Debug)]
pub struct Basic;

impl Basic {
    /// Whether `headers` hold credentials with this password.
    #[must_use]
    pub fn has_password(headers: &HeaderMap, password: &str) -> bool {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, rest)) = value.as_bytes().split_at_checked(6) else { return false };
        let plain = STANDARD.decode(rest.trim_ascii()).unwrap_or_default();
        let given = plain.splitn(2, |b| *b == b':').nth(1);
        scheme.eq_ignore_ascii_case(b"basic ") && given == Some(password.as_bytes())
    }

    /// Puts other credentials in their place.
    ///
    /// # Errors
    /// If they do not fit into a header.
    pub fn put(headers: &mut HeaderMap, username: &str, password: &str) -> Result<(), SecretError> {
        let plain = Zeroizing::new([username.as_bytes(), b":", password.as_bytes()].concat());
        if plain.len() > Secret::MAX {
            return Err(SecretError::TooLong);
        }
        let text = Zeroizing::new([b"Basic ", STANDARD.encode(&*plain).as_bytes()].concat());
        let mut value = HeaderValue::from_bytes(&text).map_err(|_| SecretError::Control)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, header, placeholder, value } = self;
        f.debug_struct("Secret")
            .field("host", host)
            .field("header", header)
            .field("placeholder", placeholder)
            .field("value", value)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_known_by_their_password() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(text).expect("a header"));
            headers
        };
        let basic = |text: &str| of(&format!("Basic {}", STANDARD.encode(text)));
        for (headers, want) in [
            (basic("me:PLACE"), true),
            (basic(":PLACE"), true),
            (of(&format!("basic  {}", STANDARD.encode("me:PLACE"))), true),
            (basic("me:PLACE2"), false),
            (basic("me:x:PLACE"), false),
            (basic("PLACE"), false),
            (of("Bearer PLACE"), false),
            (of("Basic !"), false),
            (of("x"), false),
            (HeaderMap::new(), false),
        ] {
            assert_eq!(Basic::has_password(&headers, "PLACE"), want, "{headers:?}");
        }
        let mut two = basic("me:PLACE");
        two.append(AUTHORIZATION, HeaderValue::from_static("Basic x"));
        assert!(!Basic::has_password(&two, "PLACE"));
        let mut headers = basic("me:PLACE");
        Basic::put(&mut headers, "you", "word").expect("fits");
        assert!(Basic::has_password(&headers, "word"));
        assert!(!format!("{headers:?}").contains("Basic"), "not shown: {headers:?}");
        assert_eq!(Basic::put(&mut headers, "you", &"x".repeat(9000)), Err(SecretError::TooLong));
    }
}
