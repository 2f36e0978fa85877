//! A real root file system against tar(1): set `CELLBLOCK_TEST_ALPINE` to `alpine-minirootfs-3.20.3-x86_64.tar.gz`.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::*;

/// What of a file must be the same.
#[derive(Debug, PartialEq, Eq)]
struct Facts {
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    links: u64,
    target: Option<PathBuf>,
    content: Option<Vec<u8>>,
}

fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let mut found = BTreeMap::new();
    let mut queue = vec![root.to_path_buf()];
    while let Some(path) = queue.pop() {
        let metadata = fs::symlink_metadata(&path).expect("metadata");
        if metadata.is_dir() {
            queue.extend(fs::read_dir(&path).expect("readable").map(|entry| entry.expect("entry").path()));
        }
        let facts = Facts {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: metadata.mtime(),
            links: metadata.nlink(),
            target: fs::read_link(&path).ok(),
            content: metadata.is_file().then(|| fs::read(&path).expect("readable")),
        };
        found.insert(path.strip_prefix(root).expect("below").to_path_buf(), facts);
    }
    found
}

#[test]
fn alpine_unpacks_as_tar_does_it() {
    let Some(archive) = std::env::var_os("CELLBLOCK_TEST_ALPINE") else { return };
    let scratch = Scratch::new("alpine");
    let bytes = fs::read(&archive).expect("the archive");
    let summary = scratch.unpack_as(&bytes, &options()).expect("unpacks");
    assert!(summary.counts.files > 50 && summary.counts.symlinks > 200, "{summary:?}");

    let theirs = scratch.0.join("tar");
    fs::create_dir(&theirs).expect("mkdir");
    // `-p`: the person's umask is not what this compares.
    let status = Command::new("tar").arg("-xpzf").arg(&archive).arg("-C").arg(&theirs).status().expect("tar");
    assert!(status.success());
    let (ours, theirs) = (facts(&scratch.root()), facts(&theirs));
    assert!(ours.keys().eq(theirs.keys()), "different names");
    for (path, facts) in &ours {
        assert!(Some(facts) == theirs.get(path), "{} differs: mode {:o}", path.display(), facts.mode);
    }
}
