//! From a call's number and registers to what is asked for: pure, for the registers come from the cell.

use rustix::fs::AtFlags;

/// A folder to start from: a descriptor of the caller's, or `AT_FDCWD`.
pub(crate) type Folder = i32;
/// Where something lies in the caller's memory.
pub(crate) type Address = u64;

/// `AT_FDCWD` (`<fcntl.h>`).
pub(crate) const CWD: Folder = -100;

/// A path as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) folder: Folder,
    pub(crate) path: Address,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Open { at: At, flags: u32, mode: u32 },
    MakeDir { at: At, mode: u32 },
    MakeNode { at: At, mode: u32, device: u64 },
    Remove { at: At, folder: bool },
    Rename { from: At, to: At, flags: u32 },
    Link { from: At, to: At, flags: AtFlags },
    Symlink { target: Address, at: At },
    Truncate { at: At, length: i64 },
    Access { at: At, mode: u32, flags: AtFlags },
    Change { what: Target, how: Change },
    Bind { socket: i32, address: Address, length: u32 },
}

/// Whose attributes are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// By its path; with whether a link at its end is followed, and whether an empty path means the folder itself.
    Path { at: At, follow: bool, empty: bool },
    /// An open file.
    Open(i32),
}

/// A change of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Mode(u32),
    /// `u32::MAX` leaves one as it is.
    Owner(u32, u32),
    /// To now, if the address is 0.
    Times(Address, Clock),
    SetXattr {
        name: Address,
        value: Address,
        size: u64,
        flags: u32,
    },
    RemoveXattr {
        name: Address,
    },
}

/// How times lie in memory: two of seconds and a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// Bytes of each number.
    pub(crate) width: usize,
    /// Nanoseconds in the fraction's unit; 0 if there is no fraction.
    pub(crate) unit: i64,
}

