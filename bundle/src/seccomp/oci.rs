//! The policy for other runtimes, as the `linux.seccomp` section of an OCI specification.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::abi::Arch;
use super::table::{AnyOf, Bits, CONDITIONAL, DEFAULT, GROUPS, Profile, Verdict};

/// The policy of `profile` for the machine this was built for.
///
/// It allows what our own filter allows, call by call and argument by argument; a test compares the verdicts. The errno of a denied
/// call differs in three cases:
/// - A call that is allowed for some arguments answers `ENOSYS` for the others. OCI has no "otherwise": it would have to list them,
///   which triples the size of the filter that libseccomp makes, and the time it needs.
/// - An x32 call ends the process: libseccomp has no errno for an ABI that is not listed.
/// - A libseccomp older than a call cannot name it: if denied, it answers `ENOSYS` too.
///
/// # Errors
/// None in practice: the document is made of constants.
pub fn to_oci(profile: Profile) -> Result<LinuxSeccomp, serde_json::Error> {
    serde_json::from_value(section(profile, super::NATIVE))
}

pub(super) fn section(profile: Profile, arch: Arch) -> Value {
    let mut rows: Vec<Value> = GROUPS.iter().flat_map(|group| row(group.names, group.under(profile), &[])).collect();
    for rule in CONDITIONAL {
        let when = rule.under(profile);
        rows.extend(when.iter().flat_map(|tests| row(&[rule.name], rule.then, tests)));
        if rule.otherwise == Verdict::Allow {
            rows.extend(complement(when).iter().flat_map(|tests| row(&[rule.name], rule.otherwise, tests)));
        }
    }
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno(DEFAULT),
        "architectures": arch.abis().map(|abi| abi.oci),
        "syscalls": rows,
    })
}

/// When none of the alternatives holds, said in alternatives that exclude each other.
///
/// OCI has no "otherwise", and its "not equal" looks at all 64 bits, which a stray upper half passes. So each alternative is cut out
/// of what is left, bit by bit: the highest bit differs, or it is the same and the next one differs, and so on.
fn complement(when: AnyOf) -> Vec<Vec<Bits>> {
    let mut left = vec![Vec::new()];
    for alternative in when {
        left = left.into_iter().flat_map(|region| without(region, alternative)).collect();
    }
    left
}

/// The parts of `region` in which not all of `tests` hold.
fn without(mut region: Vec<Bits>, tests: &[Bits]) -> Vec<Vec<Bits>> {
    let known =
        |region: &[Bits], arg: u8| region.iter().find(|bits| bits.arg == arg).map_or((0, 0), |b| (b.mask, b.value));
    let apart = tests.iter().any(|test| {
        let (mask, value) = known(&region, test.arg);
        (value ^ test.value) & mask & test.mask != 0
    });
    if apart {
        return vec![region];
    }
    let mut pieces = Vec::new();
    for test in tests {
        let (mask, _) = known(&region, test.arg);
        for bit in (0..32).rev().map(|shift| 1 << shift).filter(|bit| test.mask & !mask & bit != 0) {
            let wanted = test.value & bit;
            pieces.push(with(&region, test.arg, bit, wanted ^ bit));
            region = with(&region, test.arg, bit, wanted);
        }
    }
    pieces
}

/// The region with one more bit fixed.
fn with(region: &[Bits], arg: u8, bit: u32, value: u32) -> Vec<Bits> {
    let mut region = region.to_vec();
    match region.iter_mut().find(|known| known.arg == arg) {
        Some(known) => {
            known.mask |= bit;
            known.value |= value;
        }
        None => region.push(Bits { arg, mask: bit, value }),
    }
    region
}

/// Nothing if it says what happens anyway: libseccomp refuses such rows, and runtimes leave them out.
fn row(names: &[&str], verdict: Verdict, tests: &[Bits]) -> Option<Value> {
    let mut row = match verdict {
        DEFAULT => return None,
        Verdict::Allow => json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        Verdict::Errno(errno) => json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno }),
    };
    if !tests.is_empty() {
        row["args"] = tests
            .iter()
            .map(|b| json!({ "index": b.arg, "value": b.mask, "valueTwo": b.value, "op": "SCMP_CMP_MASKED_EQ" }))
            .collect();
    }
    Some(row)
}

fn errno(verdict: Verdict) -> Option<u16> {
    match verdict {
        Verdict::Allow => None,
        Verdict::Errno(errno) => Some(errno),
    }
}
