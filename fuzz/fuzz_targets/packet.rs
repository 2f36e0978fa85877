//! Packets of a cell that were refused: no bytes make it panic, and what a longer piece adds never changes what was found.
#![no_main]

use cellblock_egress::packet::attempt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(found) = attempt(bytes) {
        assert_eq!(attempt(&[bytes, &[0]].concat()), Some(found));
    }
});
