//! Lists of cellblock's own that are data: sections of words with a reason each, in the language of the configuration.

use super::problem::Problem;
use super::tree::{self, Kind};

/// A row of such a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// The section it stands in.
    pub(crate) section: String,
    /// What the row is about.
    pub(crate) key: String,
    /// The reason.
    pub(crate) why: String,
}

/// The rows of a list, in order; with everything that is no row as a problem.
pub(crate) fn rows(text: &str) -> (Vec<Row>, Vec<Problem>) {
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    let root = match tree::parse(text, &mut problems) {
        Ok(root) => root,
        Err(problem) => return (rows, vec![problem]),
    };
    let Kind::Map(sections) = root.kind else {
        return (rows, vec![Problem::new(root.at, "a list has sections")]);
    };
    for (section, node) in sections {
        let Kind::Map(entries) = node.kind else {
            problems.push(Problem::new(node.at, "a section has rows"));
            continue;
        };
        for (key, node) in entries {
            match node.kind {
                Kind::Scalar { text: why, .. } => {
                    rows.push(Row { section: section.text.clone(), key: key.text, why });
                }
                _ => problems.push(Problem::new(node.at, "a row has a reason")),
            }
        }
    }
    (rows, problems)
}
