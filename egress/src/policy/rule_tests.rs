use super::*;

fn rule(text: &str) -> Rule {
    match text.parse::<Entry>() {
        Ok(Entry::Rule(rule)) => rule,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn every_form_is_read_and_written_back() {
    for text in [
        "example.com",
        "example.com:443",
        "example.com:22,8000-8100",
        "*.example.com:all",
        "db.corp.example private",
        "db.corp.example:5432 private metadata",
        "203.0.113.0/24:5432",
        "10.0.0.0/8",
        "8.0.0.0/6 private",
        "2606:4700::/32",
        "[2606:4700::]/32:443",
        "169.254.169.254/32 metadata",
        "host:3000",
        "host:3000-3010,8080",
        "GET,HEAD https://pypi.org/simple/**",
        "* https://pypi.org/",
        "POST http://a.example:8080/x/*/y",
        "@dev",
        "@claude-code",
    ] {
        let entry: Entry = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(entry.to_string(), text);
        assert_eq!(entry.to_string().parse::<Entry>().expect("reads back"), entry);
    }
    for (short, long) in [
        ("Example.COM.", "example.com"),
        ("1.1.1.1", "1.1.1.1/32"),
        ("1.1.1.1:53", "1.1.1.1/32:53"),
        ("[2606:4700::1111]:53", "[2606:4700::1111]/128:53"),
        ("https://pypi.org", "* https://pypi.org/"),
        ("GET https://pypi.org:443/a", "GET https://pypi.org/a"),
        ("  a.example   private ", "a.example private"),
    ] {
        assert_eq!(short.parse::<Entry>().unwrap_or_else(|e| panic!("{short}: {e}")).to_string(), long);
    }
}

#[test]
fn ports_mean_what_they_say() {
    let open = |text: &str, port: u16| rule(text).ports().contains(port);
    assert!(open("a.example", 80) && open("a.example", 443) && !open("a.example", 22));
    assert!(open("a.example:22", 22) && !open("a.example:22", 443));
    assert!(open("a.example:8000-8002", 8002) && !open("a.example:8000-8002", 8003));
    assert!(open("a.example:all", 1) && open("1.1.1.1", 9));
    assert!(rule("a.example").denied_ports().contains(22), "a deny rule without ports is for all");
}

#[test]
fn what_is_no_rule_says_why() {
    let error = |text: &str| text.parse::<Entry>().expect_err(text);
    assert_eq!(error(""), RuleError::Empty);
    assert_eq!(error("  "), RuleError::Empty);
    for text in [
        "a.example:",
        "a.example:0",
        "a.example:65536",
        "a.example:9-8",
        "a.example:1,",
        "a.example:,1",
        "a.example:+1",
    ] {
        assert!(matches!(error(text), RuleError::Ports(_)), "{text}: {:?}", error(text));
    }
    for text in [
        "=,",
        "a\0b.example",
        "a@b.example",
        "a#b.example",
        "a..b",
        "*",
        "p\u{430}ypal.com",
        "-\u{1b}[2J.example",
        "a.example%00",
    ] {
        assert!(matches!(error(text), RuleError::Name(..)), "{text:?}: {:?}", error(text));
        assert!(!error(text).to_string().chars().any(char::is_control), "{text:?}: escaped in the message");
    }
    for text in ["1.2.3.0/33", "[::1", "10.1.2.3/8", "1.2.3.4/x"] {
        assert!(matches!(error(text), RuleError::Block(..)), "{text}: {:?}", error(text));
    }
    for text in ["host", "host:all", "hoSt", "Host."] {
        assert_eq!(error(text), RuleError::HostPorts, "{text}");
    }
    assert_eq!(error("host:1 private"), RuleError::Meaningless("private"));
    assert_eq!(error("a.example publik"), RuleError::Word("publik".into()));
    assert_eq!(error("GET"), RuleError::MethodsWithoutUrl);
    assert_eq!(error("GET a.example"), RuleError::MethodsWithoutUrl);
    assert_eq!(error("GET, https://a.example/"), RuleError::Method("GET,".into()));
    for text in [
        "ftp://a.example/",
        "https://u@a.example/",
        "https://a.example/?q",
        "https://a.example:1-2/",
        "https://a.example/#x",
    ] {
        assert!(matches!(error(text), RuleError::Url(_)), "{text}: {:?}", error(text));
    }
    assert!(matches!(error("https://a.example/../x"), RuleError::Path(..)));
    for text in ["@", "@A", "@a b", "@a/b"] {
        assert!(matches!(error(text), RuleError::SetName(_) | RuleError::Word(_)), "{text}");
    }
}

#[test]
fn a_rule_dials_what_it_was_written_for() {
    for (text, class, may) in [
        ("a.example", Class::Public, true),
        ("a.example", Class::Private, false),
        ("a.example", Class::Metadata, false),
        ("a.example private", Class::Private, true),
        ("a.example private", Class::LinkLocal, true),
        ("a.example private", Class::Metadata, false),
        ("a.example metadata", Class::Metadata, true),
        ("a.example private metadata", Class::ThisHost, false),
        ("a.example private metadata", Class::Embedded, false),
        ("a.example private metadata", Class::Unusable, false),
        ("10.0.0.0/8", Class::Private, true),
        ("0.0.0.0/0", Class::Private, false),
    ] {
        assert_eq!(rule(text).may_dial(class), may, "{text} {class:?}");
    }
}
