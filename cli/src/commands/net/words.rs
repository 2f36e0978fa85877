//! A line of the audit, for people. What stands in one may come from the cell: nothing of it is obeyed by a terminal.

use cellblock_egress::audit::{Event, Line, Process, Protocol, Verdict, is_hidden};

use crate::output::Style;

/// Text fit for a terminal: control characters are shown, and so are those that have no looks of their own or turn the writing around.
pub(super) fn shown(text: &str) -> String {
    crate::output::plain(text)
}

/// The line as JSON that is safe to look at: JSON itself escapes only the first 32 control characters (RFC 8259, section 7).
pub(super) fn json(line: &Line) -> String {
    let text = serde_json::to_string(line).unwrap_or_default();
    let escaped = |c: char| {
        let mut units = [0; 2];
        c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>()
    };
    text.chars().map(|c| if is_hidden(c) { escaped(c) } else { c.to_string() }).collect::<String>() + "\n"
}

/// The line, without a newline.
pub(super) fn line(line: &Line, style: Style) -> String {
    let verdict = match line.verdict {
        Verdict::Allow => style.green("allow"),
        Verdict::Deny => style.red("deny "),
    };
    let mut text = format!("{}  {verdict}  {}", time(&line.time), shown(&subject(line)));
    if let Some(why) = line.why.as_ref().filter(|_| line.event != Event::Start) {
        text += &format!("  {}", shown(why));
    }
    if let Some(rule) = line.rule.as_ref().filter(|_| line.event != Event::Policy) {
        let origin = line.origin.as_ref().map(|o| format!(", {}", shown(o))).unwrap_or_default();
        text += &style.cyan(&format!("  [{}{origin}]", shown(rule)));
    }
    if let Some(process) = &line.process {
        text += &format!("  (by {})", by(process));
    }
    if let Some(count) = line.count {
        text += &format!("  ({count} more)");
    }
    text
}

/// The program that asked, `curl[12]`. It chooses its name itself.
pub(super) fn by(process: &Process) -> String {
    format!("{}[{}]", shown(&process.name), process.pid)
}

/// `2026-01-02T03:04:05Z`; something else is shown as it is.
fn time(text: &str) -> String {
    humantime::parse_rfc3339(text)
        .map_or_else(|_| shown(text), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// What it is about.
fn subject(line: &Line) -> String {
    match line.event {
        Event::Start => format!("network begins: {}", line.why.as_deref().unwrap_or("")),
        Event::Dns => {
            let kind = line.method.as_ref().map(|m| format!(" {m}")).unwrap_or_default();
            format!("look-up {}{kind}", line.name.as_deref().unwrap_or("?"))
        }
        Event::Connect => {
            let behind = line.address.filter(|_| line.name.is_some()).map(|a| format!(" ({a})")).unwrap_or_default();
            let protocol = line.protocol.map(|p| format!(" {}", protocol(p))).unwrap_or_default();
            format!("{}{behind}{protocol}", place(line))
        }
        Event::Request => {
            let (scheme, usual) = if line.protocol == Some(Protocol::Http) { ("http", 80) } else { ("https", 443) };
            let method = line.method.as_deref().unwrap_or("?");
            let place = place(&Line { port: line.port.filter(|port| *port != usual), ..line.clone() });
            format!("{method} {scheme}://{place}{}", line.path.as_deref().unwrap_or(""))
        }
        Event::End => {
            let bytes = |n: Option<u64>| indicatif::HumanBytes(n.unwrap_or(0)).to_string();
            let time = line.ms.map(|ms| format!(", {}.{:03} s", ms / 1000, ms % 1000)).unwrap_or_default();
            format!("{} ended: {} up, {} down{time}", place(line), bytes(line.up), bytes(line.down))
        }
        Event::Agent => format!("ssh agent {}", line.name.as_deref().unwrap_or("")),
        Event::Signature => format!("signature {}", line.name.as_deref().unwrap_or("")),
        Event::Credentials => {
            let place = place(&Line { port: line.port.filter(|port| *port != 443), ..line.clone() });
            format!("git credentials for https://{place}{}", line.path.as_deref().unwrap_or(""))
        }
        Event::Clipboard => "clipboard".to_owned(),
        Event::Open => format!("browser {}", line.path.as_deref().unwrap_or("")),
        Event::Publish => format!("published port: {}", place(line)),
        Event::Policy => {
            let origin = line.origin.as_ref().map(|o| format!(", by {o}")).unwrap_or_default();
            format!("rule: {}{origin}", line.rule.as_deref().unwrap_or("?"))
        }
    }
}

/// `example.com:443`, `[2001:db8::1]:443`, or what of it is known.
pub(super) fn place(line: &Line) -> String {
    let host = match (&line.name, line.address) {
        (Some(name), _) => name.clone(),
        (None, Some(address)) if address.is_ipv6() => format!("[{address}]"),
        (None, Some(address)) => address.to_string(),
        (None, None) => "somewhere".to_owned(),
    };
    line.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Dns => "dns",
        Protocol::Tls => "tls",
        Protocol::Https => "https",
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
    }
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
