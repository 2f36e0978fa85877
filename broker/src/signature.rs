//! Commits and tags that the person's gpg signs. A cell has neither their key nor a way to their gpg agent: it hands over what is to be signed, and gets
//! the signature, if that is an object of git's and nothing else.
//!
//! git calls a program of the cell's for it (`gpg.program`), a shell script, which writes lines as for the desktop ([`crate::bridge`]): any number of
//! `ID sign-part BASE64`, then `ID sign`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cellblock_egress::audit::is_hidden;
use zeroize::Zeroizing;

use crate::child;
use crate::settings::{Settings, Signer};

/// Largest object in bytes: less than a pipe holds (pipe(7)), so that handing it to gpg never waits. Commits of git's own history have 5000 at most.
pub const MAX_OBJECT: usize = 60 << 10;

/// Most objects that are being handed over at a time.
const MAX_PENDING: usize = 8;

/// How long handing one over may take.
const PENDING: Duration = Duration::from_secs(30);

/// How long the person may take to enter a passphrase or touch a device.
const PATIENCE: Duration = Duration::from_secs(120);

/// Largest signature in bytes; one of RSA with 4096 bits has 900.
const MAX_SIGNATURE: usize = 16 << 10;

/// What is to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A commit, with the first line of its message.
    Commit(String),
    /// A tag, with its name.
    Tag(String),
}

/// What object of git's `bytes` are (git's `Documentation/user-manual`, "The Object Database"): `None` if they could be taken for anything else. The
/// lines of the head are the ones that every git writes, in their order, and end with an empty one.
#[must_use]
pub fn object(bytes: &[u8]) -> Option<Object> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, message) = (bytes.get(..end)?, bytes.get(end + 2..)?);
    let mut lines = head.split(|b| *b == b'\n').peekable();
    let id = |line: &[u8], word: &[u8]| line.strip_prefix(word).is_some_and(is_id);
    if lines.next_if(|line| id(line, b"tree ")).is_some() {
        while lines.next_if(|line| id(line, b"parent ")).is_some() {}
        lines.next_if(|line| is_person(line, b"author "))?;
        lines.next_if(|line| is_person(line, b"committer "))?;
        // What comes behind is for other programs than git's core: encoding, mergetag, HG:….
        return Some(Object::Commit(text(message.split(|b| *b == b'\n').next()?)));
    }
    lines.next_if(|line| id(line, b"object "))?;
    lines.next_if(|line| matches!(*line, b"type commit" | b"type tree" | b"type blob" | b"type tag"))?;
    let name = lines.next()?.strip_prefix(b"tag ")?;
    lines.next_if(|line| is_person(line, b"tagger "))?;
    Some(Object::Tag(text(name)))
}

/// A hash: SHA-1, or SHA-256.
fn is_id(text: &[u8]) -> bool {
    matches!(text.len(), 40 | 64) && text.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b))
}

/// `author Name <address> SECONDS ZONE`.
fn is_person(line: &[u8], word: &[u8]) -> bool {
    let Some(rest) = line.strip_prefix(word) else { return false };
    let Some(close) = rest.iter().rposition(|b| *b == b'>') else { return false };
    let (who, when) = rest.split_at(close);
    let mut when = when.split(|b| *b == b' ').skip(1);
    let number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let zone = |text: &[u8]| matches!(text, [b'+' | b'-', digits @ ..] if digits.len() == 4 && number(digits));
    who.contains(&b'<') && when.next().is_some_and(number) && when.next().is_some_and(zone) && when.next().is_none()
}

/// For people: at most 100 letters, none of which controls a terminal or makes others look like something else.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().filter(|c| !is_hidden(*c)).take(100).collect()
}

/// Whether `bytes` are one detached signature in ASCII armour (RFC 9580, section 6.2), and nothing before or behind it.
#[must_use]
pub fn is_signature(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let inner = text.strip_prefix("-----BEGIN PGP SIGNATURE-----\n");
    let inner = inner.and_then(|text| text.strip_suffix("-----END PGP SIGNATURE-----\n"));
    inner.is_some_and(|text| !text.contains("-----") && text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)))
}

/// Objects of which not all has come yet.
#[derive(Debug, Default)]
pub struct Pending(VecDeque<(Instant, String, Vec<u8>)>);

impl Pending {
    /// Adds `part` in base64 to the object `id`. One that is too large, or no base64, is forgotten: its signature is refused then.
    pub fn add(&mut self, id: &str, part: &str) {
        while self.0.front().is_some_and(|(at, ..)| at.elapsed() >= PENDING) {
            self.0.pop_front();
        }
        let Ok(part) = STANDARD.decode(part) else {
            self.0.retain(|(_, known, _)| known != id);
            return;
        };
        match self.0.iter_mut().find(|(_, known, _)| known == id) {
            // One more than may be stays as a sign that it was too much.
            Some((.., bytes)) if bytes.len() + part.len() > MAX_OBJECT => bytes.resize(MAX_OBJECT + 1, 0),
            Some((.., bytes)) => bytes.extend_from_slice(&part),
            None => {
                if self.0.len() >= MAX_PENDING {
                    self.0.pop_front();
                }
                self.0.push_back((Instant::now(), id.to_owned(), part));
            }
        }
    }

