//! What programs of the cell may ask of the person's desktop: the image in the clipboard, and to open an address. Pull only: nothing of the
//! desktop's is told unasked, and nothing but images and addresses passes.
//!
//! The programs are shell scripts, so that they run in any image: they write a line into a pipe, `ID WHAT ARGUMENT`, and wait for a file that is
//! called `ID`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cellblock_egress::name::{Name, NameError};
use zeroize::Zeroizing;

use crate::child::{self, ChildError};
use crate::settings::Settings;

/// Longest line in bytes: what is longer is not written to a pipe in one piece (`PIPE_BUF`, pipe(7)).
pub const MAX_LINE: usize = 4096;

/// Longest address.
const MAX_URL: usize = 2048;

/// Largest image in bytes.
pub const MAX_IMAGE: usize = 16 << 20;

/// How long a program of the desktop's may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// What the answer's file is to be called.
    pub id: &'a str,
    /// What is asked.
    pub what: What<'a>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// Whether there is an image in the clipboard.
    HasImage,
    /// That image.
    Image,
    /// To open an address.
    Open(&'a str),
    /// A part of what is to be signed, in base64. There is no answer.
    Part(&'a str),
    /// To sign what has come in parts.
    Sign,
}

/// Reads a line, without the line end; `None` if it is no question.
#[must_use]
pub fn question(line: &[u8]) -> Option<Question<'_>> {
    let line = std::str::from_utf8(line).ok()?;
    let (id, rest) = line.split_once(' ')?;
    // The name of a file.
    if !(8..=40).contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let what = match rest.split_once(' ').unwrap_or((rest, "")) {
        ("has-image", "") => What::HasImage,
        ("image", "") => What::Image,
        ("open", address) => What::Open(address),
        ("sign-part", part) => What::Part(part),
        ("sign", "") => What::Sign,
        _ => return None,
    };
    Some(Question { id, what })
}

/// Why an address is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// `file:`, `javascript:`, a path.
    #[error("only http and https addresses are opened")]
    Scheme,
    /// Longer than browsers' bars show.
    #[error("the address has more than {MAX_URL} bytes")]
    Long,
    /// Spaces, quotes, what is not ASCII.
    #[error("the address holds characters that have to be encoded")]
    Character,
    /// `https://user@host/`: made to be misread.
    #[error("the address holds a user name")]
    User,
    /// Not a name.
    #[error("the address names no host by its name")]
    Host,
    /// A service of the person's machine.
    #[error("this machine's own services are not opened, but for ports that the cell publishes")]
    Local,
    /// Not a port.
    #[error("the address has no proper port")]
    Port,
}

/// Checks an address: http or https to a host by name, or to one of the `published` ports of this machine, in characters that need no quoting.
///
/// # Errors
/// See [`UrlError`].
pub fn url(text: &str, published: &[u16]) -> Result<(), UrlError> {
    let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
    let usual = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return Err(UrlError::Scheme),
    };
    if text.len() > MAX_URL {
        return Err(UrlError::Long);
    }
    // RFC 3986, without what shells and terminals read otherwise.
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/?#@!$&()*+,;=%".contains(&b);
    if !text.bytes().all(fine) {
        return Err(UrlError::Character);
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    if authority.contains('@') {
        return Err(UrlError::User);
    }
    let (host, port) = match authority.split_once(':') {
        None => (authority, usual),
        Some((host, port)) => {
            let digits = port.bytes().all(|b| b.is_ascii_digit());
            (host, port.parse().ok().filter(|port| digits && *port != 0).ok_or(UrlError::Port)?)
        }
    };
    let local = match host.parse::<Name>() {
        Ok(name) => {
            name.as_str() == "localhost" || name.as_str().ends_with(".localhost") || !name.as_str().contains('.')
        }
        Err(NameError::Address) => true,
        Err(_) => return Err(UrlError::Host),
    };
    match host {
        "localhost" | "127.0.0.1" if published.contains(&port) => Ok(()),
        _ if local => Err(UrlError::Local),
        _ => Ok(()),
    }
}

/// How an address was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// By the person's browser.
    Yes,
    /// There is no program that could.
    NoProgram,
    /// It said no.
    Failed,
}

