use cellblock_egress::audit::Verdict;

use super::*;

fn base(event: Event, verdict: Verdict) -> Line {
    Line { time: "2026-01-02T03:04:05.678Z".into(), ..Line::new(event, verdict) }
}

fn text(of: &Line) -> String {
    line(of, Style::plain())
}

#[test]
fn each_event_has_its_words() {
    let connect = Line {
        name: Some("example.com".into()),
        address: Some("93.184.216.34".parse().expect("an address")),
        port: Some(443),
        protocol: Some(Protocol::Tls),
        rule: Some("@web".into()),
        origin: Some("config.yaml:3".into()),
        ..base(Event::Connect, Verdict::Allow)
    };
    assert_eq!(
        text(&connect),
        "2026-01-02T03:04:05Z  allow  example.com:443 (93.184.216.34) tls  [@web, config.yaml:3]"
    );
    let denied = Line {
        name: Some("example.com".into()),
        method: Some("A".into()),
        why: Some("no rule is about it".into()),
        process: Some(Process { name: "curl".into(), pid: 7 }),
        count: Some(12),
        ..base(Event::Dns, Verdict::Deny)
    };
    assert_eq!(
        text(&denied),
        "2026-01-02T03:04:05Z  deny   look-up example.com A  no rule is about it  (by curl[7])  (12 more)"
    );
    let request = Line {
        method: Some("GET".into()),
        path: Some("/a".into()),
        protocol: Some(Protocol::Http),
        port: Some(80),
        ..Line { name: connect.name.clone(), ..base(Event::Request, Verdict::Allow) }
    };
    assert!(text(&request).ends_with("GET http://example.com/a"));
    let end = Line { event: Event::End, up: Some(2048), down: Some(1), ms: Some(1234), rule: None, ..connect };
    assert!(text(&end).ends_with("example.com:443 ended: 2.00 KiB up, 1 B down, 1.234 s"), "{}", text(&end));
    let policy =
        Line { rule: Some("x.org".into()), origin: Some("net allow".into()), ..base(Event::Policy, Verdict::Allow) };
    assert!(text(&policy).ends_with("rule: x.org, by net allow"));
    let address = Line {
        address: Some("::2".parse().expect("an address")),
        port: Some(1),
        ..base(Event::Connect, Verdict::Deny)
    };
    assert!(text(&address).ends_with("[::2]:1"));
    let start = Line { why: Some("4 listeners".into()), ..base(Event::Start, Verdict::Allow) };
    assert!(text(&start).ends_with("network begins: 4 listeners"));
}

#[test]
fn nothing_of_a_line_is_obeyed() {
    let nasty = "a\u{1b}[2J\u{9b}31m\r\nb\u{202e}c\u{200b}\u{e0041}";
    let line = Line {
        time: nasty.into(),
        name: Some(nasty.into()),
        method: Some(nasty.into()),
        path: Some(nasty.into()),
        rule: Some(nasty.into()),
        origin: Some(nasty.into()),
        why: Some(nasty.into()),
        process: Some(Process { name: nasty.into(), pid: 1 }),
        ..base(Event::Dns, Verdict::Deny)
    };
    for event in [Event::Start, Event::Dns, Event::Connect, Event::Request, Event::End, Event::Publish, Event::Policy] {
        let line = Line { event, ..line.clone() };
        let shown = text(&line);
        assert!(!shown.chars().any(is_hidden), "{shown:?}");
        let json = json(&line);
        assert!(!json.trim_end().chars().any(is_hidden), "{json:?}");
        assert_eq!(serde_json::from_str::<Line>(&json).expect("still the same"), line);
    }
}
