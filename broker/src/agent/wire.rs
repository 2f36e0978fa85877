//! Bytes of the agent's protocol, and of what an ssh client has signed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};

/// Longest message, as OpenSSH's agent has it.
pub const MAX: usize = 256 << 10;

/// Most keys that an agent may have.
pub const MOST_KEYS: usize = 1024;

/// `SSH_AGENT_FAILURE`.
pub const FAILURE: &[u8] = &[5];
/// `SSH_AGENTC_REQUEST_IDENTITIES`.
pub const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
/// RFC 4252, section 5.
const USERAUTH_REQUEST: u8 = 50;

/// What a cell asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Which keys there are.
    Identities,
    /// A signature.
    Sign(Sign<'a>),
    /// Something that no cell may ask, by its number.
    Other(u8),
}

/// A signature that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign<'a> {
    /// The public key.
    pub key: &'a [u8],
    /// What is to be signed.
    pub data: &'a [u8],
    /// Which hash, for RSA.
    pub flags: u32,
}

/// A key of the agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The public key.
    pub key: Vec<u8>,
    /// What its owner calls it.
    pub comment: Vec<u8>,
}

/// Not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a message of an ssh agent's")]
pub struct Malformed;

/// What of a message is still to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        let (bytes, rest) = self.0.split_first_chunk::<4>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// RFC 4251, section 5: a length and as many bytes.
    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(text)
    }

    fn end<T>(&self, value: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(value) } else { Err(Malformed) }
    }
}

fn put(out: &mut Vec<u8>, text: &[u8]) {
    // No text is longer than the message it was read from.
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(text);
}

/// Reads a request, without the length in front of it.
///
/// # Errors
/// If it is none.
pub fn request(message: &[u8]) -> Result<Request<'_>, Malformed> {
    let mut reader = Reader(message);
    match reader.byte()? {
        REQUEST_IDENTITIES => reader.end(Request::Identities),
        SIGN_REQUEST => {
            let (key, data) = (reader.string()?, reader.string()?);
            let flags = reader.number()?;
            reader.end(Request::Sign(Sign { key, data, flags }))
        }
        other => Ok(Request::Other(other)),
    }
}

impl Sign<'_> {
    /// The request as it is sent on.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut out = vec![SIGN_REQUEST];
        put(&mut out, self.key);
        put(&mut out, self.data);
        out.extend_from_slice(&self.flags.to_be_bytes());
        out
    }
}

/// Reads an agent's list of its keys.
///
/// # Errors
/// If it is none.
pub fn identities(message: &[u8]) -> Result<Vec<Identity>, Malformed> {
    let mut reader = Reader(message);
    if reader.byte()? != IDENTITIES_ANSWER {
        return Err(Malformed);
    }
    let count = usize::try_from(reader.number()?).map_err(|_| Malformed)?;
    if count > MOST_KEYS {
        return Err(Malformed);
    }
    let mut all = Vec::new();
    for _ in 0..count {
        let (key, comment) = (reader.string()?.to_vec(), reader.string()?.to_vec());
        all.push(Identity { key, comment });
    }
    reader.end(all)
}

/// A list of keys as an agent tells it.
#[must_use]
pub fn list(identities: &[Identity]) -> Vec<u8> {
    let mut out = vec![IDENTITIES_ANSWER];
    out.extend_from_slice(&u32::try_from(identities.len()).unwrap_or(0).to_be_bytes());
    for identity in identities {
        put(&mut out, &identity.key);
        put(&mut out, &identity.comment);
    }
    out
}

/// Whether an agent's answer is a signature and nothing else.
#[must_use]
pub fn is_signature(message: &[u8]) -> bool {
    let mut reader = Reader(message);
    reader.byte() == Ok(SIGN_RESPONSE) && reader.string().is_ok() && reader.0.is_empty()
}

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// Logging in (RFC 4252, section 7).
    Login {
        /// As whom.
        user: &'a [u8],
        /// With which key: has to be the one that signs.
        key: &'a [u8],
        /// The server's key, where the client says it (OpenSSH's `PROTOCOL`, section 1.10).
        server: Option<&'a [u8]>,
    },
    /// Signing a file (OpenSSH's `PROTOCOL.sshsig`).
    File {
        /// What for: `git` for commits and tags.
        namespace: &'a [u8],
    },
    /// Anything else.
    Unknown,
}

/// What the data of a request to sign is for.
#[must_use]
pub fn purpose(data: &[u8]) -> Purpose<'_> {
    file(data).or_else(|_| login(data)).unwrap_or(Purpose::Unknown)
}

fn file(data: &[u8]) -> Result<Purpose<'_>, Malformed> {
    let mut reader = Reader(data.strip_prefix(b"SSHSIG").ok_or(Malformed)?);
    let namespace = reader.string()?;
    let (_reserved, _hash, _digest) = (reader.string()?, reader.string()?, reader.string()?);
    reader.end(Purpose::File { namespace })
}

