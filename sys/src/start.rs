//! How the static program starts: its writable pages asked for in one go, and its constants sealed once they are relocated.

// A position-independent program is relocated before anything else runs, which writes to each page of its constants that hold addresses: a hundred page
// faults, each of which copies a page. Here the kernel is asked to make them writable together (`MADV_POPULATE_WRITE`, madvise(2)), which takes a fifth
// off the life of a program that does little, and this one has two lives at each start (docs/performance.md). A kernel before Linux 5.14 refuses, and
// the faults happen one by one.
//
// Nothing of Rust or C can run here: there is no stack guard, no thread-local storage, and no address is right yet. `cli/build.rs` makes it the
// program's entry. The C library's `_start` then finds registers and stack as the kernel left them (System V ABI, AMD64, "Process initialization").
#[cfg(all(target_arch = "x86_64", target_feature = "crt-static"))]
core::arch::global_asm!(
    r#"
    .pushsection .text.cellblock_start, "ax", @progbits
    .globl cellblock_start
    .hidden cellblock_start
    .hidden __ehdr_start
    .type cellblock_start, @function
cellblock_start:
    mov r12, rdx
    lea rbx, [rip + __ehdr_start]
    cmp word ptr [rbx + {e_type}], {ET_DYN}
    jne 4f
    movzx r13d, word ptr [rbx + {e_phnum}]
    mov r14, [rbx + {e_phoff}]
    add r14, rbx
2:  test r13d, r13d
    jz 4f
    cmp dword ptr [r14], {PT_LOAD}
    jne 3f
    test dword ptr [r14 + {p_flags}], {PF_W}
    jz 3f
    mov rdi, [r14 + {p_vaddr}]
    add rdi, rbx
    mov rsi, [r14 + {p_memsz}]
    add rsi, rdi
    and rdi, -{PAGE}
    sub rsi, rdi
    mov edx, {MADV_POPULATE_WRITE}
    mov eax, {SYS_madvise}
    syscall
3:  add r14, {PHDR}
    dec r13d
    jmp 2b
4:  mov rdx, r12
    jmp _start
    .size cellblock_start, . - cellblock_start
    .popsection
    "#,
    e_type = const std::mem::offset_of!(libc::Elf64_Ehdr, e_type),
    ET_DYN = const libc::ET_DYN,
    e_phnum = const std::mem::offset_of!(libc::Elf64_Ehdr, e_phnum),
    e_phoff = const std::mem::offset_of!(libc::Elf64_Ehdr, e_phoff),
    p_flags = const std::mem::offset_of!(libc::Elf64_Phdr, p_flags),
    p_vaddr = const std::mem::offset_of!(libc::Elf64_Phdr, p_vaddr),
    p_memsz = const std::mem::offset_of!(libc::Elf64_Phdr, p_memsz),
    PT_LOAD = const libc::PT_LOAD,
    PF_W = const libc::PF_W,
    PHDR = const size_of::<libc::Elf64_Phdr>(),
    PAGE = const 4096,
    MADV_POPULATE_WRITE = const libc::MADV_POPULATE_WRITE,
    SYS_madvise = const libc::SYS_madvise,
);

/// Takes away the leave to write to what only relocation had to write: constants with addresses in them (`PT_GNU_RELRO`). The C library of a static
/// program does that itself, but for musl's (1.2.5), whose dynamic linker alone does.
///
/// # Errors
/// Those of `mprotect(2)`.
#[cfg(all(target_env = "musl", target_feature = "crt-static"))]
pub fn seal() -> std::io::Result<()> {
    unsafe extern "C" {
        // ld(1): where the program's own header is.
        safe static __ehdr_start: libc::Elf64_Ehdr;
    }
    let at = &raw const __ehdr_start;
    let base = if __ehdr_start.e_type == libc::ET_DYN { at.addr() } else { 0 };
    let first = at.wrapping_byte_add(__ehdr_start.e_phoff as usize).cast::<libc::Elf64_Phdr>();
    // SAFETY: The kernel has mapped the header, and the table that it tells of, with the program's first segment.
    let headers = unsafe { std::slice::from_raw_parts(first, __ehdr_start.e_phnum.into()) };
    // SAFETY: Always sound.
    let page = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
    for header in headers.iter().filter(|header| header.p_type == libc::PT_GNU_RELRO) {
        // Whole pages, as the dynamic linker does it: what shares the last one is data.
        let [start, end] =
            [header.p_vaddr, header.p_vaddr + header.p_memsz].map(|to| (base + to as usize) & !(page - 1));
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: The linker put nothing there that is written to once relocation is done.
        if unsafe { libc::mprotect(start, end - start.addr(), libc::PROT_READ) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Nothing: the C library did it.
///
/// # Errors
/// None.
#[cfg(not(all(target_env = "musl", target_feature = "crt-static")))]
pub fn seal() -> std::io::Result<()> {
    Ok(())
}
