//! Secrets that never enter a cell, as they are written in flags and in the configuration.

use std::fmt;
use std::str::FromStr;

use cellblock_egress::name::Pattern;

use super::{Source, ValueError, env_name};

/// `VARIABLE@HOST[/HEADER]=SOURCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretSpec {
    /// The variable that holds the placeholder inside.
    pub(crate) variable: String,
    /// The hosts that get the secret.
    pub(crate) host: Pattern,
    /// The header it goes into.
    pub(crate) header: String,
    /// Where its value is read, on the host and at each start.
    pub(crate) source: Source,
}

/// Where most interfaces want a token.
const USUAL_HEADER: &str = "authorization";

impl FromStr for SecretSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (what, source) = text.split_once('=').ok_or(ValueError::Secret)?;
        let (variable, place) = what.split_once('@').ok_or(ValueError::Secret)?;
        let (host, header) = place.split_once('/').unwrap_or((place, USUAL_HEADER));
        let host: Pattern = host.parse().map_err(|e| ValueError::Rule(format!("{host:?}: {e}")))?;
        if host == Pattern::Any {
            return Err(ValueError::SecretForAll);
        }
        let header_fine = !header.is_empty() && header.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let source =
            source.parse().map_err(|error| if error == ValueError::Source { ValueError::Secret } else { error })?;
        if !header_fine {
            return Err(ValueError::Secret);
        }
        Ok(Self { variable: env_name(variable)?, host, header: header.to_ascii_lowercase(), source })
    }
}

impl fmt::Display for SecretSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.variable, self.host)?;
        if self.header != USUAL_HEADER {
            write!(f, "/{}", self.header)?;
        }
        write!(f, "={}", self.source)
    }
}

impl serde::Serialize for SecretSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_a_variable_hosts_and_a_source() {
        for text in [
            "GITHUB_TOKEN@api.github.com=env:GITHUB_TOKEN",
            "KEY@*.example.com/x-api-key=file:~/.key",
            "TOKEN@example.com=cmd:pass show web/token | head -1",
            "TOKEN@example.com=op://vault/item/field",
            "TOKEN@example.com=pass:web/token",
        ] {
            assert_eq!(text.parse::<SecretSpec>().map(|s| s.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "",
            "A",
            "A@b.example",
            "A@b.example=x",
            "A@b.example=env:",
            "A@=env:B",
            "@b.example=env:B",
            "A B@b.example=env:B",
            "A@b.example/=env:B",
            "A@b.example/x y=env:B",
            "A@**=env:B",
            "A@*=env:B",
            "A@b.example=cmd: ",
        ] {
            assert!(text.parse::<SecretSpec>().is_err(), "{text}");
        }
    }
}
