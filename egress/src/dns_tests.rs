use super::*;
use crate::policy::Written;

fn policy() -> Policy {
    let rules = ["allowed.test", "*.wild.test", "denied.test"];
    let written = |t: &&str| Written { entry: t.parse().expect("a rule"), origin: "test".into() };
    Policy::new(
        &rules.iter().map(written).collect::<Vec<_>>(),
        &["denied.test"].iter().map(written).collect::<Vec<_>>(),
    )
    .expect("a policy")
}

fn question(name: &str, kind: RecordType, edns: bool) -> Vec<u8> {
    let mut message = Message::new(77, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(WireName::from_ascii(name).expect("a name"), kind));
    if edns {
        message.set_edns(Edns::new());
    }
    message.to_vec().expect("a packet")
}

fn ask(table: &mut Table, name: &str, kind: RecordType) -> (Message, Outcome) {
    let answer = answer(&question(name, kind, true), &policy(), table, true).expect("an answer");
    (Message::from_vec(&answer.packet).expect("a packet"), answer.outcome)
}

#[test]
fn a_known_name_has_one_address_of_each_family() {
    let mut table = Table::default();
    for name in ["allowed.test.", "ALLOWED.test.", "allowed.TEST."] {
        let (reply, outcome) = ask(&mut table, name, RecordType::A);
        assert_eq!(outcome, Outcome::Known("allowed.test".parse().expect("a name")));
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!((reply.metadata.id, reply.metadata.recursion_available, reply.queries.len()), (77, true, 1));
        let [record] = reply.answers.as_slice() else { panic!("one answer") };
        assert_eq!(record.data, RData::A(A(Ipv4Addr::new(198, 18, 1, 0))));
    }
    let (reply, _) = ask(&mut table, "a.wild.test.", RecordType::AAAA);
    assert!(matches!(reply.answers.as_slice(), [r] if matches!(r.data, RData::AAAA(_))));
}

#[test]
fn unknown_names_do_not_exist_and_say_prohibited() {
    let mut table = Table::default();
    for name in ["other.test.", "wild.test.", "xwild.test.", "denied.test.", "allowed.test.evil.example.", "."] {
        for kind in [RecordType::A, RecordType::AAAA, RecordType::TXT, RecordType::HTTPS] {
            let (reply, outcome) = ask(&mut table, name, kind);
            assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "{name} {kind}");
            assert!(reply.answers.is_empty() && matches!(outcome, Outcome::Unknown(_)));
            let edns = reply.edns.expect("was asked with it");
            let options = format!("{:?}", edns.options());
            assert!(options.contains("18"), "{options}");
        }
    }
}

#[test]
fn nothing_but_addresses_is_told() {
    let mut table = Table::default();
    for kind in [
        RecordType::HTTPS,
        RecordType::SVCB,
        RecordType::TXT,
        RecordType::MX,
        RecordType::SRV,
        RecordType::NS,
        RecordType::SOA,
        RecordType::CNAME,
        RecordType::ANY,
        RecordType::Unknown(65_280),
    ] {
        let (reply, outcome) = ask(&mut table, "allowed.test.", kind);
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0), "{kind}");
        assert!(matches!(outcome, Outcome::Empty(_)), "{kind}");
    }
}

#[test]
fn made_up_addresses_have_their_names_back() {
    let mut table = Table::default();
    ask(&mut table, "allowed.test.", RecordType::A);
    let (reply, _) = ask(&mut table, "0.1.18.198.in-addr.arpa.", RecordType::PTR);
    let [record] = reply.answers.as_slice() else { panic!("one answer") };
    assert_eq!(record.data.to_string(), "allowed.test.");
    let (_, v6) = table.give(&"allowed.test".parse().expect("a name")).expect("known");
    let digits: Vec<String> = format!("{:032x}", u128::from(v6)).chars().rev().map(|c| c.to_string()).collect();
    let (reply, _) = ask(&mut table, &format!("{}.ip6.arpa.", digits.join(".")), RecordType::PTR);
    assert_eq!(reply.answers.len(), 1);
    for stranger in ["1.1.1.1.in-addr.arpa.", "1.in-addr.arpa.", "0.0.1.18.198.in-addr.arpa.", "x.ip6.arpa."] {
        let (reply, _) = ask(&mut table, stranger, RecordType::PTR);
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "{stranger}");
    }
}

#[test]
fn what_is_no_question_has_no_answer() {
    let mut table = Table::default();
    let policy = policy();
    assert_eq!(answer(b"", &policy, &mut table, true), None);
    assert_eq!(answer(&[0; 11], &policy, &mut table, true), None);
    let mut response = question("allowed.test.", RecordType::A, false);
    response[2] |= 0x80;
    assert_eq!(answer(&response, &policy, &mut table, true), None, "an answer to nobody's question");
    let mut two = Message::new(1, MessageType::Query, OpCode::Query);
    for _ in 0..2 {
        two.add_query(Query::query(WireName::from_ascii("allowed.test.").expect("a name"), RecordType::A));
    }
    let mut chaos = Query::query(WireName::from_ascii("version.bind.").expect("a name"), RecordType::TXT);
    chaos.set_query_class(DNSClass::CH);
    let mut other = Message::new(1, MessageType::Query, OpCode::Query);
    other.add_query(chaos);
    let mut update = Message::new(1, MessageType::Query, OpCode::Update);
    update.add_query(Query::query(WireName::from_ascii("allowed.test.").expect("a name"), RecordType::SOA));
    for odd in [two, other, update, Message::new(1, MessageType::Query, OpCode::Query)] {
        let found = answer(&odd.to_vec().expect("a packet"), &policy, &mut table, true).expect("an answer");
        assert_eq!(found.outcome, Outcome::Odd);
        let reply = Message::from_vec(&found.packet).expect("a packet");
        assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
    }
}

/// Every single-byte change of a good packet, and every cut of it: an answer or none, never a panic, and never an address for a name that
/// the policy does not know.
#[test]
fn damaged_packets_are_harmless() {
    let policy = policy();
    let good = question("allowed.test.", RecordType::A, true);
    for at in 0..good.len() {
        for value in 0..=255 {
            let mut packet = good.clone();
            packet[at] = value;
            if let Some(Answer { outcome: Outcome::Known(name), .. }) =
                answer(&packet, &policy, &mut Table::default(), true)
            {
                assert_eq!(name.as_str(), "allowed.test");
            }
        }
        let _ = answer(&good[..at], &policy, &mut Table::default(), true);
    }
}

#[test]
fn names_in_the_audit_have_no_control_characters() {
    let mut packet = question("allowed.test.", RecordType::A, false);
    packet[14] = 0x1b;
    packet[15] = b'\n';
    let found = answer(&packet, &policy(), &mut Table::default(), true).expect("an answer");
    let Outcome::Unknown(text) = found.outcome else { panic!("unknown: {:?}", found.outcome) };
    assert!(!text.chars().any(char::is_control), "{text:?}");
}
