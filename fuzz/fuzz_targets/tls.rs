//! The client's hello: no bytes make it panic, and more bytes never change a name that was found.
#![no_main]

use cellblock_egress::tls::{Hello, MAX, hello};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let found = hello(bytes);
    if matches!(found, Ok(Hello::Done { .. })) && bytes.len() < MAX {
        assert_eq!(hello(&[bytes, &[0]].concat()), found);
    }
});
