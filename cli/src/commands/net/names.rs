//! What a decision was about, as a rule; and names that are more likely data on their way out than names.

use cellblock_egress::address::{Class, classify};
use cellblock_egress::audit::{Event, Line, Protocol};
use cellblock_egress::name::Name;
use cellblock_egress::policy::{Entry, is_host_name};

/// The smallest rule that would allow what `line` is about; `None` if there is none, or none that should be proposed: this machine by its
/// address, the cloud's metadata service, what no connection can be made to, text that is no name; what rules are not about.
pub(super) fn rule_for(line: &Line) -> Option<Entry> {
    if matches!(line.protocol, Some(Protocol::Udp | Protocol::Icmp)) {
        return None;
    }
    let port = line.port.map(|port| format!(":{port}")).unwrap_or_default();
    let Some(text) = &line.name else {
        let address = line.address?;
        let fine = matches!(classify(address), Class::Public | Class::Private | Class::LinkLocal);
        let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        return fine.then(|| format!("{host}{port}").parse().ok()).flatten();
    };
    let name: Name = text.parse().ok()?;
    if is_host_name(&name) {
        return format!("host{port}").parse().ok();
    }
    let word = match line.address.map(classify) {
        Some(Class::ThisHost | Class::Metadata) => return None,
        Some(Class::Private | Class::LinkLocal) => " private",
        _ => "",
    };
    if line.event != Event::Request {
        return format!("{name}{port}{word}").parse().ok();
    }
    let (scheme, usual) = if line.protocol == Some(Protocol::Http) { ("http", 80) } else { ("https", 443) };
    let port = line.port.filter(|p| *p != usual).map(|p| format!(":{p}")).unwrap_or_default();
    let path = line.path.as_deref()?.split(['?', '#']).next()?;
    // A star would mean more than itself.
    let plain = !path.contains('*') && !path.contains(char::is_whitespace);
    let method = line.method.as_deref()?;
    plain.then(|| format!("{method} {scheme}://{name}{port}{path}{word}").parse().ok()).flatten()
}

/// Endings below which anybody can have a name: a rule for all of them allows strangers. Far from complete (publicsuffix.org has the list);
/// what is missing makes a comment less careful, not a rule wider.
const SHARED: &[&str] = &[
    "amazonaws.com",
    "azureedge.net",
    "azurewebsites.net",
    "blogspot.com",
    "cloudapp.net",
    "cloudfront.net",
    "duckdns.org",
    "fastly.net",
    "firebaseapp.com",
    "fly.dev",
    "github.io",
    "githubusercontent.com",
    "gitlab.io",
    "googleapis.com",
    "herokuapp.com",
    "netlify.app",
    "ngrok.io",
    "onrender.com",
    "pages.dev",
    "r2.dev",
    "repl.co",
    "trycloudflare.com",
    "vercel.app",
    "web.app",
    "windows.net",
    "workers.dev",
];

/// Second-level words of countries' registries: `co.uk`, `com.au`.
const REGISTRY: &[&str] = &["ac", "co", "com", "edu", "gov", "gob", "mil", "ne", "net", "or", "org"];

/// Whether strangers can have names below `parent`.
pub(super) fn is_shared(parent: &str) -> bool {
    let ends = |suffix: &str| parent == suffix || parent.ends_with(&format!(".{suffix}"));
    let registry = parent.split_once('.').is_some_and(|(first, rest)| rest.len() == 2 && REGISTRY.contains(&first));
    !parent.contains('.') || registry || SHARED.iter().any(|s| ends(s))
}

/// The name that somebody has registered, as far as that can be told: `example.co.uk` for what lies below it.
pub(super) fn registered(name: &str) -> &str {
    let starts: Vec<usize> = std::iter::once(0).chain(name.match_indices('.').map(|(at, _)| at + 1)).collect();
    let from = |at: usize| name.get(at..).unwrap_or(name);
    let last_two = starts.iter().rev().nth(1).map_or(name, |at| from(*at));
    if is_shared(last_two) { starts.iter().rev().nth(2).map_or(last_two, |at| from(*at)) } else { last_two }
}

/// The name without its first label.
pub(super) fn parent(name: &str) -> Option<&str> {
    name.split_once('.').map(|(_, rest)| rest).filter(|rest| rest.contains('.'))
}

/// Longest name and label that need no second look. Data is put into as few names as possible: 253 and 63 are what there is.
const LONG_NAME: usize = 120;
const LONG_LABEL: usize = 40;

/// Shortest label whose letters are looked at: below, words and random letters do not differ enough.
const SHORTEST: usize = 16;

/// Why a name looks like data on its way out (a DNS tunnel needs nobody's answer: the question carries it), if it does.
pub(super) fn oddity(name: &str) -> Option<&'static str> {
    if name.len() > LONG_NAME || name.split('.').any(|label| label.len() > LONG_LABEL) {
        Some("very long")
    } else if name.split('.').any(is_random) {
        Some("random letters")
    } else {
        None
    }
}

