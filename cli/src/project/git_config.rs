//! git's configuration files, read without git (git-config(1), "Syntax"). They are hostile input: a repository brings its own.
//!
//! Reading is lenient, as it only serves to protect more or to copy a name: what git would refuse ends it, and what came before counts.

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The section, in lower case.
    pub(crate) section: String,
    /// The subsection, as written; empty if there is none.
    pub(crate) subsection: String,
    /// The variable, in lower case.
    pub(crate) key: String,
    /// The value; a variable without `=` is true.
    pub(crate) value: String,
}

impl Entry {
    /// Whether it is `section.key`, in whatever subsection.
    pub(crate) fn is(&self, section: &str, key: &str) -> bool {
        self.section == section && self.key == key
    }
}

/// The values of a file, in its order.
pub(crate) fn parse(text: &str) -> Vec<Entry> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { rest: text.chars().peekable() };
    let mut entries = Vec::new();
    let (mut section, mut subsection) = (String::new(), String::new());
    while let Some(c) = reader.rest.peek().copied() {
        match c {
            '#' | ';' => reader.skip_line(),
            '[' => match reader.header() {
                Some(header) => (section, subsection) = header,
                None => break,
            },
            c if c.is_whitespace() => {
                reader.rest.next();
            }
            c if c.is_ascii_alphabetic() && !section.is_empty() => match reader.variable() {
                Some((key, value)) => {
                    entries.push(Entry { section: section.clone(), subsection: subsection.clone(), key, value });
                }
                None => break,
            },
            _ => break,
        }
    }
    entries
}

struct Reader<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
}

impl Reader<'_> {
    fn skip_line(&mut self) {
        while self.rest.next().is_some_and(|c| c != '\n') {}
    }

    fn word(&mut self, also: char) -> String {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == also) {
            word.push(c.to_ascii_lowercase());
        }
        word
    }

    fn blanks(&mut self) {
        while self.rest.next_if(|c| matches!(c, ' ' | '\t' | '\r')).is_some() {}
    }

    /// `[section]`, `[section "subsection"]`, or the old `[section.subsection]`.
    fn header(&mut self) -> Option<(String, String)> {
        self.rest.next();
        let word = self.word('.');
        let (section, mut subsection) = match word.split_once('.') {
            Some((section, subsection)) => (section.to_owned(), subsection.to_owned()),
            None => (word, String::new()),
        };
        self.blanks();
        if self.rest.next_if_eq(&'"').is_some() {
            loop {
                match self.rest.next()? {
                    '"' => break,
                    '\n' => return None,
                    '\\' => subsection.push(self.rest.next().filter(|c| *c != '\n')?),
                    c => subsection.push(c),
                }
            }
        }
        (self.rest.next()? == ']' && !section.is_empty()).then_some((section, subsection))
    }

    fn variable(&mut self) -> Option<(String, String)> {
        let key = self.word('-');
        self.blanks();
        match self.rest.peek() {
            Some('=') => {
                self.rest.next();
                self.blanks();
                Some((key, self.value()?))
            }
            None | Some('\n' | '#' | ';') => Some((key, "true".to_owned())),
            Some(_) => None,
        }
    }

    fn value(&mut self) -> Option<String> {
        let (mut value, mut quoted) = (String::new(), false);
        // Blanks at the end count only in quotes.
        let mut kept = 0;
        loop {
            match self.rest.next() {
                None | Some('\n') if quoted => return None,
                None | Some('\n') => break,
                Some('"') => {
                    quoted = !quoted;
                    kept = value.len();
                }
                Some('#' | ';') if !quoted => {
                    self.skip_line();
                    break;
                }
                Some('\\') => {
                    match self.rest.next()? {
                        // The line goes on.
                        '\n' => continue,
                        '\r' if self.rest.next_if_eq(&'\n').is_some() => continue,
                        'n' => value.push('\n'),
                        't' => value.push('\t'),
                        'b' => value.push('\u{8}'),
                        c @ ('"' | '\\') => value.push(c),
                        _ => return None,
                    }
                    kept = value.len();
                }
                Some(c) => {
                    value.push(c);
                    if quoted || !matches!(c, ' ' | '\t' | '\r') {
                        kept = value.len();
                    }
                }
            }
        }
        value.truncate(kept);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let line = |e: &Entry| format!("{}|{}|{}={}", e.section, e.subsection, e.key, e.value);
        parse(text).iter().map(line).collect()
    }

    #[test]
    fn what_git_writes_and_takes() {
        let text = "\u{feff}# c\n[Core]\n\tbare = false ; c\n\thooksPath = \"a b \" # c\n\tflag\n[remote \"o\\\"r\\\\x\"] url = x\\\n y\n\
                    [Include.Sub]\nPath=~/x\\t\\\"\r\n[user]name=A  B  \n";
        assert_eq!(
            lines(text),
            [
                "core||bare=false",
                "core||hookspath=a b ",
                "core||flag=true",
                "remote|o\"r\\x|url=x y",
                "include|sub|path=~/x\t\"",
                "user||name=A  B",
            ]
        );
    }

    #[test]
    fn what_git_refuses_ends_it() {
        for bad in ["= 1", "[a\nb=1", "[a] b = \"open\nc=1", "[a] b = \\q", "[a \"x\ny\"]", "[]", "[a] 1=2", "[a] b c"]
        {
            let got = lines(&format!("[ok]\nk=v\n{bad}\n[z] y=1"));
            assert_eq!(got, ["ok||k=v"], "{bad}");
        }
        assert_eq!(lines("x = 1\n[z] y=1"), [""; 0]);
        assert_eq!(lines(""), [""; 0]);
    }

    #[test]
    fn nothing_makes_it_fall_over() {
        // A small generator, so that the same inputs come every time.
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 40).unwrap_or_default()
        };
        let pieces = ["[", "]", "\"", "\\", "\n", "\r\n", "=", " ", "a", "Core", "#", ";", "é", "\u{0}", "."];
        for _ in 0..20_000 {
            let text: String = (0..next() % 24).map(|_| pieces[next() % pieces.len()]).collect();
            assert!(parse(&text).len() <= text.len());
        }
    }
}
