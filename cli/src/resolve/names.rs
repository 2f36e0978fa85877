//! Names of cells: `<project>-<branch>-<agent>`.

use cellblock_bundle::cell::MAX_NAME;
use sha2::{Digest, Sha256};

use crate::project::{Head, ProjectFacts, sanitise};

/// The name of a cell that was given none. `word` is the agent's or the command's.
pub(crate) fn default_name(project: Option<&ProjectFacts>, word: &str) -> String {
    let branch = project.and_then(|project| match &project.head {
        Head::Branch(name) | Head::Detached(name) => Some(sanitise(name)),
        Head::Unknown => None,
    });
    let parts = [project.map(|project| project.name.clone()), branch, Some(sanitise(word))];
    let parts: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "cell".to_owned() } else { fit(parts.join("-"), MAX_NAME) }
}

/// `name` with `-number` behind it, for when `name` is taken.
pub(crate) fn numbered(name: &str, number: u32) -> String {
    let tail = format!("-{number}");
    fit(name.to_owned(), MAX_NAME - tail.len()) + &tail
}

/// `name` in at most `most` bytes; what is cut off is still told apart by six digits of its hash.
fn fit(name: String, most: usize) -> String {
    if name.len() <= most {
        return name;
    }
    let digest = Sha256::digest(name.as_bytes());
    let mark = format!("-{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2]);
    let cut = name[..most - mark.len()].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
    format!("{cut}{mark}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::values::cell_name;

    fn project(name: &str, head: Head) -> ProjectFacts {
        ProjectFacts {
            root: "/w".into(),
            elsewhere: None,
            canonical_root: "/w".into(),
            cwd: "/w".into(),
            id: String::new(),
            name: name.into(),
            head,
            git: None,
        }
    }

    #[test]
    fn names_say_project_branch_and_agent() {
        let cases = [
            ("web", Head::Branch("feature/Login".into()), "claude-code", "web-feature-login-claude-code"),
            ("web", Head::Detached("0123456".into()), "sh", "web-0123456-sh"),
            ("web", Head::Unknown, "My Tool.sh", "web-my-tool.sh"),
            ("", Head::Branch("日本".into()), "sh", "sh"),
            ("", Head::Unknown, "-", "cell"),
        ];
        for (name, head, word, want) in cases {
            let got = default_name(Some(&project(name, head)), word);
            assert_eq!(got, want);
            assert!(cell_name(&got).is_ok(), "{got}");
        }
        assert_eq!(default_name(None, "sh"), "sh");
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let long =
            |end: &str| default_name(Some(&project(&"a".repeat(60), Head::Branch(format!("long-{end}")))), "claude");
        let (one, two) = (long("one"), long("two"));
        assert_ne!(one, two);
        for name in [&one, &two, &numbered(&one, 2), &numbered(&one, 10_000)] {
            assert!(cell_name(name).is_ok() && name.len() <= MAX_NAME, "{name}");
        }
        assert_eq!(numbered("web-main-sh", 2), "web-main-sh-2");
        assert_ne!(numbered(&one, 2), numbered(&two, 2));
    }
}