fn login(data: &[u8]) -> Result<Purpose<'_>, Malformed> {
    let mut reader = Reader(data);
    // The hash of a key exchange.
    if !(20..=64).contains(&reader.string()?.len()) || reader.byte()? != USERAUTH_REQUEST {
        return Err(Malformed);
    }
    let user = reader.string()?;
    let (service, method) = (reader.string()?, reader.string()?);
    if service != b"ssh-connection" || reader.byte()? != 1 {
        return Err(Malformed);
    }
    let (_algorithm, key) = (reader.string()?, reader.string()?);
    let server = match method {
        b"publickey" => None,
        b"publickey-hostbound-v00@openssh.com" => Some(reader.string()?),
        _ => return Err(Malformed),
    };
    reader.end(Purpose::Login { user, key, server })
}

/// A key's fingerprint, as `ssh-keygen -l` shows it.
#[must_use]
pub fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(key)))
}

/// The key in a line of a `.pub` file or of `ssh-add -L`.
#[must_use]
pub fn public_key(line: &str) -> Option<Vec<u8>> {
    let mut words = line.split_ascii_whitespace();
    let (kind, key) = (words.next()?, words.next()?);
    let key = base64::engine::general_purpose::STANDARD.decode(key).ok()?;
    // It says its kind itself.
    (Reader(&key).string() == Ok(kind.as_bytes())).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in parts {
            put(&mut out, part);
        }
        out
    }

    /// What OpenSSH has signed for a login, made of its parts.
    fn to_log_in(method: &[u8], rest: &[&[u8]]) -> Vec<u8> {
        let mut data = strings(&[&[7; 32]]);
        data.push(USERAUTH_REQUEST);
        data.extend(strings(&[b"git", b"ssh-connection", method]));
        data.push(1);
        data.extend(strings(&[b"ssh-ed25519", b"KEY"]));
        data.extend(strings(rest));
        data
    }

    #[test]
    fn requests_are_read_to_their_last_byte() {
        assert_eq!(request(&[11]), Ok(Request::Identities));
        assert_eq!(request(&[11, 0]), Err(Malformed));
        assert_eq!(request(&[]), Err(Malformed));
        let sign = Sign { key: b"key", data: b"data", flags: 4 };
        let message = sign.message();
        assert_eq!(request(&message), Ok(Request::Sign(sign)));
        for cut in 1..message.len() {
            assert_eq!(request(&message[..cut]), Err(Malformed), "{cut}");
        }
        assert_eq!(request(&[message.as_slice(), &[0]].concat()), Err(Malformed));
        // Adding, removing, locking, smart cards, extensions.
        for number in [17, 18, 19, 20, 22, 23, 25, 26, 27] {
            assert_eq!(request(&[number, 1, 2, 3]), Ok(Request::Other(number)));
        }
    }

    #[test]
    fn lists_are_read_as_they_are_written() {
        let all = [
            Identity { key: b"one".to_vec(), comment: b"me@here".to_vec() },
            Identity { key: b"two".to_vec(), comment: Vec::new() },
        ];
        let message = list(&all);
        assert_eq!(identities(&message).as_deref(), Ok(all.as_slice()));
        assert_eq!(identities(&message[..message.len() - 1]), Err(Malformed));
        assert_eq!(identities(&[message.as_slice(), b"x"].concat()), Err(Malformed));
        assert_eq!(identities(&[12, 0xff, 0xff, 0xff, 0xff]), Err(Malformed));
        assert_eq!(identities(FAILURE), Err(Malformed));
        assert_eq!(list(&[]), [12, 0, 0, 0, 0]);
    }

    #[test]
    fn answers_are_signatures_or_nothing() {
        let mut answer = vec![14];
        put(&mut answer, b"signature");
        assert!(is_signature(&answer));
        assert!(!is_signature(&[answer.as_slice(), b"x"].concat()));
        assert!(!is_signature(FAILURE) && !is_signature(&[14]) && !is_signature(&[]));
    }

    #[test]
    fn what_is_signed_is_understood_or_unknown() {
        let plain = to_log_in(b"publickey", &[]);
        assert_eq!(purpose(&plain), Purpose::Login { user: b"git", key: b"KEY", server: None });
        let bound = to_log_in(b"publickey-hostbound-v00@openssh.com", &[b"SERVER"]);
        assert_eq!(purpose(&bound), Purpose::Login { user: b"git", key: b"KEY", server: Some(b"SERVER") });
        let file = [b"SSHSIG".as_slice(), &strings(&[b"git", b"", b"sha512", &[1; 64]])].concat();
        assert_eq!(purpose(&file), Purpose::File { namespace: b"git" });
        let certificate = strings(&[b"ssh-ed25519-cert-v01@openssh.com", &[1; 32], b"KEY"]);
        for other in [
            &certificate[..],
            b"",
            b"text",
            &plain[..plain.len() - 1],
            &[plain.as_slice(), b"x"].concat(),
            &to_log_in(b"password", &[]),
            &to_log_in(b"publickey", &[b"more"]),
            &file[..file.len() - 1],
        ] {
            assert_eq!(purpose(other), Purpose::Unknown, "{other:?}");
        }
    }

    #[test]
    fn fingerprints_are_those_of_openssh() {
        let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a comment";
        let key = public_key(line).expect("a key");
        assert_eq!(fingerprint(&key), "SHA256:+DiY3wvvV6TuJJhbpZisF/zLDA0zPMSvHdkr4UvCOqU");
        for other in
            ["", "ssh-ed25519", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl", "a b"]
        {
            assert_eq!(public_key(other), None, "{other}");
        }
    }
}
