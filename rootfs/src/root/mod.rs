//! What a cell's root is put together from: the `host` image ([`host`]), and the thin top layer that every cell gets ([`skeleton`]).

pub mod host;
pub mod skeleton;
