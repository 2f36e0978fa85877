//! git's own reading of a configuration, letter by letter (`config.c`: `git_parse_source`, `get_base_var`, `get_value`, `parse_value`), to hold
//! `permits` against. `None` for what git refuses.

/// A value: the section and what is in quotes behind it, the variable, the value.
pub(crate) type Entry = (String, String, String, String);

/// All values of `bytes`, in their order.
pub(crate) fn read(bytes: &[u8]) -> Option<Vec<Entry>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut source = Source { bytes, at: 0 };
    let mut entries = Vec::new();
    let (mut section, mut comment) = (None, false);
    while let Some(c) = source.next() {
        match c {
            b'\n' => comment = false,
            _ if comment || c.is_ascii_whitespace() => {}
            b'#' | b';' => comment = true,
            b'[' => section = Some(source.header()?),
            c if c.is_ascii_alphabetic() => {
                let (name, below): &(String, String) = section.as_ref()?;
                let mut key = String::from(char::from(c.to_ascii_lowercase()));
                let value = source.value(&mut key)?;
                entries.push((name.clone(), below.clone(), key, value));
            }
            _ => return None,
        }
    }
    Some(entries)
}

struct Source<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Source<'_> {
    /// A line's end is one letter, whatever it is in the file.
    fn next(&mut self) -> Option<u8> {
        let c = *self.bytes.get(self.at)?;
        self.at += 1;
        if c == b'\r' && self.bytes.get(self.at) == Some(&b'\n') {
            self.at += 1;
            return Some(b'\n');
        }
        Some(c)
    }

    fn header(&mut self) -> Option<(String, String)> {
        let (mut name, mut below) = (Vec::new(), Vec::new());
        loop {
            match self.next()? {
                b']' => return Some((String::from_utf8(name).ok()?, String::new())),
                c if c.is_ascii_whitespace() => break,
                c if c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.') => name.push(c.to_ascii_lowercase()),
                _ => return None,
            }
            // From here on a space, and then quotes.
        }
        loop {
            match self.next()? {
                b'\n' => return None,
                c if c.is_ascii_whitespace() => {}
                b'"' => break,
                _ => return None,
            }
        }
        loop {
            match self.next()? {
                b'\n' => return None,
                b'"' => break,
                b'\\' => match self.next()? {
                    b'\n' => return None,
                    c => below.push(c),
                },
                c => below.push(c),
            }
        }
        (self.next()? == b']').then_some(())?;
        Some((String::from_utf8(name).ok()?, String::from_utf8_lossy(&below).into_owned()))
    }

    fn value(&mut self, key: &mut String) -> Option<String> {
        let mut c = self.next();
        while let Some(letter) = c.filter(|c| c.is_ascii_alphanumeric() || *c == b'-') {
            key.push(char::from(letter.to_ascii_lowercase()));
            c = self.next();
        }
        while matches!(c, Some(b' ' | b'\t')) {
            c = self.next();
        }
        match c {
            None | Some(b'\n') => Some("true".to_owned()),
            Some(b'=') => self.text(),
            Some(_) => None,
        }
    }

    fn text(&mut self) -> Option<String> {
        let (mut value, mut quoted, mut comment, mut kept) = (Vec::new(), false, false, 0);
        loop {
            match self.next() {
                None | Some(b'\n') if quoted => return None,
                None | Some(b'\n') => break,
                Some(_) if comment => {}
                Some(c) if c.is_ascii_whitespace() && !quoted => {
                    if !value.is_empty() {
                        value.push(c);
                    }
                }
                Some(b';' | b'#') if !quoted => comment = true,
                Some(b'\\') => {
                    match self.next()? {
                        b'\n' => continue,
                        b't' => value.push(b'\t'),
                        b'b' => value.push(8),
                        b'n' => value.push(b'\n'),
                        c @ (b'\\' | b'"') => value.push(c),
                        _ => return None,
                    }
                    kept = value.len();
                }
                Some(b'"') => {
                    quoted = !quoted;
                    kept = value.len();
                }
                Some(c) => {
                    value.push(c);
                    kept = value.len();
                }
            }
        }
        value.truncate(kept);
        Some(String::from_utf8_lossy(&value).into_owned())
    }
}

/// What must hold of whatever is permitted, as git reads both.
pub(crate) fn agrees(old: &[u8], new: &[u8]) {
    let (Some(old), new) = (read(old), read(new)) else { return };
    let new = new.expect("what git could read, it can still read");
    let others = |all: &[Entry]| all.iter().filter(|entry| entry.0 != "branch").cloned().collect::<Vec<_>>();
    assert_eq!(others(&old), others(&new));
    let remotes: Vec<&str> = old.iter().filter(|e| e.0 == "remote" && e.2 == "url").map(|e| e.1.as_str()).collect();
    for entry @ (section, _, key, value) in &new {
        if section != "branch" || old.contains(entry) {
            continue;
        }
        match key.as_str() {
            "remote" => assert!(value == "." || remotes.contains(&value.as_str()), "{entry:?}"),
            "merge" => assert!(
                value.starts_with("refs/") || old.iter().any(|e| e.0 == "branch" && e.2 == "merge" && e.3 == *value),
                "{entry:?}"
            ),
            "rebase"
            | "description"
            | "gh-merge-base"
            | "vscode-merge-base"
            | "github-pr-base-branch"
            | "github-pr-owner-number" => {}
            other => panic!("{other}: {entry:?}"),
        }
    }
}
