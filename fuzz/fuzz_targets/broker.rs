//! What a cell says to the ssh agent to the desktop and to workmux: no bytes make it panic, and what is read is written as it was.
#![no_main]

use cellblock_broker::agent::wire::{self, Request};
use cellblock_broker::bridge::{self, What};
use cellblock_broker::{signature, workmux};
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
    if let Some(signature::Object::Commit(text) | signature::Object::Tag(text)) = signature::object(bytes) {
        assert!(text.chars().count() <= 100 && !text.chars().any(char::is_control));
        assert!(!signature::is_signature(bytes));
    }
    let mut pending = signature::Pending::default();
    bytes.split(|b| *b == b'\n').filter_map(bridge::question).for_each(|question| match question.what {
        What::Part(part) => pending.add(question.id, part),
        What::Sign => assert!(pending.take(question.id).is_none_or(|object| object.len() <= signature::MAX_OBJECT + 1)),
        _ => {}
    });
    let hook = workmux::told(bytes).map_or_else(|| workmux::hook(bytes), |told| told.hook);
    for text in [&hook.session_id, &hook.prompt, &hook.initial_prompt].into_iter().flatten() {
        assert!(!text.is_empty() && text.chars().count() <= 500 && !text.chars().any(char::is_control) && !text.starts_with(' '));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = wire::public_key(text);
    }
});
