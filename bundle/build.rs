//! Compiles the seccomp policy into BPF, so that starting a cell only has to load it.

#[path = "src/seccomp"]
#[allow(dead_code, unreachable_pub, missing_docs)]
mod seccomp {
    #[path = "abi.rs"]
    pub mod abi;
    #[path = "compile.rs"]
    pub mod compile;
    #[path = "table.rs"]
    pub mod table;
}

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=src/seccomp");
    let machine = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    let out = std::env::var("OUT_DIR")?;
    let abis = seccomp::abi::abis(&machine);
    if abis.is_empty() {
        return Err(format!("cellblock has no seccomp policy for {machine}").into());
    }
    for (name, profile) in [("default", seccomp::table::Profile::Default), ("strict", seccomp::table::Profile::Strict)] {
        let bytes: Vec<u8> = seccomp::compile::program(profile, &abis)
            .iter()
            .flat_map(|i| {
                let [a, b] = i.code.to_le_bytes();
                let [c, d, e, f] = i.k.to_le_bytes();
                [a, b, i.jt, i.jf, c, d, e, f]
            })
            .collect();
        std::fs::write(Path::new(&out).join(format!("{name}.bpf")), bytes)?;
    }
    Ok(())
}
