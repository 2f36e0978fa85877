//! Builds `examples/direct.rs` once more, without any library of this machine, for cells that have others. The end-to-end tests carry it with them.
#![allow(clippy::print_stdout, reason = "how cargo is told")]

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(folder), Some(rustc), Some(out)) = (var("CARGO_MANIFEST_DIR"), var("RUSTC"), var("OUT_DIR")) else {
        return;
    };
    let source = folder.join("examples/direct.rs");
    println!("cargo::rerun-if-changed={}", source.display());
    let target = std::env::var("TARGET").unwrap_or_default();
    let flags = ["--edition=2024", "-Ctarget-feature=+crt-static", "-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols"];
    let done =
        Command::new(rustc).args(flags).args(["--target", &target, "-o"]).arg(out.join("direct")).arg(source).status();
    assert!(done.is_ok_and(|status| status.success()), "no static program: is libc.a there (libc6-dev, glibc-static)?");
}