/// Whether a label looks drawn by lot: hexadecimal, base32 or base64 without its signs.
fn is_random(label: &str) -> bool {
    // `xn--…` looks random and is a word (RFC 5890).
    if label.len() < SHORTEST || label.starts_with("xn--") {
        return false;
    }
    label.split(['-', '_']).filter(|part| part.len() >= SHORTEST).any(|part| {
        let share = |what: fn(&u8) -> bool| part.bytes().filter(what).count() * 100 / part.len();
        let digits = share(u8::is_ascii_digit);
        let vowels = share(|b| b"aeiouy".contains(b));
        // English has some 40 % vowels; base32 and base64 have 16 to 20, and hexadecimal a third digits and more.
        (20..100).contains(&digits) || (digits > 5 && vowels < 25) || vowels < 15
    })
}

#[cfg(test)]
mod tests {
    use cellblock_egress::audit::Verdict;

    use super::*;

    fn line(event: Event, name: Option<&str>, address: Option<&str>, port: Option<u16>) -> Line {
        let address = address.map(|a| a.parse().expect("an address"));
        Line { name: name.map(str::to_owned), address, port, ..Line::new(event, Verdict::Deny) }
    }

    #[test]
    fn a_decision_becomes_the_smallest_rule() {
        let rule = |line: Line| rule_for(&line).map(|e| e.to_string());
        let is = |line, text: &str| assert_eq!(rule(line).as_deref(), Some(text));
        is(line(Event::Dns, Some("example.com"), None, None), "example.com");
        is(line(Event::Connect, Some("example.com"), Some("198.18.0.3"), Some(22)), "example.com:22");
        is(line(Event::Connect, Some("db.corp.example"), Some("10.1.2.3"), Some(5432)), "db.corp.example:5432 private");
        is(line(Event::Connect, None, Some("93.184.216.34"), Some(443)), "93.184.216.34/32:443");
        is(line(Event::Connect, None, Some("2606:4700::1"), Some(443)), "[2606:4700::1]/128:443");
        is(line(Event::Connect, Some("host.docker.internal"), None, Some(3000)), "host:3000");
        let request = Line {
            method: Some("POST".into()),
            path: Some("/a/b?token=1".into()),
            protocol: Some(Protocol::Https),
            ..line(Event::Request, Some("example.com"), None, Some(443))
        };
        is(request.clone(), "POST https://example.com/a/b");
        assert_eq!(rule(Line { path: Some("/a/*".into()), ..request }), None);
    }

    #[test]
    fn some_things_are_never_proposed() {
        for (name, address) in [
            (None, Some("127.0.0.1")),
            (None, Some("169.254.169.254")),
            (None, Some("224.0.0.1")),
            (Some("metadata.example"), Some("169.254.169.254")),
            (Some("local.example"), Some("127.0.0.1")),
            (Some("a\nb.com"), None),
            (Some("1.2.3.4"), None),
            (Some("host.docker.internal"), None),
            (None, None),
        ] {
            let port = name.is_none().then_some(80);
            assert_eq!(rule_for(&line(Event::Connect, name, address, port)), None, "{name:?} {address:?}");
        }
    }

    #[test]
    fn who_has_registered_a_name() {
        for (name, owner) in [
            ("a.b.example.com", "example.com"),
            ("example.com", "example.com"),
            ("a.example.co.uk", "example.co.uk"),
            ("x.d1.cloudfront.net", "d1.cloudfront.net"),
            ("com", "com"),
        ] {
            assert_eq!(registered(name), owner);
        }
        assert!(is_shared("github.io") && is_shared("co.uk") && is_shared("com"));
        assert!(!is_shared("example.com") && !is_shared("example.co.uk"));
        assert_eq!(parent("a.b.c"), Some("b.c"));
        assert_eq!(parent("b.c"), None);
    }

    #[test]
    fn data_in_names_is_seen_and_names_are_not_mistaken_for_it() {
        for odd in [
            "3a7bd3e2360a3d29eea436fcfb7e44c7.evil.com",
            "mzxw6ytboi4dsnjrgm2tmmzx.evil.com",
            "aGVsbG8gd29ybGQgdGhpcyBpcw.t.evil.com",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.evil.com",
            "v-5f2b8c01d4e96a7733.evil.com",
        ] {
            assert!(oddity(&odd.to_lowercase()).is_some(), "{odd}");
        }
        for name in [
            "registry.npmjs.org",
            "raw.githubusercontent.com",
            "release-assets.githubusercontent.com",
            "ec2-12-34-56-78.eu-central-1.compute.amazonaws.com",
            "generativelanguage.googleapis.com",
            "files.pythonhosted.org",
            "objects-origin.githubusercontent.com",
            "xn--bcher-kva-verlag-und-mehr.example",
            "statsig-internal-telemetry.anthropic.com",
            "index.crates.io",
            "productionresultssa12.blob.core.windows.net",
        ] {
            assert_eq!(oddity(name), None, "{name}");
        }
    }
}
