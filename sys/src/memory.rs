//! Copying and comparing memory in the static program, for x86-64.
//!
//! musl's copies by `rep movsq` and compares byte by byte. A start copies six thousand times, mostly less than 64 bytes, for which the processor takes longer
//! to begin with such an instruction than the copying takes: 4 to 6 % of a start. With loads and stores that may overlap each other there are few branches and
//! no loop. Written by the contracts of memcpy(3), memmove(3) and memcmp(3) in the System V ABI; nothing but SSE2, which every x86-64 has.
//!
//! `cli/build.rs` has the linker take them for `memcpy` and the others.
//!
//! They are not in Rust because the compiler may take a loop that copies for a call of `memcpy`.

core::arch::global_asm!(
    r#"
    .pushsection .text.cellblock_memory, "ax", @progbits
    .globl cellblock_memmove
    .hidden cellblock_memmove
    .type cellblock_memmove, @function
    .p2align 5
cellblock_memmove:
    mov rax, rdi
    cmp rdx, 16
    jb 20f
    cmp rdx, 32
    ja 21f
    movups xmm0, [rsi]
    movups xmm1, [rsi + rdx - 16]
    movups [rdi], xmm0
    movups [rdi + rdx - 16], xmm1
    ret
    # Up to 64 bytes all is read before anything is written, so that it does not matter whether they overlap.
21: cmp rdx, 64
    ja 25f
    movups xmm0, [rsi]
    movups xmm1, [rsi + 16]
    movups xmm2, [rsi + rdx - 32]
    movups xmm3, [rsi + rdx - 16]
    movups [rdi], xmm0
    movups [rdi + 16], xmm1
    movups [rdi + rdx - 32], xmm2
    movups [rdi + rdx - 16], xmm3
    ret
    # Less than 16: two of 8 bytes, of 4, or three of one.
20: cmp edx, 8
    jb 22f
    mov rcx, [rsi]
    mov r8, [rsi + rdx - 8]
    mov [rdi], rcx
    mov [rdi + rdx - 8], r8
    ret
22: cmp edx, 4
    jb 23f
    mov ecx, [rsi]
    mov r8d, [rsi + rdx - 4]
    mov [rdi], ecx
    mov [rdi + rdx - 4], r8d
    ret
23: test edx, edx
    jz 24f
    mov r10d, edx
    shr r10d
    movzx ecx, byte ptr [rsi]
    movzx r8d, byte ptr [rsi + r10]
    movzx r9d, byte ptr [rsi + rdx - 1]
    mov [rdi], cl
    mov [rdi + r10], r8b
    mov [rdi + rdx - 1], r9b
24: ret
    # More: from the front, unless the target begins within the source: the distance, without a sign, is less than the length then.
25: mov rcx, rdi
    sub rcx, rsi
    cmp rcx, rdx
    jb 28f
    cmp rdx, 1024
    jae 27f
    # The last 32 bytes are read before they can be written over.
    movups xmm4, [rsi + rdx - 32]
    movups xmm5, [rsi + rdx - 16]
    lea r8, [rdi + rdx - 32]
26: movups xmm0, [rsi]
    movups xmm1, [rsi + 16]
    movups [rdi], xmm0
    movups [rdi + 16], xmm1
    add rsi, 32
    add rdi, 32
    cmp rdi, r8
    jb 26b
    movups [r8], xmm4
    movups [r8 + 16], xmm5
    ret
    # As long as that, the processor does it best.
27: mov rcx, rdx
    rep movsb
    ret
    # From the back. The first 32 bytes are read before they can be written over.
28: movups xmm4, [rsi]
    movups xmm5, [rsi + 16]
    lea r8, [rdi + 32]
    lea rcx, [rsi + rdx]
    lea r9, [rdi + rdx]
29: movups xmm0, [rcx - 16]
    movups xmm1, [rcx - 32]
    movups [r9 - 16], xmm0
    movups [r9 - 32], xmm1
    sub rcx, 32
    sub r9, 32
    cmp r9, r8
    ja 29b
    movups [rdi], xmm4
    movups [rdi + 16], xmm5
    ret
    .size cellblock_memmove, . - cellblock_memmove

    .globl cellblock_memcmp
    .hidden cellblock_memcmp
    .type cellblock_memcmp, @function
    .p2align 5
cellblock_memcmp:
    cmp rdx, 16
    jb 32f
    lea r8, [rdx - 16]
    xor ecx, ecx
30: movups xmm0, [rdi + rcx]
    movups xmm1, [rsi + rcx]
    pcmpeqb xmm0, xmm1
    pmovmskb eax, xmm0
    xor eax, 0xffff
    jnz 31f
    add rcx, 16
    cmp rcx, r8
    jb 30b
    # The last 16, some of which have been looked at.
    mov rcx, r8
    movups xmm0, [rdi + rcx]
    movups xmm1, [rsi + rcx]
    pcmpeqb xmm0, xmm1
    pmovmskb eax, xmm0
    xor eax, 0xffff
    jnz 31f
    ret
    # The first that differ, as unsigned numbers.
31: bsf eax, eax
    add rcx, rax
    movzx eax, byte ptr [rdi + rcx]
    movzx edx, byte ptr [rsi + rcx]
    sub eax, edx
    ret
    # Less than 16.
32: cmp edx, 8
    jb 34f
    mov rax, [rdi]
    mov rcx, [rsi]
    cmp rax, rcx
    jne 33f
    mov rax, [rdi + rdx - 8]
    mov rcx, [rsi + rdx - 8]
    cmp rax, rcx
    jne 33f
    xor eax, eax
    ret
    # The first that differ are in the highest place then.
33: bswap rax
    bswap rcx
    cmp rax, rcx
    sbb eax, eax
    or eax, 1
    ret
34: test edx, edx
    jz 36f
35: movzx eax, byte ptr [rdi]
    movzx ecx, byte ptr [rsi]
    sub eax, ecx
    jnz 37f
    inc rdi
    inc rsi
    dec edx
    jnz 35b
36: xor eax, eax
37: ret
    .size cellblock_memcmp, . - cellblock_memcmp
    .popsection
    "#
);

