//! What a cell says to the ssh agent and to the desktop: no bytes make it panic, and what is read is written as it was.
#![no_main]

use cellblock_broker::agent::wire::{self, Request};
use cellblock_broker::bridge::{self, What};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Request::Sign(sign)) = wire::request(bytes) {
        assert_eq!(sign.message(), bytes);
        let _ = wire::purpose(sign.data);
    }
    if let Ok(keys) = wire::identities(bytes) {
        assert_eq!(wire::list(&keys), bytes);
    }
    let _ = (wire::purpose(bytes), wire::is_signature(bytes), bridge::is_png(bytes));
    if let Some(question) = bridge::question(bytes) {
        // The name of a file in one folder.
        assert!(question.id.bytes().all(|b| b.is_ascii_alphanumeric()));
        if let What::Open(address) = question.what
            && bridge::url(address, &[8080]).is_ok()
        {
            assert!(address.starts_with("http") && address.bytes().all(|b| b.is_ascii_graphic()));
            assert!(!address.contains(['"', '\'', '`', '\\', '<', '>']));
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = wire::public_key(text);
    }
});
