//! Files of domains, one a line: plain names, our own rules, and tinyproxy's regular expressions where they are plain names in disguise.

use super::rule::{Entry, Ports, Rule, RuleError, Target};
use super::{Sourced, Written};
use crate::name::Pattern;

/// Why a filter file is not taken: the line, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct FilterError {
    /// Counted from one.
    pub line: usize,
    /// What is wrong.
    pub what: FilterProblem,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterProblem {
    /// Not a rule either.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A regular expression that is more than a name.
    #[error(
        "{0:?} is a regular expression that no name rule can express; write the names it is meant for, such as *.example.com"
    )]
    Expression(String),
    /// Not text.
    #[error("the line is not UTF-8")]
    NotUtf8,
}

/// Reads a filter file; `origin` is its path, for messages and listings. Comments begin with `#`. A file without lines allows nothing.
///
/// # Errors
/// The first line that cannot be taken.
pub fn parse(bytes: &[u8], origin: &str) -> Result<Vec<Written>, FilterError> {
    let mut entries = Vec::new();
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let failed = |what| FilterError { line: index + 1, what };
        let line = std::str::from_utf8(line).map_err(|_| failed(FilterProblem::NotUtf8))?;
        let text = line.split('#').next().unwrap_or(line).trim();
        if text.is_empty() {
            continue;
        }
        let found = entry(text).map_err(failed)?;
        entries.extend(found.into_iter().map(|entry| Written { entry, origin: format!("{origin}:{}", index + 1) }));
    }
    Ok(entries)
}

fn entry(text: &str) -> Result<Vec<Entry>, FilterProblem> {
    if !text.contains(['\\', '^', '$', '(', '|', '+', '?']) {
        return Ok(vec![text.parse()?]);
    }
    let plain = |host: &str| host.replace("\\.", ".");
    // tinyproxy's documentation and what people write: ^name$, name$, (^|\.)name$, ^(.*\.)?name$, \.name$
    let body = text.strip_suffix('$').unwrap_or(text);
    let both = ["(^|\\.)", "^(.*\\.)?", "(^|.*\\.)", "^(.+\\.)?"].iter().find_map(|prefix| body.strip_prefix(prefix));
    let below = ["\\.", ".*\\.", "^.*\\.", "^.+\\."].iter().find_map(|prefix| body.strip_prefix(prefix));
    let exact = body.strip_prefix('^').unwrap_or(body);
    let (host, with_own, with_below) = match (both, below) {
        (Some(host), _) => (host, true, true),
        (None, Some(host)) => (host, false, true),
        (None, None) => (exact, true, false),
    };
    let host = plain(host);
    if host.contains(['\\', '^', '$', '(', ')', '|', '+', '?', '*', '[', ']', '{', '}']) {
        return Err(FilterProblem::Expression(text.to_owned()));
    }
    let rule = |pattern: String| -> Result<Entry, FilterProblem> {
        let pattern: Pattern = pattern.parse().map_err(|e| RuleError::Name(pattern.clone(), e))?;
        Ok(Entry::Rule(Rule { listed: Some(Ports::web()), ..Rule::new(Target::Names(pattern)) }))
    };
    let own = with_own.then(|| rule(host.clone()));
    let children = with_below.then(|| rule(format!("*.{host}")));
    own.into_iter().chain(children).collect()
}

/// The rules as a filter file again, one a line, with where each comes from.
#[must_use]
pub fn write(rules: &[Sourced]) -> String {
    rules.iter().map(|r| format!("{:40} # {}\n", r.rule.to_string(), r.origin)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str) -> Vec<String> {
        parse(file.as_bytes(), "f").expect("a filter").iter().map(|w| format!("{} {}", w.origin, w.entry)).collect()
    }

    #[test]
    fn names_rules_and_disguised_names() {
        assert_eq!(
            texts(
                "# what is needed\nexample.com\n*.example.com:443   # below\n\n@npm\n^a\\.example\\.com$\n(^|\\.)b\\.example$\n\\.c\\.example$\n\
                 ^(.*\\.)?d\\.example$\r\ne\\.example\n10.0.0.0/8:5432"
            ),
            [
                "f:2 example.com",
                "f:3 *.example.com:443",
                "f:5 @npm",
                "f:6 a.example.com:80,443",
                "f:7 b.example:80,443",
                "f:7 *.b.example:80,443",
                "f:8 *.c.example:80,443",
                "f:9 d.example:80,443",
                "f:9 *.d.example:80,443",
                "f:10 e.example:80,443",
                "f:11 10.0.0.0/8:5432",
            ]
        );
        assert_eq!(texts(""), [""; 0]);
        assert_eq!(texts("# only words\n\n"), [""; 0]);
    }

    #[test]
    fn more_than_a_name_is_an_error_with_its_line() {
        for line in
            ["^(a|b)\\.example$", ".*", "[ab]\\.example\\.com$", "a+\\.example", "^.*$", "a.example?", "google\\..*"]
        {
            let error = parse(format!("ok.example\n{line}\n").as_bytes(), "f").expect_err(line);
            assert_eq!(error.line, 2, "{line}: {error}");
        }
        assert_eq!(parse(b"a.example\n\xff\n", "f").expect_err("bytes").what, FilterProblem::NotUtf8);
        assert!(matches!(parse(b"a b\n", "f").expect_err("words").what, FilterProblem::Rule(_)));
    }
}
