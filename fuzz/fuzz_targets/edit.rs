//! What is written into an agent's files: whatever a cell has put there, a second time there is nothing to do, and a text loses nothing of its own.
#![no_main]

use cellblock_bundle::{Added, Edit};
use cellblock_runtime::keep::edit::edited;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let added = |over_false| Added {
        keys: serde_json::json!({"done": true, "projects": {"/a b.c": {"trust": "yes"}}}),
        over_false,
    };
    let part = |text: &str| Edit::Part { text: text.to_owned() };
    for edit in [part("@/x"), part(""), Edit::Json(added(true)), Edit::Toml(added(false))] {
        let edits = [edit];
        if let Ok(Some(new)) = edited(bytes, &edits) {
            assert_eq!(edited(&new, &edits), Ok(None), "{edits:?}");
        }
    }
    if !bytes.windows(5).any(|part| part == b"<!--\x20") {
        let with = edited(bytes, &[part("@/x")]).expect("a text").expect("ours");
        assert!(with.starts_with(bytes));
        let without = edited(&with, &[part("")]).expect("a text").expect("gone");
        assert_eq!(without.strip_suffix(b"\n").unwrap_or(&without), bytes.strip_suffix(b"\n").unwrap_or(bytes));
    }
});
