//! The cell's seccomp filter: policy ([`table`]), compiler ([`compile`]), and what both come to: a [`Program`] for the kernel and a
//! section for the exported OCI specification.
//!
//! The BPF is made by the build script and is part of the binary: loading it is all that a start costs. libseccomp, which takes
//! 13 to 25 ms for the same work, is used by a test only.

pub mod compile;
pub mod table;

#[cfg(test)]
mod abi;
#[cfg(test)]
mod tests;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

pub use compile::Instruction;
pub use table::Profile;
use table::{CONDITIONAL, DEFAULT, GROUPS, Test, Verdict};

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Its instructions.
    #[must_use]
    pub fn instructions(&self) -> &[Instruction] {
        &self.0
    }
}

/// The filter for `profile` on the machine this was built for, with all of its ABIs.
#[must_use]
pub fn program(profile: Profile) -> Program {
    let bytes: &[u8] = match profile {
        Profile::Default => include_bytes!(concat!(env!("OUT_DIR"), "/default.bpf")),
        Profile::Strict => include_bytes!(concat!(env!("OUT_DIR"), "/strict.bpf")),
    };
    let (whole, _) = bytes.as_chunks::<8>();
    Program(
        whole
            .iter()
            .map(|&[a, b, jt, jf, c, d, e, f]| Instruction {
                code: u16::from_le_bytes([a, b]),
                jt,
                jf,
                k: u32::from_le_bytes([c, d, e, f]),
            })
            .collect(),
    )
}

/// The same policy for other runtimes, as far as OCI can say it.
///
/// Two things it cannot: a condition that fails falls to the default action and not to an errno of its own, and a *list of excepted
/// values* needs a masked "not equal", which does not exist: so `ioctl` is allowed whole there. (`TIOCSTI` needs the terminal to be
/// the session's own, and every runtime gives a container a session of its own.)
///
/// # Errors
/// None in practice: the document is made of constants.
pub fn to_oci(profile: Profile) -> Result<LinuxSeccomp, serde_json::Error> {
    let mut rows: Vec<Value> = GROUPS.iter().map(|g| row(g.names, g.under(profile), &[])).collect();
    for rule in CONDITIONAL {
        for test in rule.under(profile) {
            rows.push(match *test {
                Test::NoBits { arg, mask } => {
                    row(&[rule.name], Verdict::Allow, &[json!({ "index": arg, "value": mask, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" })])
                }
                Test::Is { arg, value } => row(&[rule.name], Verdict::Allow, &[equal(arg, value)]),
                Test::Both { first, second } => {
                    row(&[rule.name], Verdict::Allow, &[equal(first.0, first.1), equal(second.0, second.1)])
                }
                Test::NotLow { .. } => row(&[rule.name], Verdict::Allow, &[]),
            });
        }
    }
    let Verdict::Errno(default) = DEFAULT else { unreachable!("an allowlist denies by default") };
    serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": default,
        "architectures": architectures(),
        "syscalls": rows,
    }))
}

fn architectures() -> &'static [&'static str] {
    if cfg!(target_arch = "x86_64") { &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"] } else { &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"] }
}

fn equal(arg: u8, value: u32) -> Value {
    json!({ "index": arg, "value": value, "op": "SCMP_CMP_EQ" })
}

fn row(names: &[&str], verdict: Verdict, args: &[Value]) -> Value {
    let mut row = match verdict {
        Verdict::Allow => json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        Verdict::Errno(errno) => json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno }),
    };
    if !args.is_empty() {
        row["args"] = json!(args);
    }
    row
}
