use super::*;

fn list16(content: &[u8]) -> Vec<u8> {
    let mut out = u16::try_from(content.len()).expect("short").to_be_bytes().to_vec();
    out.extend_from_slice(content);
    out
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    let mut out = kind.to_be_bytes().to_vec();
    out.extend(list16(content));
    out
}

fn names(list: &[&[u8]]) -> Vec<u8> {
    let entries: Vec<u8> = list.iter().flat_map(|name| [vec![0], list16(name)].concat()).collect();
    extension(SERVER_NAME, &list16(&entries))
}

fn body(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0]);
    body.extend(list16(&[0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(list16(extensions));
    body
}

fn record(body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).expect("short").to_be_bytes();
    let message = [&[CLIENT_HELLO], &size[1..], body].concat();
    [&[HANDSHAKE, 3, 1], list16(&message).as_slice()].concat()
}

fn with(extensions: &[u8]) -> Result<Hello, HelloError> {
    hello(&record(&body(extensions)))
}

fn done(name: &str, encrypted: bool) -> Result<Hello, HelloError> {
    Ok(Hello::Done { name: name.parse().expect("a name"), encrypted })
}

#[test]
fn the_name_is_found_among_extensions() {
    assert_eq!(with(&names(&[b"Pypi.Org"])), done("pypi.org", false));
    let many = [extension(43, &[2, 3, 4]), names(&[b"a.test"]), extension(0x0a0a, &[])].concat();
    assert_eq!(with(&many), done("a.test", false));
    let encrypted = [names(&[b"front.test"]), extension(ENCRYPTED_CLIENT_HELLO, &[0; 40])].concat();
    assert_eq!(with(&encrypted), done("front.test", true));
}

#[test]
fn what_two_servers_read_differently_is_refused() {
    assert_eq!(with(&[]), Err(HelloError::NoName));
    assert_eq!(hello(&record(&body(&[])[..body(&[]).len() - 2])), Err(HelloError::NoName), "no extensions at all");
    assert_eq!(with(&extension(43, &[2, 3, 4])), Err(HelloError::NoName));
    assert_eq!(with(&names(&[])), Err(HelloError::NoName));
    assert_eq!(with(&names(&[b"a.test", b"b.test"])), Err(HelloError::TwoNames));
    assert_eq!(with(&[names(&[b"a.test"]), names(&[b"a.test"])].concat()), Err(HelloError::TwoNames));
    for bad in [&b"a.test."[..], b"\xff.test"] {
        assert_eq!(with(&names(&[bad])), Err(HelloError::Malformed));
    }
    for bad in [&b""[..], b"1.2.3.4", b"a\0b.test", b"a b", b"*.test", b"a..b"] {
        assert!(matches!(with(&names(&[bad])), Err(HelloError::Name(_))), "{bad:?}");
    }
    assert_eq!(
        with(&extension(SERVER_NAME, &list16(&[1, 0, 1, b'a']))),
        Err(HelloError::Malformed),
        "another kind of name"
    );
    assert_eq!(
        with(&extension(SERVER_NAME, &[list16(&[]), vec![0]].concat())),
        Err(HelloError::Malformed),
        "something behind"
    );
}

#[test]
fn what_is_not_tls_is_refused_at_its_first_byte() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"SSH-2.0-x", b"\x80\x2e\x01\x03\x01", b"\0", b"\x15\x03\x01\x00\x02"] {
        assert_eq!(hello(bytes), Err(HelloError::NotTls), "{bytes:?}");
    }
    assert_eq!(hello(&[HANDSHAKE, 2]), Err(HelloError::NotTls));
    assert_eq!(hello(&[HANDSHAKE, 3, 1, 0, 4, 2]), Err(HelloError::NotTls), "a server's hello");
}

#[test]
fn a_hello_that_is_not_complete_is_waited_for() {
    let good = record(&body(&names(&[b"a.test"])));
    for length in 0..good.len() {
        assert_eq!(hello(&good[..length]), Ok(Hello::More), "{length} bytes");
    }
    assert_eq!(hello(&good), done("a.test", false));
    let early = [good.clone(), vec![23, 3, 3, 0, 1, 9]].concat();
    assert_eq!(hello(&early), done("a.test", false), "early data behind it is no concern of ours");
}

#[test]
fn fragments_and_giants_are_refused() {
    let whole = record(&body(&names(&[b"a.test"])));
    let message = &whole[5..];
    let split =
        [&[HANDSHAKE, 3, 1], list16(&message[..20]).as_slice(), &[HANDSHAKE, 3, 1], list16(&message[20..]).as_slice()]
            .concat();
    assert_eq!(hello(&split), Err(HelloError::Malformed));
    let double = [&[HANDSHAKE, 3, 1], list16(&[message, message].concat()).as_slice()].concat();
    assert_eq!(hello(&double), Err(HelloError::Malformed));
    assert_eq!(hello(&[HANDSHAKE, 3, 1, 0xff, 0xff, 1]), Err(HelloError::Malformed));
    assert_eq!(hello(&[HANDSHAKE, 3, 1, 0, 0, 1]), Err(HelloError::Malformed));
    assert_eq!(hello(&vec![HANDSHAKE; MAX + 1]), Err(HelloError::TooLong));
}

/// Every single-byte change of a good hello: another name is fine (the policy decides on it), a panic is not.
#[test]
fn damaged_hellos_are_harmless() {
    let good = record(&body(&[extension(43, &[2, 3, 4]), names(&[b"a.test"])].concat()));
    for at in 0..good.len() {
        for value in 0..=255 {
            let mut bytes = good.clone();
            bytes[at] = value;
            let _ = hello(&bytes);
        }
    }
}