    /// All of the object `id`.
    pub fn take(&mut self, id: &str) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|(_, known, _)| known == id)?;
        self.0.remove(at).map(|(.., bytes)| bytes)
    }
}

/// Has gpg sign `bytes`, which are an object of git's.
pub(crate) fn sign(bytes: &[u8], signer: &Signer, settings: &Settings) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut command = child::command(&signer.program.to_string_lossy(), settings);
    command.args(["--batch", "--no-tty", "--armor", "--detach-sign", "--local-user", &signer.key]);
    let program = signer.program.display();
    let signature = child::run(command, bytes, MAX_SIGNATURE, PATIENCE)
        .map_err(|error| format!("{program} on the host {error}"))?;
    // Whatever the program says it is.
    if is_signature(&signature) {
        Ok(signature)
    } else {
        Err(format!("what {program} on the host said is no signature"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";

    fn commit(extra: &str) -> String {
        format!(
            "tree {ID}\nparent {ID}\nauthor A <a@b> 1 +0000\ncommitter B C <> 22 -0130\n{extra}\nAdd \x1b[31mx\n\nmore\n"
        )
    }

    #[test]
    fn commits_and_tags_are_known_by_their_heads() {
        assert_eq!(object(commit("").as_bytes()), Some(Object::Commit("Add [31mx".to_owned())));
        let more = commit("encoding latin1\nmergetag object x\n type commit\n");
        assert_eq!(object(more.as_bytes()), Some(Object::Commit("Add [31mx".to_owned())));
        let root = format!("tree {}\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\n", "0".repeat(64));
        assert_eq!(object(root.as_bytes()), Some(Object::Commit(String::new())));
        let tag = format!("object {ID}\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n\nFirst\n");
        assert_eq!(object(tag.as_bytes()), Some(Object::Tag("v1".to_owned())));
        let turned = tag.replace("tag v1", "tag v\u{202e}1\u{2066}\u{200b}é\u{feff}\u{200f}");
        assert_eq!(object(turned.as_bytes()), Some(Object::Tag("v1é".to_owned())));
    }

    #[test]
    fn nothing_else_is_taken_for_one() {
        let good = commit("");
        for (from, to) in [
            ("tree ", "Tree "),
            (ID, "4b825dc642cb6eb9a060e54bf8d69288fbee490"),
            (ID, "4B825DC642CB6EB9A060E54BF8D69288FBEE4904"),
            ("author A", "writer A"),
            ("<a@b> 1 +0000", "<a@b> 1"),
            ("<a@b> 1 +0000", "<a@b> x +0000"),
            ("<a@b> 1 +0000", "<a@b> 1 +0000 x"),
            ("<a@b>", "a@b"),
            ("committer ", "\ncommitter "),
            ("committer B", "author B"),
        ] {
            assert_eq!(object(good.replacen(from, to, 1).as_bytes()), None, "{from} -> {to}");
        }
        for text in ["", "\n\n", "Release 1.0\n\nsigned by me\n", "tree x\n\n", &format!("tree {ID}\n\n")] {
            assert_eq!(object(text.as_bytes()), None, "{text}");
        }
        assert_eq!(object(good.trim_end().replace("\n\n", "\n").as_bytes()), None, "a head that does not end");
    }

    #[test]
    fn a_signature_is_one_block_and_nothing_else() {
        let good = "-----BEGIN PGP SIGNATURE-----\n\niQEz\n=abcd\n-----END PGP SIGNATURE-----\n";
        assert!(is_signature(good.as_bytes()));
        let key = good.replace("SIGNATURE", "PRIVATE KEY BLOCK");
        for bad in [
            String::new(),
            key,
            format!("{good}x"),
            format!("x{good}"),
            format!("{good}{good}"),
            good.replace("iQ", "\x1b"),
        ] {
            assert!(!is_signature(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn what_comes_in_parts_has_an_end() {
        let mut pending = Pending::default();
        let part = |bytes: &[u8]| STANDARD.encode(bytes);
        pending.add("a", &part(b"one "));
        pending.add("b", &part(b"other"));
        pending.add("a", &part(b"two"));
        assert_eq!(pending.take("a").as_deref(), Some(&b"one two"[..]));
        assert_eq!(pending.take("a"), None);
        pending.add("b", "no base64!");
        assert_eq!(pending.take("b"), None);
        for _ in 0..100 {
            pending.add("c", &part(&[b'x'; 3000]));
        }
        assert!(pending.take("c").is_some_and(|bytes| bytes.len() > MAX_OBJECT && bytes.len() < MAX_OBJECT + 3000));
        for id in 0..100 {
            pending.add(&id.to_string(), &part(b"x"));
        }
        assert_eq!(pending.0.len(), MAX_PENDING);
    }
}
