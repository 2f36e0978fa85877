use super::*;

fn written(texts: &[&str]) -> Vec<Written> {
    texts
        .iter()
        .map(|t| Written { entry: t.parse().unwrap_or_else(|e| panic!("{t}: {e}")), origin: "test".into() })
        .collect()
}

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    Policy::new(&written(allow), &written(deny)).expect("a policy")
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

#[test]
fn an_empty_policy_allows_nothing() {
    let nothing = policy(&[], &[]);
    assert!(!nothing.knows(&name("example.com")));
    assert_eq!(nothing.name(&name("example.com"), 443), Verdict::Deny(Why::Unlisted));
    assert_eq!(nothing.address("1.1.1.1".parse().expect("ip"), 443, &[]), Verdict::Deny(Why::Unlisted));
    assert_eq!(nothing.ports(9), Some(vec![]));
}

#[test]
fn a_deny_rule_beats_every_allow_rule() {
    let policy =
        policy(&["*.example.com", "a.example.com:all", "1.0.0.0/8"], &["a.example.com", "b.example.com:80", "1.1.1.1"]);
    assert!(!policy.knows(&name("a.example.com")));
    assert!(matches!(policy.name(&name("a.example.com"), 443), Verdict::Deny(Why::Denied(_))));
    assert!(policy.knows(&name("b.example.com")), "443 is left");
    assert!(policy.name(&name("b.example.com"), 443).is_allowed());
    assert!(!policy.name(&name("b.example.com"), 80).is_allowed());
    assert!(policy.name(&name("c.example.com"), 80).is_allowed());
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    assert!(matches!(policy.address(ip("1.1.1.1"), 443, &[]), Verdict::Deny(Why::Denied(_))));
    assert!(policy.address(ip("1.1.1.2"), 443, &[]).is_allowed());
    // Also behind a name.
    let Verdict::Allow(rule) = policy.name(&name("c.example.com"), 443) else { panic!("allowed") };
    assert!(matches!(policy.dial(rule, ip("1.1.1.1"), 443, &[]), Err(Why::Denied(_))));
    assert!(policy.dial(rule, ip("1.1.1.2"), 443, &[]).is_ok());
}

#[test]
fn ports_are_part_of_the_decision() {
    let policy = policy(&["a.example", "a.example:22", "b.example:8000-8001"], &[]);
    for (host, port, yes) in [
        ("a.example", 22, true),
        ("a.example", 443, true),
        ("a.example", 25, false),
        ("b.example", 8001, true),
        ("b.example", 80, false),
    ] {
        assert_eq!(policy.name(&name(host), port).is_allowed(), yes, "{host}:{port}");
    }
    assert_eq!(policy.name(&name("a.example"), 25), Verdict::Deny(Why::Port));
    assert_eq!(policy.ports(9), Some(vec![22, 80, 443, 8000, 8001]));
    assert_eq!(policy.ports(4), None);
    assert_eq!(tests::policy(&["a.example:all"], &[]).ports(99), None);
}

#[test]
fn a_name_leads_only_where_its_rule_may_go() {
    let policy = policy(&["a.example", "db.example private", "cloud.example metadata"], &[]);
    let own: IpAddr = "93.184.216.34".parse().expect("ip");
    let dial = |host: &str, ip: &str| {
        let Verdict::Allow(rule) = policy.name(&name(host), 443) else { panic!("allowed") };
        policy.dial(rule, ip.parse().expect("an address"), 443, &[own])
    };
    assert_eq!(dial("a.example", "1.1.1.1"), Ok(()));
    assert_eq!(dial("a.example", "10.0.0.1"), Err(Why::Kind(Class::Private)));
    assert_eq!(dial("db.example", "10.0.0.1"), Ok(()));
    assert_eq!(dial("db.example", "169.254.169.254"), Err(Why::Kind(Class::Metadata)));
    assert_eq!(dial("cloud.example", "169.254.169.254"), Ok(()));
    for host in ["a.example", "db.example", "cloud.example"] {
        assert_eq!(dial(host, "127.0.0.1"), Err(Why::ThisHost));
        assert_eq!(dial(host, "::1"), Err(Why::ThisHost));
        assert_eq!(dial(host, "93.184.216.34"), Err(Why::ThisHost), "an address of this machine");
        assert_eq!(dial(host, "::ffff:10.0.0.1"), Err(Why::Kind(Class::Embedded)));
        assert_eq!(dial(host, "64:ff9b::7f00:1"), Err(Why::Kind(Class::Embedded)));
    }
}