#[cfg(test)]
mod tests {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        fn cellblock_memmove(to: *mut c_void, from: *const c_void, length: usize) -> *mut c_void;
        fn cellblock_memcmp(one: *const c_void, other: *const c_void, length: usize) -> c_int;
    }

    /// No two bytes near each other are alike.
    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 + at / 256 * 13 + 1) as u8).collect()
    }

    fn moves(from: usize, to: usize, length: usize) {
        let mut wanted = pattern(from.max(to) + length + 40);
        let mut bytes = wanted.clone();
        wanted.copy_within(from..from + length, to);
        let start = bytes.as_mut_ptr();
        let (source, target) = (start.wrapping_add(from), start.wrapping_add(to));
        // SAFETY: both stretches lie within `bytes`.
        let result = unsafe { cellblock_memmove(target.cast(), source.cast(), length) };
        assert_eq!(result, target.cast());
        assert!(bytes == wanted, "{length} bytes from {from} to {to}");
    }

    #[test]
    fn what_is_moved_arrives_and_nothing_else_changes() {
        for length in (0..300).chain([500, 511, 1023, 1024, 1025, 4096, 5001, 70_001]) {
            // Apart, and overlapping by any number of bytes on either side.
            moves(0, length + 33, length);
            moves(length + 33, 0, length);
            let steps = (0..=70).chain([length / 2, length.saturating_sub(33), length.saturating_sub(1)]);
            for step in steps {
                moves(3, 3 + step, length);
                moves(3 + step, 3, length);
            }
        }
    }

    #[test]
    fn what_differs_first_decides() {
        let compare = |one: &[u8], other: &[u8]| {
            assert_eq!(one.len(), other.len());
            // SAFETY: both have that length.
            unsafe { cellblock_memcmp(one.as_ptr().cast(), other.as_ptr().cast(), one.len()) }
        };
        for length in (0..150).chain([1000, 4097]) {
            let one = pattern(length);
            assert_eq!(compare(&one, &one.clone()), 0, "{length}");
            for at in 0..length {
                let mut other = one.clone();
                // Beyond 127, where signed bytes would say the opposite, and a later difference the other way round.
                other[at] = one[at] ^ 0x80;
                if at + 1 < length {
                    other[length - 1] = one[length - 1].wrapping_add(if other[at] < one[at] { 1 } else { 255 });
                }
                let wanted = one.as_slice().cmp(other.as_slice()) as c_int;
                assert_eq!(compare(&one, &other).signum(), wanted, "{length} bytes, different at {at}");
                assert_eq!(compare(&other, &one).signum(), -wanted, "{length} bytes, different at {at}");
            }
        }
    }

    /// Nothing beyond the ends is touched: the page behind is not there.
    #[test]
    fn nothing_is_read_beyond_the_end() {
        let page = 4096;
        let (leave, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory, of nobody else's.
        let two = unsafe { libc::mmap(std::ptr::null_mut(), 2 * page, leave, kind, -1, 0) };
        assert_ne!(two, libc::MAP_FAILED);
        // SAFETY: the second of the two pages.
        assert_eq!(unsafe { libc::mprotect(two.wrapping_byte_add(page), page, libc::PROT_NONE) }, 0);
        for length in 0..200 {
            let (end, other) = (two.wrapping_byte_add(page - length), two.wrapping_byte_add(page / 2 - length));
            // SAFETY: within the first page, and apart from each other.
            unsafe { cellblock_memmove(other, end, length) };
            // SAFETY: the same.
            unsafe { cellblock_memmove(end, other, length) };
            // SAFETY: the same.
            assert_eq!(unsafe { cellblock_memcmp(end, other, length) }, 0);
        }
        // SAFETY: nothing refers to it any more.
        assert_eq!(unsafe { libc::munmap(two, 2 * page) }, 0);
    }
}
