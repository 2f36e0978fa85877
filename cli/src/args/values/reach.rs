//! Rules of the network and published ports, as they are written in flags and in the configuration.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use cellblock_bundle::cell::Publish;
use cellblock_egress::policy::{Entry, sets};

use super::{ValueError, nearest};

/// A rule or the name of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuleSpec(pub(crate) Entry);

impl FromStr for RuleSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let entry = text.parse::<Entry>().map_err(|e| ValueError::Rule(e.to_string()))?;
        if let Entry::Set(name) = &entry
            && sets::text(name).is_none()
        {
            let known: Vec<&str> = sets::names().collect();
            let near = nearest(name, known.iter().copied());
            return Err(ValueError::Set { known: known.join(", @"), near: near.map(|n| format!("@{n}")) });
        }
        Ok(Self(entry))
    }
}

impl fmt::Display for RuleSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl serde::Serialize for RuleSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `[ADDRESS:]HOSTPORT:PORT`, or `PORT` for the same on both sides. 127.0.0.1 if no address is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PublishSpec(pub(crate) Publish);

impl FromStr for PublishSpec {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = || ValueError::Publish;
        let text = match text.rsplit_once('/') {
            Some((rest, "tcp")) => rest,
            Some(_) => return Err(ValueError::PublishProtocol),
            None => text,
        };
        let number = |digits: &str| match digits.parse::<u16>() {
            Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
            _ => Err(wrong()),
        };
        let (rest, inside) = text.rsplit_once(':').unwrap_or((text, text));
        let inside = number(inside)?;
        let (address, outside) = match rest.rsplit_once(':') {
            Some((address, port)) => (address, port),
            None => ("", rest),
        };
        let address: IpAddr = match address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address) {
            "" => Ipv4Addr::LOCALHOST.into(),
            some => some.parse().map_err(|_| wrong())?,
        };
        Ok(Self(Publish { host: SocketAddr::new(address, number(outside)?), port: inside }))
    }
}

impl serde::Serialize for PublishSpec {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_port_is_on_loopback_unless_said_otherwise() {
        for (text, want) in [
            ("8080:80", "127.0.0.1:8080:80"),
            ("3000", "127.0.0.1:3000:3000"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80"),
            ("[::1]:8080:80", "[::1]:8080:80"),
            ("8080:80/tcp", "127.0.0.1:8080:80"),
        ] {
            assert_eq!(text.parse::<PublishSpec>().map(|p| p.0.to_string()).as_deref(), Ok(want), "{text}");
        }
        for text in ["", ":", "0", "8080:", ":80", "+80", "70000", "a:1:2", "1:2:3:4", "host:8080:80", "8080:80-90"] {
            assert_eq!(text.parse::<PublishSpec>(), Err(ValueError::Publish), "{text}");
        }
        assert_eq!("53:53/udp".parse::<PublishSpec>(), Err(ValueError::PublishProtocol));
    }

    #[test]
    fn sets_that_do_not_exist_are_noticed_at_once() {
        assert!("@dev".parse::<RuleSpec>().is_ok());
        let error = "@githb".parse::<RuleSpec>().expect_err("no such set");
        assert!(error.to_string().contains("@github"), "{error}");
    }
}
