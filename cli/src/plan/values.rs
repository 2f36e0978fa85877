//! Single values as people write them: sizes, numbers, names, paths with `~` and `$VAR`.

use cellblock_bundle::{Network, Profile};

use crate::facts::Facts;
use crate::flags::{Enforce, Userns};
use crate::settings::similar;

/// A value that is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ValueError {
    /// Not of the form that is needed.
    #[error("{place}: `{value}` is not valid")]
    Bad {
        /// A flag, or a line of the configuration.
        place: String,
        /// What stands there.
        value: String,
        /// What should.
        hint: String,
    },
    /// A variable in a path that is not set.
    #[error("`{text}` uses ${name}, which is not set")]
    Undefined {
        /// The path.
        text: String,
        /// The variable.
        name: String,
    },
}

impl ValueError {
    pub(crate) fn bad(place: &str, value: &str, expected: &str) -> Self {
        Self::Bad { place: place.into(), value: value.into(), hint: format!("expected {expected}") }
    }

    fn choice(place: &str, value: &str, known: &[&str]) -> Self {
        let hint = similar(value, known)
            .map_or_else(|| format!("expected one of: {}", known.join(", ")), |k| format!("did you mean `{k}`?"));
        Self::Bad { place: place.into(), value: value.into(), hint }
    }
}

pub(crate) fn profile(text: &str, place: &str) -> Result<Profile, ValueError> {
    match text {
        "default" => Ok(Profile::Default),
        "strict" => Ok(Profile::Strict),
        _ => Err(ValueError::choice(place, text, &["default", "strict"])),
    }
}

pub(crate) fn network(text: &str, place: &str) -> Result<Network, ValueError> {
    match text {
        "none" => Ok(Network::None),
        "host" => Ok(Network::Host),
        _ => Err(ValueError::choice(place, text, &["none", "host"])),
    }
}

pub(crate) fn userns(text: &str, place: &str) -> Result<Userns, ValueError> {
    match text {
        "auto" => Ok(Userns::Auto),
        "single" => Ok(Userns::Single),
        "keep-id" => Ok(Userns::KeepId),
        _ => Err(ValueError::choice(place, text, &["auto", "single", "keep-id"])),
    }
}

pub(crate) fn enforce(text: &str, place: &str) -> Result<Enforce, ValueError> {
    match text {
        "enforce" => Ok(Enforce::Enforce),
        "best-effort" => Ok(Enforce::BestEffort),
        _ => Err(ValueError::choice(place, text, &["enforce", "best-effort"])),
    }
}

/// A size with podman's units: `b`, `k`, `m`, `g`, `t`, powers of 1024, either case, an optional `b` or `ib` after.
pub(crate) fn bytes(text: &str, place: &str) -> Result<u64, ValueError> {
    let bad = || ValueError::bad(place, text, "a size such as 512M or 2G");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    number.checked_mul(1 << shift).filter(|n| *n > 0).ok_or_else(bad)
}

/// Processors in thousandths.
pub(crate) fn cpus(text: &str, place: &str) -> Result<u64, ValueError> {
    let bad = || ValueError::bad(place, text, "a number of processors such as 2 or 1.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 3 {
        return Err(bad());
    }
    let thousandths: u64 = format!("{fraction:0<3}").parse().map_err(|_| bad())?;
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    // The kernel's smallest quota is a hundredth of a processor.
    whole.checked_mul(1000).and_then(|w| w.checked_add(thousandths)).filter(|n| *n >= 10).ok_or_else(bad)
}

/// hostname(7).
pub(crate) fn hostname(text: &str, place: &str) -> Result<(), ValueError> {
    let fine = !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if fine { Ok(()) } else { Err(ValueError::bad(place, text, "a host name of letters, digits, `-` and `.`")) }
}

/// A path with a leading `~`, `$NAME` and `${NAME}` replaced; `$$` is a dollar sign.
pub(crate) fn expand(text: &str, facts: &Facts) -> Result<String, ValueError> {
    let home = || facts.home.display().to_string();
    let rest = match text.strip_prefix('~') {
        Some("") => return Ok(home()),
        Some(rest) if rest.starts_with('/') => home() + rest,
        Some(_) => return Err(ValueError::bad("a path", text, "`~/…`; other people's homes are not looked up")),
        None => text.to_owned(),
    };
    let mut out = String::new();
    let mut rest = rest.as_str();
    while let Some(at) = rest.find('$') {
        let (before, after) = rest.split_at(at);
        out += before;
        let after = after.get(1..).unwrap_or_default();
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let (name, tail) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(parts) => parts,
            None => {
                let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if name.is_empty() {
            return Err(ValueError::bad("a path", text, "`$NAME`, `${NAME}`, or `$$` for a dollar sign"));
        }
        let value =
            facts.env.get(name).ok_or_else(|| ValueError::Undefined { text: text.into(), name: name.into() })?;
        out += value;
        rest = tail;
    }
    Ok(out + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, value) in
            [("512", 512), ("1k", 1024), ("512M", 512 << 20), ("2GiB", 2 << 30), ("3gb", 3 << 30), ("7b", 7)]
        {
            assert_eq!(bytes(text, "x"), Ok(value), "{text}");
        }
        for text in ["", "M", "-1", "1.5G", "0", "1x", "99999999999999999999", "99999999999T"] {
            assert!(bytes(text, "x").is_err(), "{text}");
        }
    }

    #[test]
    fn processors() {
        for (text, value) in [("1", 1000), ("1.5", 1500), ("0.01", 10), ("2.125", 2125)] {
            assert_eq!(cpus(text, "x"), Ok(value), "{text}");
        }
        for text in ["", ".", ".5x", "-1", "0", "0.001", "1.2345"] {
            assert!(cpus(text, "x").is_err(), "{text}");
        }
    }

    #[test]
    fn paths_are_expanded() {
        let mut facts = Facts { home: "/home/ada".into(), ..Facts::default() };
        facts.env.insert("WORK".into(), "/work".into());
        for (text, value) in [
            ("~", "/home/ada"),
            ("~/x", "/home/ada/x"),
            ("$WORK/a", "/work/a"),
            ("${WORK}a", "/worka"),
            ("a$$b", "a$b"),
            ("/p/~", "/p/~"),
        ] {
            assert_eq!(expand(text, &facts).as_deref(), Ok(value), "{text}");
        }
        assert_eq!(expand("$NOPE/x", &facts).expect_err("unset").to_string(), "`$NOPE/x` uses $NOPE, which is not set");
        assert!(expand("~bob/x", &facts).is_err());
    }

    #[test]
    fn choices_suggest_the_near_one() {
        assert_eq!(
            network("hots", "--network"),
            Err(ValueError::Bad {
                place: "--network".into(),
                value: "hots".into(),
                hint: "did you mean `host`?".into()
            })
        );
    }
}
