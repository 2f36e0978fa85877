//! TEMPORARY
use cellblock_bundle::Protect;

pub(super) fn protect(project: Option<&crate::project::ProjectFacts>) -> Protect {
    let Some(project) = project else { return Protect::default() };
    let said = |list: &[&str]| list.iter().map(|name| ((*name).to_owned(), format!("why {name}"))).collect();
    let root = project.root.clone();
    let mut git_dirs = std::collections::BTreeMap::new();
    if root.join(".git").is_dir() {
        git_dirs.insert(root.join(".git"), Default::default());
    }
    Protect {
        roots: [root.clone()].into(),
        trees: [root].into(),
        names: said(&["**/.envrc", ".vscode", ".claude/settings*.json", ".claude/hooks"]),
        paths: Default::default(),
        git_names: said(&["hooks", "config", "config.worktree", "info", "commondir", "gitdir", "worktrees"]),
        git_dirs,
        open: Default::default(),
    }
}
