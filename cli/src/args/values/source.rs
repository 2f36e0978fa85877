//! Where values are read on the host at the start of a cell, and entries of its environment, which can come from there.

use std::fmt;
use std::str::FromStr;

use super::ValueError;

/// Where a value is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A variable of the host's environment.
    Env(String),
    /// A file, without the line end at its end.
    File(String),
    /// What a command prints, without the line end at its end; run by `/bin/sh`.
    Command(String),
    /// A reference of 1Password's, `op://VAULT/ITEM/FIELD`, read by `op read`.
    OnePassword(String),
    /// The first line of an entry of the password store, read by `pass show`.
    Pass(String),
}

impl FromStr for Source {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.contains('\0') {
            return Err(ValueError::Nul);
        }
        match text.split_once(':') {
            Some(("env", name)) => Ok(Self::Env(env_name(name)?)),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.to_owned())),
            Some(("cmd", words)) if !words.trim().is_empty() => Ok(Self::Command(words.to_owned())),
            Some(("op", rest)) if rest.starts_with("//") && rest.len() > 2 => Ok(Self::OnePassword(text.to_owned())),
            // One that begins with a dash would be an option.
            Some(("pass", entry)) if !entry.is_empty() && !entry.starts_with('-') => Ok(Self::Pass(entry.to_owned())),
            _ => Err(ValueError::Source),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{path}"),
            Self::Command(words) => write!(f, "cmd:{words}"),
            Self::OnePassword(reference) => f.write_str(reference),
            Self::Pass(entry) => write!(f, "pass:{entry}"),
        }
    }
}

/// `NAME=VALUE` sets a variable, `NAME` passes the host's value on, `NAME@SOURCE` takes what is read from there at the start.
///
/// No name has an `@` in it and every literal value comes after a `=`, so the three cannot be taken for each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvEntry {
    /// The variable.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: Given,
}

/// What a variable is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// This.
    Value(String),
    /// What it is on the host.
    Host,
    /// What is read there.
    Source(Source),
}

impl FromStr for EnvEntry {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.contains('\0') {
            return Err(ValueError::Nul);
        }
        let Some(at) = text.find(['=', '@']) else {
            return Ok(Self { name: env_name(text)?, value: Given::Host });
        };
        let (name, rest) = (env_name(&text[..at])?, &text[at + 1..]);
        let value =
            if text[at..].starts_with('=') { Given::Value(rest.to_owned()) } else { Given::Source(rest.parse()?) };
        Ok(Self { name, value })
    }
}

impl fmt::Display for EnvEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Given::Value(value) => write!(f, "{}={value}", self.name),
            Given::Host => f.write_str(&self.name),
            Given::Source(source) => write!(f, "{}@{source}", self.name),
        }
    }
}

/// A name that a variable can have for every shell.
pub(super) fn env_name(name: &str) -> Result<String, ValueError> {
    let good = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good { Ok(name.to_owned()) } else { Err(ValueError::EnvName(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_as_they_are_written() {
        for text in [
            "env:TOKEN",
            "file:~/.key",
            "file:a:b",
            "cmd:vault read -field=x secret/y",
            "op://vault/item/field",
            "pass:web/token",
        ] {
            assert_eq!(text.parse::<Source>().map(|s| s.to_string()).as_deref(), Ok(text));
        }
        for text in
            ["", "x", "env:", "env:A B", "file:", "cmd: ", "op:", "op://", "op:vault", "pass:", "pass:-c", "a:b"]
        {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_literal_value_is_never_taken_for_a_source() {
        for text in ["A=file:/x", "A=@file:/x", "A=env:B", "A=b@c", "A=cmd:rm", "A==@"] {
            let entry: EnvEntry = text.parse().expect(text);
            assert_eq!(entry.value, Given::Value(text[2..].to_owned()));
        }
        for text in ["A@file:/x=y", "A@cmd:echo a=b", "A@env:B"] {
            let entry: EnvEntry = text.parse().expect(text);
            assert!(matches!(entry.value, Given::Source(_)), "{text}");
            assert_eq!(entry.to_string(), text);
        }
        for (text, wrong) in [("A@b", ValueError::Source), ("A@", ValueError::Source), ("A@x=y", ValueError::Source)] {
            assert_eq!(text.parse::<EnvEntry>(), Err(wrong), "{text}");
        }
        assert!(matches!("A B@env:C".parse::<EnvEntry>(), Err(ValueError::EnvName(_))));
    }
}
