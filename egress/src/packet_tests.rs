use super::*;

/// The first packet of a connection, or a datagram, without what nobody looks at.
pub(crate) fn packet(from: &str, to: &str, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    match (address(from), address(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut bytes = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0];
            bytes.extend([from.octets(), to.octets()].concat());
            [bytes, payload.to_vec()].concat()
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut bytes = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            bytes.extend([from.octets(), to.octets()].concat());
            [bytes, payload.to_vec()].concat()
        }
        _ => panic!("two families"),
    }
}

pub(crate) fn tcp(port: u16, flags: u8) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![0x9c, 0x40, high, low, 1, 1, 1, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]
}

pub(crate) fn udp(port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    vec![0x9c, 0x40, high, low, 0, 9, 0, 0, b'x']
}

const V4: (&str, &str) = ("198.18.0.2", "198.18.1.7");
const V6: (&str, &str) = ("fdce:11b1:cc0:ffff::2", "fdce:11b1:cc0::7");

fn found(kind: Kind, (from, to): (&str, &str), port: u16) -> Option<Attempt> {
    let from_port = if kind == Kind::Icmp { 0 } else { 40_000 };
    Some(Attempt {
        kind,
        from: (from.parse().expect("an address"), from_port),
        to: to.parse().expect("an address"),
        port,
    })
}

#[test]
fn what_begins_something_is_told() {
    for (way, echo) in [(V4, (ICMP, ECHO)), (V6, (ICMP_V6, ECHO_V6))] {
        let (from, to) = way;
        assert_eq!(attempt(&packet(from, to, TCP, &tcp(8081, SYN))), found(Kind::Tcp, way, 8081));
        assert_eq!(attempt(&packet(from, to, TCP, &tcp(8081, SYN | 0xc0))), found(Kind::Tcp, way, 8081), "with ECN");
        assert_eq!(attempt(&packet(from, to, UDP, &udp(9999))), found(Kind::Udp, way, 9999));
        assert_eq!(attempt(&packet(from, to, echo.0, &[echo.1, 0, 0, 0])), found(Kind::Icmp, way, 0));
    }
}

#[test]
fn what_begins_nothing_is_left_out() {
    for (from, to) in [V4, V6] {
        for flags in [SYN_ACK, 0x10, 0x18, 0x04, 0x11, 0] {
            assert_eq!(attempt(&packet(from, to, TCP, &tcp(80, flags))), None, "{flags:#x}");
        }
        // Answers to echo requests, and errors.
        for (protocol, kind) in [(ICMP, 0), (ICMP, 3), (ICMP_V6, 129), (ICMP_V6, 135), (132, 0), (47, 0)] {
            assert_eq!(attempt(&packet(from, to, protocol, &[kind, 0, 0, 0])), None, "{protocol} {kind}");
        }
    }
    assert_eq!(attempt(&packet(V4.0, V4.1, ICMP_V6, &[ECHO_V6, 0, 0, 0])), None);
    assert_eq!(attempt(&[]), None);
    assert_eq!(attempt(&[0x00; 64]), None);
}

#[test]
fn options_and_fragments_hide_nothing() {
    let mut options = packet(V4.0, V4.1, TCP, &[]);
    options[0] = 0x47;
    options.extend([1u8; 8]);
    options.extend(tcp(22, SYN));
    assert_eq!(attempt(&options), found(Kind::Tcp, V4, 22));
    let mut fragment = packet(V4.0, V4.1, UDP, &udp(9999));
    fragment[6] = 0x20;
    assert_eq!(attempt(&fragment), found(Kind::Udp, V4, 9999), "the first of several");
    fragment[7] = 9;
    assert_eq!(attempt(&fragment), None, "a later one");

    // Routing of two units, destination options of one, then TCP.
    let mut headers = vec![60, 1];
    headers.extend([0u8; 14]);
    headers.extend([TCP, 0, 0, 0, 0, 0, 0, 0]);
    headers.extend(tcp(22, SYN));
    assert_eq!(attempt(&packet(V6.0, V6.1, 43, &headers)), found(Kind::Tcp, V6, 22));
    let fragment = |offset: u8| [vec![UDP, 0, 0, offset, 0, 0, 0, 1], udp(9999)].concat();
    assert_eq!(attempt(&packet(V6.0, V6.1, 44, &fragment(1))), found(Kind::Udp, V6, 9999));
    assert_eq!(attempt(&packet(V6.0, V6.1, 44, &fragment(8))), None);
    // Headers without end.
    let many = [43u8, 0, 0, 0, 0, 0, 0, 0].repeat(1000);
    assert_eq!(attempt(&packet(V6.0, V6.1, 43, &many)), None);
}

#[test]
fn a_cut_packet_is_no_panic() {
    for (from, to) in [V4, V6] {
        for protocol in [0, ICMP, TCP, UDP, 43, 44, ICMP_V6, 60] {
            let whole = packet(from, to, protocol, &tcp(80, SYN));
            for length in 0..whole.len() {
                let _ = attempt(&whole[..length]);
            }
        }
    }
    let mut short = packet(V4.0, V4.1, TCP, &tcp(80, SYN));
    short[0] = 0x41;
    assert_eq!(attempt(&short), None, "a header shorter than a header");
}