/// Has the desktop open an address that was checked.
pub(crate) fn open(address: &str, settings: &Settings) -> Opened {
    let mut command = child::command("xdg-open", settings);
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Its own group: what ends us does not end the browser.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let Ok(mut child) = command.spawn() else { return Opened::NoProgram };
    let end = Instant::now() + PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Opened::Yes,
            Ok(Some(_)) | Err(_) => return Opened::Failed,
            // Some are the browser themselves.
            Ok(None) if Instant::now() > end => return Opened::Yes,
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// The desktop's clipboard: Wayland's, else X's.
fn clipboard(wayland: &[&str], x: &[&str], settings: &Settings) -> Result<Command, String> {
    let set = |name: &str| settings.env.get(name).is_some_and(|value| !value.is_empty());
    let (program, arguments) = match (set("WAYLAND_DISPLAY"), set("DISPLAY")) {
        (true, _) => ("wl-paste", wayland),
        (false, true) => ("xclip", x),
        (false, false) => return Err("there is no desktop here: neither WAYLAND_DISPLAY nor DISPLAY is set".to_owned()),
    };
    let mut command = child::command(program, settings);
    command.args(arguments);
    Ok(command)
}

/// Whether there is an image in PNG.
pub(crate) fn has_image(settings: &Settings) -> Result<bool, String> {
    let command = clipboard(&["--list-types"], &["-selection", "clipboard", "-t", "TARGETS", "-o"], settings)?;
    match child::run(command, b"", 64 << 10, PATIENCE) {
        Ok(text) => Ok(text.split(|b| *b == b'\n').any(|line| line == b"image/png")),
        // An empty clipboard.
        Err(ChildError::Failed) => Ok(false),
        Err(error) => Err(said(&error)),
    }
}

fn said(error: &ChildError) -> String {
    format!("the clipboard's program on the host {error}")
}

/// The image.
pub(crate) fn image(settings: &Settings) -> Result<Zeroizing<Vec<u8>>, String> {
    let wayland = ["--no-newline", "--type", "image/png"];
    let command = clipboard(&wayland, &["-selection", "clipboard", "-t", "image/png", "-o"], settings)?;
    let image = child::run(command, b"", MAX_IMAGE, PATIENCE).map_err(|error| said(&error))?;
    // Whatever the programs say it is: text must not pass.
    if is_png(&image) { Ok(image) } else { Err("what is in the clipboard is no image in PNG".to_owned()) }
}

/// PNG (third edition), sections 5.2 and 11.2.2: the signature, then the header's chunk.
#[must_use]
pub fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_lines_of_our_own_programs() {
        let id = "0123456789abcdef";
        let of = |text: &str| question(text.as_bytes()).map(|question| format!("{:?}", question.what));
        assert_eq!(of(&format!("{id} image")).as_deref(), Some("Image"));
        assert_eq!(of(&format!("{id} has-image")).as_deref(), Some("HasImage"));
        assert_eq!(of(&format!("{id} sign-part eA==")).as_deref(), Some("Part(\"eA==\")"));
        assert_eq!(of(&format!("{id} sign")).as_deref(), Some("Sign"));
        assert_eq!(of(&format!("{id} open https://a.test/")).as_deref(), Some("Open(\"https://a.test/\")"));
        for text in [
            "",
            id,
            "../../../../x image",
            "a/b/c/d/e image",
            "short image",
            &format!("{id} image x"),
            &format!("{id} text"),
        ] {
            assert_eq!(of(text), None, "{text}");
        }
        assert_eq!(question(b"0123456789 open \xff"), None);
    }

    #[test]
    fn addresses_lead_to_the_web_and_nowhere_else() {
        let published = [8080];
        for text in [
            "https://example.com",
            "http://example.com:8000/a?b=c&d#e",
            "https://a.example/x%20y/~me/(1)?redirect=https://b.example/",
            "http://localhost:8080/",
            "http://127.0.0.1:8080",
        ] {
            assert_eq!(url(text, &published), Ok(()), "{text}");
        }
        for (text, why) in [
            ("", UrlError::Scheme),
            ("example.com", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Scheme),
            ("javascript:alert(1)", UrlError::Scheme),
            ("javascript://example.com/%0aalert(1)", UrlError::Scheme),
            ("HTTPS://example.com", UrlError::Scheme),
            ("-https://example.com", UrlError::Scheme),
            ("https://", UrlError::Host),
            ("https:///x", UrlError::Host),
            ("https://a b.example", UrlError::Character),
            ("https://a.example/\"", UrlError::Character),
            ("https://a.example/'", UrlError::Character),
            ("https://a.example/`id`", UrlError::Character),
            ("https://a.example/\x1b[31m", UrlError::Character),
            ("https://a.example\\@b.example", UrlError::Character),
            ("https://ä.example", UrlError::Character),
            ("https://[::1]:8080/", UrlError::Character),
            ("https://user@a.example/", UrlError::User),
            ("https://user:word@a.example/", UrlError::User),
            ("https://a.example:0/", UrlError::Port),
            ("https://a.example:/", UrlError::Port),
            ("https://a.example:+80/", UrlError::Port),
            ("https://a.example:99999/", UrlError::Port),
            ("http://localhost/", UrlError::Local),
            ("http://localhost:8081/", UrlError::Local),
            ("http://LOCALHOST:631/", UrlError::Local),
            ("http://x.localhost:8080/", UrlError::Local),
            ("http://127.0.0.1/", UrlError::Local),
            ("http://127.1:8080/", UrlError::Local),
            ("http://2130706433/", UrlError::Local),
            ("http://0x7f000001/", UrlError::Local),
            ("http://router/", UrlError::Local),
            ("http://192.168.1.1/", UrlError::Local),
        ] {
            assert_eq!(url(text, &published), Err(why), "{text}");
        }
        assert_eq!(url(&format!("https://a.example/{}", "x".repeat(MAX_URL)), &[]), Err(UrlError::Long));
    }

    #[test]
    fn images_are_told_from_text() {
        assert!(is_png(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x01"));
        for other in [&b""[..], b"text", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\nsecret text that is no chunk"] {
            assert!(!is_png(other));
        }
    }
}
