//! Which remotes a repository has, read from the text of its `config` without running git.
//!
//! The text is a repository's, and so maybe an attacker's: what is read here is shown to the person, and only used if they asked for it. What
//! is not understood (other files that it includes, shortcuts by `url.*.insteadOf`) is no remote.

use cellblock_egress::name::Name;
use cellblock_egress::policy::path::segments;

use super::git_config;

/// Where a remote is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Over https.
    Https {
        /// The server.
        host: Name,
        /// Its port.
        port: u16,
        /// The path, in normal form, without a slash at either end.
        path: String,
        /// The user's name, if there is one.
        username: Option<String>,
        /// There is a password in it, which whoever reads the repository's files has.
        password: bool,
    },
    /// Over ssh.
    Ssh {
        /// The server, as ssh is told.
        host: String,
        /// Its port.
        port: u16,
    },
    /// Anything else: a path, `http:`, `git:`.
    Other,
}

/// The addresses of all remotes, each once.
pub(crate) fn remotes(config: &str) -> Vec<Address> {
    let mut found: Vec<Address> = Vec::new();
    for entry in git_config::parse(config).iter().filter(|e| e.is("remote", "url") || e.is("remote", "pushurl")) {
        let address = address(&entry.value);
        if !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// What kind of address it is (git-fetch(1), "git URLs").
pub(crate) fn address(text: &str) -> Address {
    let found = match text.split_once("://") {
        Some(("https", rest)) => https(rest),
        Some(("ssh" | "git+ssh" | "ssh+git", rest)) => {
            let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
            ssh(authority)
        }
        Some(_) => None,
        // `user@host:path`, unless a slash comes first. `name::address` is for a program of that name.
        None => text.split_once(':').filter(|(place, path)| !place.contains('/') && !path.starts_with(':')).and_then(
            |(place, _)| {
                let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
                server(host).then(|| Address::Ssh { host: host.to_owned(), port: 22 })
            },
        ),
    };
    found.unwrap_or(Address::Other)
}

fn https(rest: &str) -> Option<Address> {
    let (authority, path) = rest.split_once('/')?;
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let (host, port) = with_port(place, 443)?;
    let path = segments(format!("/{}", path.trim_end_matches('/')).as_bytes()).ok()?.join("/");
    let (username, password) = match user.map(|user| user.split_once(':').unwrap_or((user, ""))) {
        Some((name, word)) => (Some(name.to_owned()).filter(|name| is_plain(name)), !word.is_empty()),
        None => (None, false),
    };
    (!path.is_empty()).then_some(Address::Https { host: host.parse().ok()?, port, path, username, password })
}

fn ssh(authority: &str) -> Option<Address> {
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = with_port(place, 22)?;
    server(host).then(|| Address::Ssh { host: host.to_owned(), port })
}

fn with_port(place: &str, usual: u16) -> Option<(&str, u16)> {
    match place.split_once(':') {
        None => Some((place, usual)),
        Some((host, port)) => port.parse().ok().filter(|port| *port != 0).map(|port| (host, port)),
    }
}

/// A server that can stand in a file of ssh's, and in an argument.
fn server(host: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !host.is_empty() && !host.starts_with('-') && host.bytes().all(fine)
}

/// A name that needs no encoding.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over_https(host: &str, port: u16, path: &str, username: Option<&str>, password: bool) -> Address {
        let host = host.parse().expect("a name");
        Address::Https { host, port, path: path.into(), username: username.map(str::to_owned), password }
    }

    fn over_ssh(host: &str, port: u16) -> Address {
        Address::Ssh { host: host.into(), port }
    }

    #[test]
    fn addresses_are_read_as_git_reads_them() {
        for (text, want) in [
            ("https://github.com/me/work.git", over_https("github.com", 443, "me/work.git", None, false)),
            ("https://me@git.test:8443/a/b/", over_https("git.test", 8443, "a/b", Some("me"), false)),
            ("https://me:word@git.test/a", over_https("git.test", 443, "a", Some("me"), true)),
            ("git@github.com:me/work.git", over_ssh("github.com", 22)),
            ("github.com:me/work.git", over_ssh("github.com", 22)),
            ("ssh://git@git.test:2222/me/work.git", over_ssh("git.test", 2222)),
            ("ssh://git.test/me/work.git", over_ssh("git.test", 22)),
        ] {
            assert_eq!(address(text), want, "{text}");
        }
        for text in [
            "",
            "/srv/git/work.git",
            "./a:b",
            "http://git.test/a",
            "https://git.test",
            "https://git.test/",
            "https://git.test/../a",
            "https://git.test/a%2e%2e/b",
            "https://git.test:0/a",
            "https://127.0.0.1/a",
            "ext::sh -c id",
            "-oProxyCommand=id:x",
            "ssh://-oProxyCommand=id/x",
            "ssh://git test/x",
            "file:///srv/a",
        ] {
            assert_eq!(address(text), Address::Other, "{text}");
        }
    }

    #[test]
    fn remotes_are_found_in_a_config() {
        let text = "
[core]
\turl = https://no.test/a
[remote \"origin\"]
\turl = https://git.test/me/work.git
\tfetch = +refs/heads/*:refs/remotes/origin/*
\tpushurl = \"git@git.test:me/work.git\"
[Remote \"fork\"]
\tURL=https://git.test/you/work.git
[remote \"again\"]
\turl = https://git.test/me/work.git
[remote \"odd\"]
\turl = https://git.test/a\\tb
[branch \"main\"]
\turl = https://no.test/b
";
        let found = remotes(text);
        assert_eq!(
            found,
            [
                over_https("git.test", 443, "me/work.git", None, false),
                over_ssh("git.test", 22),
                over_https("git.test", 443, "you/work.git", None, false),
                Address::Other,
            ]
        );
        assert_eq!(remotes(""), []);
    }
}