/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64` have it, their 32-bit companions do not.
const AUDIT_64BIT: u32 = 0x8000_0000;
/// `AUDIT_ARCH_ARM`: 64-bit numbers begin at even registers.
const AUDIT_ARM: u32 = 0x4000_0028;
/// `AT_REMOVEDIR` (`<fcntl.h>`).
const REMOVEDIR: u32 = 0x200;

/// What the call `name` of the ABI `arch` asks for with `args`.
pub(crate) fn request(name: &str, arch: u32, args: &[u64; 6]) -> Option<Request> {
    let wide = arch & AUDIT_64BIT != 0;
    let [a0, a1, a2, a3, a4, _] = *args;
    let pointer = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let word = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    let int = |value: u64| word(value).cast_signed();
    let cwd = |path: u64| At { folder: CWD, path: pointer(path) };
    let from = |folder: u64, path: u64| At { folder: int(folder), path: pointer(path) };
    let at = |value: u64| AtFlags::from_bits_retain(word(value));
    let path = |at: At, flags: AtFlags| Target::Path {
        at,
        follow: !flags.contains(AtFlags::SYMLINK_NOFOLLOW),
        empty: flags.contains(AtFlags::EMPTY_PATH),
    };
    let followed = |place: At| path(place, AtFlags::empty());
    let itself = |place: At| path(place, AtFlags::SYMLINK_NOFOLLOW);
    // The old calls of i386 and ARM have ids of 16 bits.
    let id = |value: u64| match (wide, word(value) & 0xffff) {
        (false, 0xffff) => u32::MAX,
        (false, id) => id,
        (true, _) => word(value),
    };
    let change = |what: Target, how: Change| Request::Change { what, how };
    let long = if wide { 8 } else { 4 };
    let (micro, nano) = (Clock { width: long, unit: 1000 }, Clock { width: long, unit: 1 });
    let times = |folder: u64, name: u64, times: u64, flags: u64, clock: Clock| {
        let what = if pointer(name) == 0 { Target::Open(int(folder)) } else { path(from(folder, name), at(flags)) };
        change(what, Change::Times(pointer(times), clock))
    };
    let set = |what: Target| {
        let (name, value) = (pointer(a1), pointer(a2));
        change(what, Change::SetXattr { name, value, size: pointer(a3), flags: word(a4) })
    };
    let unset = |what: Target| change(what, Change::RemoveXattr { name: pointer(a1) });
    Some(match name {
        "open" => Request::Open { at: cwd(a0), flags: word(a1), mode: word(a2) },
        "openat" => Request::Open { at: from(a0, a1), flags: word(a2), mode: word(a3) },
        // O_CREAT | O_WRONLY | O_TRUNC.
        "creat" => Request::Open { at: cwd(a0), flags: 0o1101, mode: word(a1) },
        "mkdir" => Request::MakeDir { at: cwd(a0), mode: word(a1) },
        "mkdirat" => Request::MakeDir { at: from(a0, a1), mode: word(a2) },
        "mknod" => Request::MakeNode { at: cwd(a0), mode: word(a1), device: word(a2).into() },
        "mknodat" => Request::MakeNode { at: from(a0, a1), mode: word(a2), device: word(a3).into() },
        "unlink" => Request::Remove { at: cwd(a0), folder: false },
        "rmdir" => Request::Remove { at: cwd(a0), folder: true },
        "unlinkat" if word(a2) & !REMOVEDIR == 0 => {
            Request::Remove { at: from(a0, a1), folder: word(a2) & REMOVEDIR != 0 }
        }
        "rename" => Request::Rename { from: cwd(a0), to: cwd(a1), flags: 0 },
        "renameat" => Request::Rename { from: from(a0, a1), to: from(a2, a3), flags: 0 },
        "renameat2" => Request::Rename { from: from(a0, a1), to: from(a2, a3), flags: word(a4) },
        "link" => Request::Link { from: cwd(a0), to: cwd(a1), flags: AtFlags::empty() },
        "linkat" => Request::Link { from: from(a0, a1), to: from(a2, a3), flags: at(a4) },
        "symlink" => Request::Symlink { target: pointer(a0), at: cwd(a1) },
        "symlinkat" => Request::Symlink { target: pointer(a0), at: from(a1, a2) },
        "truncate" => {
            let length = if wide { a1.cast_signed() } else { int(a1).into() };
            Request::Truncate { at: cwd(a0), length }
        }
        "truncate64" => {
            let (low, high) = if arch == AUDIT_ARM { (a2, a3) } else { (a1, a2) };
            let length = (u64::from(word(high)) << 32 | u64::from(word(low))).cast_signed();
            Request::Truncate { at: cwd(a0), length }
        }
        "access" => Request::Access { at: cwd(a0), mode: word(a1), flags: AtFlags::empty() },
        "faccessat" => Request::Access { at: from(a0, a1), mode: word(a2), flags: AtFlags::empty() },
        "faccessat2" => Request::Access { at: from(a0, a1), mode: word(a2), flags: at(a3) },
        "chmod" => change(followed(cwd(a0)), Change::Mode(word(a1))),
        "fchmodat" => change(followed(from(a0, a1)), Change::Mode(word(a2))),
        "fchmodat2" => change(path(from(a0, a1), at(a3)), Change::Mode(word(a2))),
        "fchmod" => change(Target::Open(int(a0)), Change::Mode(word(a1))),
        "chown" => change(followed(cwd(a0)), Change::Owner(id(a1), id(a2))),
        "lchown" => change(itself(cwd(a0)), Change::Owner(id(a1), id(a2))),
        "fchown" => change(Target::Open(int(a0)), Change::Owner(id(a1), id(a2))),
        "chown32" => change(followed(cwd(a0)), Change::Owner(word(a1), word(a2))),
        "lchown32" => change(itself(cwd(a0)), Change::Owner(word(a1), word(a2))),
        "fchown32" => change(Target::Open(int(a0)), Change::Owner(word(a1), word(a2))),
        "fchownat" => change(path(from(a0, a1), at(a4)), Change::Owner(word(a2), word(a3))),
        "utime" => change(followed(cwd(a0)), Change::Times(pointer(a1), Clock { width: long, unit: 0 })),
        "utimes" => change(followed(cwd(a0)), Change::Times(pointer(a1), micro)),
        "futimesat" => times(a0, a1, a2, 0, micro),
        "utimensat" => times(a0, a1, a2, a3, nano),
        "utimensat_time64" => times(a0, a1, a2, a3, Clock { width: 8, unit: 1 }),
        "setxattr" => set(followed(cwd(a0))),
        "lsetxattr" => set(itself(cwd(a0))),
        "fsetxattr" => set(Target::Open(int(a0))),
        "removexattr" => unset(followed(cwd(a0))),
        "lremovexattr" => unset(itself(cwd(a0))),
        "fremovexattr" => unset(Target::Open(int(a0))),
        "bind" => Request::Bind { socket: int(a0), address: pointer(a1), length: word(a2) },
        // Ill-formed: the kernel says so.
        _ => return None,
    })
}
