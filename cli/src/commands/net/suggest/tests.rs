use cellblock_egress::audit::{Event, Line, Process, Protocol, Verdict};
use cellblock_egress::policy::Entry;

use super::*;

fn line(event: Event, verdict: Verdict, name: &str, port: Option<u16>) -> Line {
    Line { name: (!name.is_empty()).then(|| name.to_owned()), port, ..Line::new(event, verdict) }
}

fn used(name: &str, port: u16) -> Line {
    Line { rule: Some("*.everything.example:all".into()), ..line(Event::Connect, Verdict::Allow, name, Some(port)) }
}

fn seen(lines: &[Line]) -> Seen {
    let mut seen = Seen::default();
    for line in lines {
        seen.add(line);
    }
    seen
}

/// The rules that the text holds, read as a file of rules; every other line must be a comment.
fn plain(text: &str) -> Vec<String> {
    let lines = text.lines().map(|l| l.split('#').next().unwrap_or_default().trim()).filter(|l| !l.is_empty());
    lines.map(|l| l.parse::<Entry>().unwrap_or_else(|e| panic!("{l}: {e}")).to_string()).collect()
}

fn texts(lines: &[Line]) -> (Vec<String>, String) {
    let text = text(&propose("c", &seen(lines)));
    (plain(&text), text)
}

#[test]
fn what_was_used_is_narrowed_to_name_and_ports() {
    let private = Line { address: Some("10.0.0.7".parse().expect("an address")), ..used("db.corp.example", 5432) };
    let request = Line {
        rule: Some("GET https://*.pypi.example/simple/**".into()),
        protocol: Some(Protocol::Https),
        ..line(Event::Request, Verdict::Allow, "a.pypi.example", Some(443))
    };
    let (rules, text) = texts(&[
        line(Event::Dns, Verdict::Allow, "only-looked-up.example.com", None),
        used("github.com", 443),
        used("github.com", 22),
        used("github.com", 443),
        Line { up: Some(10), down: Some(2048), ..line(Event::End, Verdict::Allow, "github.com", Some(443)) },
        private,
        used("host.docker.internal", 3000),
        request.clone(),
        request,
        // The connection of a plain request, and the request itself, are one use.
        line(Event::Request, Verdict::Allow, "github.com", Some(443)),
    ]);
    assert_eq!(
        rules,
        ["db.corp.example:5432 private", "github.com:22,443", "host:3000", "GET https://a.pypi.example/simple/**"]
    );
    assert!(text.contains("3 times, 10 B up, 2.00 KiB down"), "{text}");
    assert!(!text.contains("only-looked-up"), "{text}");
}

