//! Loading a seccomp filter (seccomp(2)).

use std::io;

/// One classic BPF instruction: operation, jump if true, jump if false, operand.
pub type Instruction = (u16, u8, u8, u32);

/// Puts the filter into force for this thread, for what it starts and executes from now on, and for good. The thread must have
/// `no_new_privs` set (or `CAP_SYS_ADMIN` in its user namespace).
///
/// # Errors
/// `InvalidInput` if the program is longer than the kernel's 4096 instructions; those of `seccomp(2)`.
pub fn load(program: impl IntoIterator<Item = Instruction>) -> io::Result<()> {
    let filter: Vec<libc::sock_filter> =
        program.into_iter().map(|(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the program points to `len` instructions that outlive the call; the kernel copies and checks them.
    let r = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
