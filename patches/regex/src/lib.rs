//! `regex` as libcontainer and oci-spec use it, by `regex-lite`.
//!
//! They have five expressions, over ASCII, none of which a start of a cell evaluates. The tables and engines of `regex` were a third of the
//! pages that each start of the program has to relocate (docs/performance.md), and half a mebibyte of it. `cargo install` from a registry
//! ignores patches: it gets the whole `regex`, and loses time only.

pub use regex_lite::{Captures, Error, Match, Regex, RegexBuilder};