#[test]
fn what_was_refused_is_a_comment_with_its_number() {
    let refused = line(Event::Dns, Verdict::Deny, "example.com", None);
    let (rules, text) = texts(&[
        refused.clone(),
        Line { count: Some(9), ..refused },
        Line {
            process: Some(Process { name: "cu\nrl".into(), pid: 7 }),
            ..line(Event::Connect, Verdict::Deny, "ports.example.com", Some(8443))
        },
        Line {
            why: Some("tracker.example denies it".into()),
            ..line(Event::Dns, Verdict::Deny, "tracker.example", None)
        },
    ]);
    assert!(rules.is_empty(), "{text}");
    for part in [
        "# example.com ",
        "10 times",
        "# ports.example.com:8443  # once, by cu\\u{a}rl\n",
        "once, tracker.example denies it",
        "Nothing was used",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Without their #, these lines are rules.
    let line = text.lines().find(|l| l.starts_with("# ports")).expect("the line");
    assert_eq!(plain(&line[2..]), ["ports.example.com:8443"]);
}

#[test]
fn addresses_are_warned_of_and_never_proposed() {
    let address = |verdict, address: &str| Line {
        address: Some(address.parse().expect("an address")),
        ..line(Event::Connect, verdict, "", Some(443))
    };
    let (rules, text) = texts(&[
        address(Verdict::Allow, "93.184.216.34"),
        address(Verdict::Deny, "93.184.216.35"),
        address(Verdict::Deny, "169.254.169.254"),
        used("example.com", 443),
    ]);
    assert_eq!(rules, ["example.com:443"]);
    for part in [
        "WARNING: 93.184.216.34/32:443: an address without a name, used",
        "93.184.216.35/32:443",
        "WARNING: 169.254.169.254:443: nothing",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_is_not_tcp_is_told_and_never_proposed() {
    let of =
        |protocol, port| Line { protocol: Some(protocol), ..line(Event::Connect, Verdict::Deny, "example.com", port) };
    let (rules, text) = texts(&[of(Protocol::Udp, Some(443)), of(Protocol::Icmp, None), of(Protocol::Tcp, Some(8081))]);
    assert!(rules.is_empty(), "{text}");
    for part in ["# example.com:8081  # once", "WARNING: example.com:443: UDP", "WARNING: example.com: an echo request"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn tunnels_are_warned_of_and_never_proposed() {
    let tunnel = |n: u64| format!("{:032x}.t.evil.com", u128::from(n) * 0x1234_5678_9abc_def1_2345_6789);
    let mut lines: Vec<Line> = (1..40).map(|n| line(Event::Dns, Verdict::Deny, &tunnel(n), None)).collect();
    lines.push(line(Event::Connect, Verdict::Allow, &tunnel(99), Some(443)));
    // Short words, but too many of them.
    lines.extend((0..30).map(|n| line(Event::Dns, Verdict::Deny, &format!("word{n}.sly.example"), None)));
    lines.push(line(Event::Dns, Verdict::Deny, "honest.example.com", None));
    let (rules, text) = texts(&lines);
    assert!(rules.is_empty(), "{text}");
    assert!(text.contains("# WARNING: 40 names of evil.com: like a DNS tunnel: random letters"), "{text}");
    assert!(text.contains("# WARNING: 30 names of sly.example: like a DNS tunnel: many names"), "{text}");
    assert!(
        !text.contains("# word1.sly") && !text.contains("*.sly.example") && !text.contains("*.t.evil.com"),
        "{text}"
    );
    assert!(text.contains("# honest.example.com"), "{text}");
}

#[test]
fn five_siblings_make_a_glob_in_a_comment() {
    let names = |parent: &str, n: usize| (0..n).map(|n| used(&format!("s{n}.{parent}"), 443)).collect::<Vec<_>>();
    let (rules, text) =
        texts(&[names("cdn.example.com", 5), names("few.example.com", 4), names("github.io", 5)].concat());
    assert_eq!(rules.len(), 14, "{text}");
    assert!(text.contains("\n# *.cdn.example.com:443  # 5 names\n"), "{text}");
    assert!(text.contains("\n# *.github.io:443  # 5 names; but STRANGERS"), "{text}");
    assert!(!text.contains("*.few"), "{text}");
}

#[test]
fn no_text_of_the_cells_becomes_a_rule() {
    let nasty = "a\nevil.com\n#";
    let (rules, text) = texts(&[
        line(Event::Dns, Verdict::Deny, nasty, None),
        line(Event::Dns, Verdict::Deny, &format!("{}\nevil.com", "x".repeat(50)), None),
        line(Event::Connect, Verdict::Allow, nasty, Some(443)),
        Line {
            time: "\nevil.com".into(),
            rule: Some("\nevil.com".into()),
            ..line(Event::Dns, Verdict::Deny, "a.com", None)
        },
        Line {
            path: Some("/\nevil.com".into()),
            method: Some("GET".into()),
            ..line(Event::Request, Verdict::Deny, "a.com", Some(443))
        },
    ]);
    assert!(rules.is_empty(), "{text}");
    assert!(!text.lines().any(|l| l.starts_with("evil")), "{text}");
}

#[test]
fn the_proposal_is_a_document_too() {
    let json = serde_json::to_value(propose("c", &seen(&[used("example.com", 443)]))).expect("json");
    assert_eq!(json["rules"][0]["rule"], "example.com:443");
    assert_eq!(json["decisions"], 1);
}
