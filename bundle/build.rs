//! Compiles the seccomp policy into BPF, so that starting a cell only has to load it.

// These files are also modules of the crate, which documents and uses all of them.
#[path = "src/seccomp/abi.rs"]
#[allow(dead_code)]
mod abi;
#[path = "src/seccomp/compile.rs"]
#[allow(dead_code)]
mod compile;
#[path = "src/seccomp/guard.rs"]
#[allow(dead_code)]
mod guard;
#[path = "src/seccomp/instruction.rs"]
#[allow(dead_code, unreachable_pub)]
mod instruction;
#[path = "src/seccomp/numbers.rs"]
mod numbers;
#[path = "src/seccomp/own.rs"]
#[allow(dead_code, unreachable_pub)]
mod own;
#[path = "src/seccomp/table.rs"]
#[allow(dead_code, unreachable_pub)]
mod table;

use std::path::Path;

use abi::Arch;
use compile::Policy;
use table::Profile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=src/seccomp");
    let machine = std::env::var("CARGO_CFG_TARGET_ARCH")?;
    let out = std::env::var("OUT_DIR")?;
    let arch = match machine.as_str() {
        "x86_64" => Arch::X86_64,
        "aarch64" => Arch::Aarch64,
        _ => return Err(format!("cellblock has no seccomp policy for {machine}").into()),
    };
    let policies: [(&str, Policy); 8] = [
        ("default", Policy::Cell(Profile::Default)),
        ("strict", Policy::Cell(Profile::Strict)),
        ("nested", Policy::Cell(Profile::Nested)),
        ("default-guarded", Policy::Guarded(Profile::Default)),
        ("strict-guarded", Policy::Guarded(Profile::Strict)),
        ("nested-guarded", Policy::Guarded(Profile::Nested)),
        ("network", Policy::Own(&own::NETWORK)),
        ("who", Policy::Own(&own::WHO)),
    ];
    for (name, policy) in policies {
        let bytes: Vec<u8> = compile::program(policy, arch).iter().flat_map(|i| i.to_bytes()).collect();
        std::fs::write(Path::new(&out).join(format!("{name}.bpf")), bytes)?;
    }
    // The calls by number, for whoever carries them out: ABI, number, name.
    let calls = arch.abis().into_iter().flat_map(|abi| {
        numbers::NUMBERS.iter().filter_map(move |(name, numbers)| {
            guard::when(name)?;
            Some(format!("(0x{:x}, {}, {name:?}),", abi.audit, (*numbers.get(abi.column as usize)?)?))
        })
    });
    std::fs::write(Path::new(&out).join("guard_calls.rs"), format!("&[{}]", calls.collect::<String>()))?;
    Ok(())
}
