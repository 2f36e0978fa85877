//! Thin wrappers of the system calls that rustix lacks, each documented with what makes it sound.
//!
//! This is the only crate of the workspace with `unsafe` code, so that every other one can deny it and a reviewer has one
//! place to look. Nothing here decides anything: policy belongs to the callers.
#![allow(unsafe_code)]

pub mod fds;
pub mod heap;
pub mod landlock;
#[cfg(all(target_arch = "x86_64", any(test, all(target_env = "musl", target_feature = "crt-static"))))]
mod memory;
pub mod mount;
pub mod namespace;
pub mod net;
pub mod notify;
pub mod process;
pub mod scoped;
pub mod seccomp;
pub mod signal;
pub mod spawn;
pub mod start;
pub mod tree;
