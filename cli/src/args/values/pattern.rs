//! Patterns for files of a project, as gitignore writes them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::ValueError;

/// A pattern: `.env`, `config/*.key`, `**/secrets`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MaskPattern {
    text: String,
    /// Its names, from the project's root; `**` stands for any number of folders.
    parts: Vec<String>,
}

impl FromStr for MaskPattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bare = text.strip_suffix('/').unwrap_or(text);
        let rooted = bare.strip_prefix('/').unwrap_or(bare);
        let mut parts: Vec<String> = rooted.split('/').map(str::to_owned).collect();
        let bad = |part: &String| part.is_empty() || part == "." || part == ".." || part.contains(['\0', '[', '\\']);
        if text.starts_with('!') || parts.iter().any(bad) || parts.iter().all(|part| part == "**" || part == "*") {
            return Err(ValueError::Pattern);
        }
        if !bare.contains('/') {
            parts.insert(0, "**".to_owned());
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

impl fmt::Display for MaskPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl MaskPattern {
    /// The one path it can mean, if it is one.
    pub(crate) fn exact(&self) -> Option<PathBuf> {
        let plain = self.parts.iter().all(|part| !part.contains(['*', '?']));
        plain.then(|| self.parts.iter().collect())
    }

    /// Whether it means `path`, which is relative to the project's root.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        // A name that is no text matches no letters, but `*`.
        let names: Vec<_> = path.iter().map(|name| name.to_string_lossy()).collect();
        let names: Vec<&str> = names.iter().map(|name| name.as_ref()).collect();
        path_matches(&self.parts, &names)
    }
}

fn path_matches(parts: &[String], names: &[&str]) -> bool {
    match (parts, names) {
        ([], []) => true,
        ([first, rest @ ..], _) if first == "**" => (0..=names.len()).any(|n| path_matches(rest, &names[n..])),
        ([first, rest @ ..], [name, names @ ..]) => name_matches(first, name) && path_matches(rest, names),
        _ => false,
    }
}

/// `*` and `?` in one name. Takes time in the product of both lengths at worst.
fn name_matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stands, and how far it reaches by now.
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, reach)) => {
                    star = Some((at, reach + 1));
                    p = at + 1;
                    n = reach + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_gitignore_means() {
        for (pattern, yes, no) in [
            (".env", &[".env", "a/.env", "a/b/.env"][..], &["x.env", ".env.local", ".env/x"][..]),
            (".env.*", &[".env.local", "a/.env.x"], &[".env", "a.env.x"]),
            ("**/.env", &[".env", "a/b/.env"], &[".envs"]),
            ("/.env", &[".env"], &["a/.env"]),
            ("config/*.key", &["config/a.key"], &["a/config/a.key", "config/b/a.key", "config/a.keys"]),
            ("a/**/b", &["a/b", "a/x/y/b"], &["a", "b", "x/a/b"]),
            ("secrets/", &["secrets", "a/secrets"], &["secrets2"]),
            ("*.pem", &["a.pem", "b/.pem"], &["a.pem2"]),
            ("?a*b*", &["xab", "xayby"], &["ab", "xa"]),
        ] {
            let pattern: MaskPattern = pattern.parse().expect(pattern);
            yes.iter().for_each(|path| assert!(pattern.matches(Path::new(path)), "{pattern} {path}"));
            no.iter().for_each(|path| assert!(!pattern.matches(Path::new(path)), "{pattern} {path}"));
        }
        for pattern in ["", "/", "!x", "../x", "a//b", "*", "**", "**/*", "a/./b", "[ab]", "a\\b"] {
            assert_eq!(pattern.parse::<MaskPattern>(), Err(ValueError::Pattern), "{pattern}");
        }
        let exact = |text: &str| text.parse::<MaskPattern>().expect(text).exact();
        assert_eq!(exact("a/b.key"), Some("a/b.key".into()));
        assert_eq!(exact("/.env"), Some(".env".into()));
        assert_eq!((exact(".env"), exact("a/*.key")), (None, None));
    }
}
