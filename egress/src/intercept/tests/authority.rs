//! The authority: what it can sign, and who believes it.

use tokio::io::duplex;

use super::super::*;
use super::support::*;
use crate::name::Pattern;

fn authority(patterns: &[&str]) -> Authority {
    let hosts: Vec<Pattern> = patterns.iter().map(|p| p.parse().expect("a pattern")).collect();
    Authority::new(&hosts).expect("an authority")
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    [&[tag, u8::try_from(content.len()).expect("short")], content].concat()
}

#[test]
fn the_constraints_are_in_the_certificate() {
    let authority = authority(&["b.test", "*.example.com", "a.test"]);
    let subtree = |tag, content: &[u8]| der(0x30, &der(tag, content));
    // RFC 5280, section 4.2.1.10: [0] permitted, [1] excluded; a name is [2], an address with its mask [7].
    let permitted = [&b"a.test"[..], b"b.test", b"example.com"].map(|name| subtree(0x82, name)).concat();
    let excluded = [subtree(0x87, &[0; 8]), subtree(0x87, &[0; 32])].concat();
    let value = der(0x30, &[der(0xa0, &permitted), der(0xa1, &excluded)].concat());
    // id-ce-nameConstraints, critical.
    let extension = [&[6, 3, 0x55, 0x1d, 0x1e, 1, 1, 0xff], der(4, &value).as_slice()].concat();
    let certificate = authority.certificate_der();
    assert!(certificate.windows(extension.len()).any(|part| part == extension));
    // A CA that may not make others: basicConstraints, critical, path length 0.
    let basic = [6, 3, 0x55, 0x1d, 0x13, 1, 1, 0xff, 4, 8, 0x30, 6, 1, 1, 0xff, 2, 1, 0];
    assert!(certificate.windows(basic.len()).any(|part| part == basic));
    assert!(!authority.certificate_pem().contains("PRIVATE") && !format!("{authority:?}").contains("key"));
}

#[test]
fn an_authority_for_nothing_would_be_one_for_all() {
    assert!(matches!(Authority::new(&[]), Err(AuthorityError::NoHosts)));
}

/// Whether a client that trusts `authority` believes a leaf that it signed for `signed`.
async fn believed(authority: &Authority, signed: &str) -> bool {
    let config = Arc::new(authority.sign(&name(signed)).expect("signed, whatever it is"));
    let (client, server) = duplex(16 << 10);
    tokio::spawn(TlsAcceptor::from(config).accept(server));
    let host = ServerName::try_from(signed.to_owned()).expect("a name");
    trusting(authority, H1).connect(host, client).await.is_ok()
}

#[tokio::test]
async fn clients_believe_it_about_its_names_only() {
    let authority = authority(&["host.test", "*.example.com"]);
    for (signed, fine) in [
        ("host.test", true),
        ("a.example.com", true),
        ("a.b.example.com", true),
        ("other.test", false),
        ("xhost.test", false),
        ("xexample.com", false),
        ("test", false),
    ] {
        assert_eq!(believed(&authority, signed).await, fine, "{signed}");
    }
    // Its constraints cannot say "only below"; it keeps to that itself.
    assert!(believed(&authority, "example.com").await);
    assert!(matches!(authority.leaf(&name("example.com")), Err(AuthorityError::NotCovered(_))));
    assert!(matches!(authority.leaf(&name("a.host.test")), Err(AuthorityError::NotCovered(_))));
    assert!(authority.leaf(&name("host.test")).is_ok());
}

#[test]
fn leaves_are_kept_but_not_all() {
    let authority = authority(&["*.example.com"]);
    let leaf = |number: usize| authority.leaf(&name(&format!("n{number}.example.com"))).expect("a leaf");
    let first = leaf(0);
    for number in 1..Authority::LEAVES + 20 {
        leaf(number);
        assert!(Arc::ptr_eq(&first, &leaf(0)), "what is used stays");
    }
    assert_eq!(authority.kept(), Authority::LEAVES);
}

#[test]
fn the_bundle_has_certificates_only() {
    let outside = Outside::new("host.test", H1, echo());
    let own = authority(&["host.test"]);
    let key = "-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n";
    let host = format!("# a comment\n{key}{}{broken}", outside.roots.bundle(&own));
    let other = authority(&["host.test"]);
    let bundle = Roots::from_pem(host.as_bytes()).expect("roots").bundle(&other);
    assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 3);
    assert!(!bundle.contains("PRIVATE") && !bundle.contains('#') && !bundle.contains("MAMCAQA="), "{bundle}");
    // The same form as rcgen's, which writes with CR LF on some systems.
    assert!(bundle.ends_with(&other.certificate_pem().replace('\r', "")));
    assert!(bundle.lines().all(|line| line.len() <= 64));
    for empty in ["", key, broken, "text"] {
        assert_eq!(Roots::from_pem(empty.as_bytes()).map(|_| ()), Err(NoRoots), "{empty}");
    }
    assert!(
        VARIABLES.contains(&"SSL_CERT_FILE")
            && VARIABLES.iter().all(|v| v.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
    );
}
