//! How much of something a cell may have.

use std::fmt;
use std::str::FromStr;

use super::ValueError;

/// Bytes: `512m`, `2g`, `1073741824`; podman's suffixes, powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

impl FromStr for Size {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(ValueError::Size),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ValueError::Size);
        }
        // memory.max is a signed 64-bit number of bytes in the kernel (mm/page_counter.c).
        let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)).ok_or(ValueError::SizeRange)?;
        if bytes == 0 || i64::try_from(bytes).is_err() { Err(ValueError::SizeRange) } else { Ok(Self(bytes)) }
    }
}

/// Processors in thousandths: `1.5` is 1500.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cpus(pub(crate) u64);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, rest) => f.write_str(format!("{whole}.{rest:03}").trim_end_matches('0')),
        }
    }
}

impl FromStr for Cpus {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !plain(whole) || !plain(decimals) || decimals.len() > 3 {
            return Err(ValueError::Cpus);
        }
        let whole: u64 = whole.parse().map_err(|_| ValueError::Cpus)?;
        let thousandths: u64 = format!("{decimals:0<3}").parse().map_err(|_| ValueError::Cpus)?;
        // The kernel takes no quota below 1 ms in a period of 100 ms (kernel/sched/core.c: min_cfs_quota_period).
        match whole.checked_mul(1000).and_then(|n| n.checked_add(thousandths)) {
            Some(n) if n >= 10 => Ok(Self(n)),
            _ => Err(ValueError::Cpus),
        }
    }
}

/// A count of processes and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pids(pub(crate) u64);

impl FromStr for Pids {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        // pids.max takes at most PIDS_MAX, 4194304 + 1 on 64-bit (kernel/cgroup/pids.c); more than the kernel has is no limit.
        match text.parse::<u64>() {
            Ok(n) if (1..=4_194_304).contains(&n) => Ok(Self(n)),
            _ => Err(ValueError::Pids),
        }
    }
}
