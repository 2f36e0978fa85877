//! A new configuration of git's that a cell has written: what is permitted differs, as git itself reads it, in what git remembers about branches alone.
#![no_main]

use cellblock_bundle::branches::permits;
use libfuzzer_sys::fuzz_target;

#[path = "../../bundle/src/branches/reference.rs"]
mod reference;

/// What most repositories have.
const USUAL: &[u8] = b"[core]\n\tbare = false\n[remote \"origin\"]\n\turl = u\n[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n";

fuzz_target!(|bytes: &[u8]| {
    // One file that a host could have, and one that is the same but for a piece in the middle.
    let split = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (old, rest) = bytes.split_at(split);
    let old = if old.is_empty() { USUAL } else { old };
    let (at, more) = match rest {
        [_, at, more @ ..] => (usize::from(*at) * old.len() / 255, more),
        _ => (old.len(), &b""[..]),
    };
    let new = [&old[..at], more, &old[at..]].concat();
    for (old, new) in [(old, new.as_slice()), (new.as_slice(), old)] {
        if permits(old, new).is_ok() {
            reference::agrees(old, new);
        }
    }
});
