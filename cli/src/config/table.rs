//! Lists of cellblock's own that are data: sections of words with a reason each.
//!
//! They are YAML, so that editors and people know them, and are read at every start, where a YAML parser would cost a tenth of it
//! (docs/performance.md). So they keep to the least of YAML, which takes a pass over lines; a test compares with what a YAML parser reads.

/// A row of such a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The section it stands in.
    pub(crate) section: &'static str,
    /// What the row is about.
    pub(crate) key: &'static str,
    /// The reason.
    pub(crate) why: &'static str,
}

/// The rows of a list, in order: `section:` at the beginning of a line, `  key: reason` below it, comments on lines of their own.
///
/// # Panics
/// If a line is anything else: lists are part of the program, and one that is not read must not pass for an empty one.
pub(crate) fn rows(text: &'static str) -> impl Iterator<Item = Row> {
    let (mut section, mut rest, mut at) = ("", text, 0);
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let end = rest.bytes().position(|byte| byte == b'\n').unwrap_or(rest.len());
            let line = &rest[..end];
            (rest, at) = (rest.get(end + 1..).unwrap_or_default(), at + 1);
            if line.is_empty() || is_comment(line) {
                continue;
            }
            if let Some(row) = line.strip_prefix("  ") {
                // A key in quotes may have a colon, and begin with what means something to YAML.
                let quoted = row.strip_prefix('"').and_then(|row| row.split_once("\": "));
                let cut = quoted.or_else(|| cut(row)).filter(|_| !section.is_empty() && !row.starts_with(' '));
                let Some((key, why)) = cut else { panic!("line {at} of a list is no row: {line}") };
                return Some(Row { section, key, why });
            }
            let Some(name) = line.strip_suffix(':') else { panic!("line {at} of a list begins no section: {line}") };
            section = name;
        }
        None
    })
}

fn is_comment(line: &str) -> bool {
    line.bytes().find(|byte| *byte != b' ') == Some(b'#')
}

/// `split_once(": ")`, whose searcher takes longer to make than such a line to search.
fn cut(row: &str) -> Option<(&str, &str)> {
    let at = row.as_bytes().windows(2).position(|two| matches!(two, b": "))?;
    Some((&row[..at], &row[at + 2..]))
}

#[cfg(test)]
mod tests {
    use super::super::tree::{self, Kind};
    use super::*;

    /// What a YAML parser reads.
    fn by_parser(text: &str) -> Vec<(String, String, String)> {
        let mut problems = Vec::new();
        let root = tree::parse(text, &mut problems).expect("YAML");
        assert_eq!(problems, [], "no key twice");
        let Kind::Map(sections) = root.kind else { panic!("a list has sections") };
        let rows = |(section, node): (tree::Key, tree::Node)| {
            let Kind::Map(entries) = node.kind else { panic!("a section has rows") };
            entries.into_iter().map(move |(key, node)| match node.kind {
                Kind::Scalar { text, .. } => (section.text.clone(), key.text, text),
                _ => panic!("a row has a reason"),
            })
        };
        sections.into_iter().flat_map(rows).collect()
    }

    #[test]
    fn every_list_is_read_as_a_yaml_parser_reads_it() {
        for text in [include_str!("../../data/protected.yaml"), include_str!("../../data/secret-paths.yaml")] {
            let read: Vec<_> =
                rows(text).map(|row| (row.section.to_owned(), row.key.to_owned(), row.why.to_owned())).collect();
            assert_eq!(read, by_parser(text));
            assert!(read.len() > 30, "{}", read.len());
        }
    }

    #[test]
    #[should_panic(expected = "line 2 of a list is no row")]
    fn what_is_no_row_is_no_empty_list() {
        rows("a:\n  b\n").for_each(drop);
    }
}