#[test]
fn address_rules_never_cover_more_than_they_say() {
    let address = |rules: &[&str], ip: &str| {
        policy(rules, &[]).address(ip.parse().expect("an address"), 443, &["5.5.5.5".parse().expect("ip")]).is_allowed()
    };
    let all: &[&str] = &["0.0.0.0/0", "::/0"];
    for (ip, yes) in [
        ("1.1.1.1", true),
        ("2606:4700::1111", true),
        ("10.0.0.1", false),
        ("169.254.169.254", false),
        ("127.0.0.1", false),
        ("0.0.0.0", false),
        ("5.5.5.5", false),
        ("::1", false),
        ("fd00::1", false),
        ("::ffff:1.1.1.1", false),
        ("224.0.0.1", false),
    ] {
        assert_eq!(address(all, ip), yes, "{ip}");
    }
    assert!(address(&["10.0.0.0/8"], "10.0.0.1"), "said outright");
    assert!(!address(&["127.0.0.0/8"], "127.0.0.1"), "never");
    assert!(!address(&["169.254.0.0/16"], "169.254.169.254"), "needs its own word");
    assert!(address(&["169.254.169.254 metadata"], "169.254.169.254"));
    assert!(!address(&["1.1.1.1:80"], "1.1.1.1"));
}

#[test]
fn requests_are_decided_one_by_one() {
    let policy = policy(&["GET,HEAD https://pypi.org/simple/**", "POST https://pypi.org/legacy", "files.example"], &[]);
    let ask = |host: &str, port: u16, tls: bool, method: &str, path: &str| {
        policy.request(&name(host), port, tls, method, &path::segments(path.as_bytes()).expect("a path"))
    };
    assert!(policy.looks_into(&name("pypi.org"), 443) && !policy.looks_into(&name("files.example"), 443));
    assert!(ask("pypi.org", 443, true, "GET", "/simple/pip/").is_allowed());
    assert!(ask("pypi.org", 443, true, "POST", "/legacy").is_allowed());
    assert_eq!(ask("pypi.org", 443, true, "POST", "/simple/pip/"), Verdict::Deny(Why::Request));
    assert_eq!(ask("pypi.org", 443, true, "get", "/simple/pip/"), Verdict::Deny(Why::Request), "methods have a case");
    assert_eq!(ask("pypi.org", 443, false, "GET", "/simple/pip/"), Verdict::Deny(Why::Request));
    assert_eq!(ask("pypi.org", 80, false, "GET", "/simple/pip/"), Verdict::Deny(Why::Port));
    assert!(ask("files.example", 443, true, "DELETE", "/x").is_allowed(), "a plain rule asks for nothing");
    assert!(matches!(Policy::new(&[], &written(&["GET https://a.example/x"])), Err(PolicyError::DenyRequests { .. })));
}

#[test]
fn services_of_this_machine_go_by_their_names() {
    let policy = policy(&["host:3000"], &[]);
    for host in HOST_NAMES {
        assert!(policy.knows(&name(host)));
        assert!(policy.name(&name(host), 3000).is_allowed());
        assert!(!policy.name(&name(host), 3001).is_allowed());
    }
    assert!(!policy.knows(&name("host.evil.internal")));
    assert!(!tests::policy(&["*.docker.internal:9"], &[]).name(&name("host.docker.internal"), 3000).is_allowed());
}

#[test]
fn sets_are_replaced_by_their_rules() {
    let policy = policy(&["@pypi"], &[]);
    assert!(policy.name(&name("pypi.org"), 443).is_allowed());
    assert!(policy.allow_rules().iter().all(|r| r.origin == "test: @pypi"));
    let error = Policy::new(&written(&["@nowhere"]), &[]).expect_err("no such set");
    assert!(error.to_string().contains("@nowhere") && error.to_string().contains("@pypi"), "{error}");
}
