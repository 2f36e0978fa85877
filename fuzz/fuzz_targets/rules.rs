//! Rules and filter files: whatever is taken reads back as the same.
#![no_main]

use cellblock_egress::policy::{Entry, filter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = filter::parse(bytes, "fuzz");
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(entry) = text.parse::<Entry>()
    {
        assert_eq!(entry.to_string().parse::<Entry>().as_ref(), Ok(&entry));
    }
});
