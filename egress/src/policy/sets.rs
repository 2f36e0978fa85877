//! Named sets of rules, shipped as data: `egress/sets/NAME.rules`, with a word on what an upload to each host could leak.

use super::rule::{Entry, Rule};

/// The sets by name.
const SETS: &[(&str, &str)] = &[
    ("aider", include_str!("../../sets/aider.rules")),
    ("alpine", include_str!("../../sets/alpine.rules")),
    ("amp", include_str!("../../sets/amp.rules")),
    ("claude-code", include_str!("../../sets/claude-code.rules")),
    ("codex", include_str!("../../sets/codex.rules")),
    ("copilot", include_str!("../../sets/copilot.rules")),
    ("crates", include_str!("../../sets/crates.rules")),
    ("crush", include_str!("../../sets/crush.rules")),
    ("cursor-agent", include_str!("../../sets/cursor-agent.rules")),
    ("debian", include_str!("../../sets/debian.rules")),
    ("dev", include_str!("../../sets/dev.rules")),
    ("gemini", include_str!("../../sets/gemini.rules")),
    ("github", include_str!("../../sets/github.rules")),
    ("gitlab", include_str!("../../sets/gitlab.rules")),
    ("go", include_str!("../../sets/go.rules")),
    ("goose", include_str!("../../sets/goose.rules")),
    ("llm", include_str!("../../sets/llm.rules")),
    ("nix", include_str!("../../sets/nix.rules")),
    ("npm", include_str!("../../sets/npm.rules")),
    ("opencode", include_str!("../../sets/opencode.rules")),
    ("pi", include_str!("../../sets/pi.rules")),
    ("pypi", include_str!("../../sets/pypi.rules")),
    ("qwen", include_str!("../../sets/qwen.rules")),
];

/// The names of all sets, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    SETS.iter().map(|(name, _)| *name)
}

/// The text of a set, with its comments.
#[must_use]
pub fn text(name: &str) -> Option<&'static str> {
    SETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The rules of a set, those of the sets it names included; `None` if there is no such set.
#[must_use]
pub fn rules(name: &str) -> Option<Vec<Rule>> {
    let mut found = Vec::new();
    collect(name, &mut Vec::new(), &mut found)?;
    Some(found)
}

fn collect(name: &str, seen: &mut Vec<String>, found: &mut Vec<Rule>) -> Option<()> {
    let text = text(name)?;
    if seen.iter().any(|s| s == name) {
        return Some(());
    }
    seen.push(name.to_owned());
    for line in text.lines() {
        // A test reads every line of every set.
        match line.split('#').next().unwrap_or(line).trim().parse::<Entry>() {
            Ok(Entry::Rule(rule)) => found.push(rule),
            Ok(Entry::Set(other)) => collect(&other, seen, found)?,
            Err(_) => {}
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rule::Target;

    #[test]
    fn every_line_of_every_set_is_a_rule_with_a_reason() {
        assert!(names().is_sorted());
        for (name, text) in SETS {
            assert!(text.starts_with("# "), "@{name} says what it is");
            let mut rules = 0;
            for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
                let (rule, reason) = line.split_once('#').unwrap_or_else(|| panic!("@{name}: {line}: no reason"));
                assert!(reason.trim().len() > 3, "@{name}: {line}");
                let entry: Entry = rule.trim().parse().unwrap_or_else(|e| panic!("@{name}: {line}: {e}"));
                if let Entry::Rule(rule) = &entry {
                    assert!(
                        matches!(rule.target, Target::Names(_)) && !rule.private && !rule.metadata,
                        "@{name}: {line}"
                    );
                }
                rules += 1;
            }
            assert!(rules > 0, "@{name}");
            assert!(super::rules(name).is_some_and(|r| !r.is_empty()), "@{name}");
        }
        assert_eq!(rules("nowhere"), None);
    }
}
