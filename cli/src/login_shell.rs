//! Login shells keep the `PATH` that the cell was given.
//!
//! `/etc/profile` of Alpine and Debian begins a `PATH` of its own and then reads `/etc/profile.d`. Codex runs its commands in login shells.

use cellblock_bundle::Cell;
use cellblock_rootfs::root::skeleton::Entry;

/// Read last: names are sorted.
const PATH: &str = "/etc/profile.d/zz-cellblock.sh";

/// The file, for images, which have an `/etc/profile` of their own; the host's is not in a cell.
pub(crate) fn entry(cell: &Cell) -> Option<Entry> {
    let value = cell.env.get("PATH").filter(|_| cell.image != "host")?;
    // Within such quotes sh(1) knows no special letters.
    let quoted = value.replace('\'', r"'\''");
    let text = format!("# The PATH of this cell, in login shells too.\nPATH='{quoted}'\nexport PATH\n");
    Some(Entry::File { path: PATH.into(), text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_quoted() {
        let mut cell: Cell = serde_json::from_str(include_str!("resolve/tests/golden/command.json")).expect("a cell");
        cell.env.insert("PATH".into(), "/a'b:/$(c)".into());
        cell.image = "host".into();
        assert_eq!(entry(&cell), None);
        cell.image = "alpine".into();
        let Some(Entry::File { text, .. }) = entry(&cell) else { panic!("a file") };
        assert!(text.contains("\nPATH='/a'\\''b:/$(c)'\n"), "{text}");
    }
}
