//! The heap of the static program: dlmalloc's, behind a lock that costs two instructions when nobody else wants it.
//!
//! musl's own takes memory from the kernel and gives it back 250 times a start. `dlmalloc`'s own global heap takes a lock of `pthread_mutex_lock(3)`,
//! which is a tenth of the time that a start computes.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::Dlmalloc;

/// A heap for `#[global_allocator]`.
pub struct Heap(Mutex<Dlmalloc>);

impl Heap {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Dlmalloc::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Dlmalloc> {
        // The lock itself allocates nothing, and nobody panics while they hold it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Heap {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Heap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heap").finish_non_exhaustive()
    }
}

// SAFETY: dlmalloc gives memory of the size and alignment that it is asked for, which stays where it is and belongs to nobody else until it is given
// back; it never panics over a request; and the lock makes one caller wait for the other.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise: the size is not 0.
        unsafe { self.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the same.
        unsafe { self.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: `ptr` is from here, and this is its layout.
        unsafe { self.lock().free(ptr, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the same, and the new size is not 0 either.
        unsafe { self.lock().realloc(ptr, layout.size(), layout.align(), new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Several threads, blocks of many sizes and alignments: each is whole as long as it is held.
    #[test]
    fn blocks_do_not_overlap() {
        static HEAP: Heap = Heap::new();
        let work = |thread: u8| {
            let mut held: Vec<(*mut u8, Layout)> = Vec::new();
            for round in 0..4000_usize {
                let layout = Layout::from_size_align(1 + round * 37 % 5000, 1 << (round % 8)).expect("a layout");
                let take: unsafe fn(&Heap, Layout) -> *mut u8 =
                    if round % 3 == 0 { Heap::alloc_zeroed } else { Heap::alloc };
                // SAFETY: the size is not 0.
                let block = unsafe { take(&HEAP, layout) };
                assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
                // SAFETY: of that size, and ours.
                let bytes = unsafe { std::slice::from_raw_parts_mut(block, layout.size()) };
                assert!(round % 3 != 0 || bytes.iter().all(|byte| *byte == 0));
                bytes.fill(thread);
                held.push((block, layout));
                if round % 5 == 4 {
                    let (block, layout) = held.swap_remove(round * 31 % held.len());
                    // SAFETY: from this heap, with this layout.
                    let block = unsafe { HEAP.realloc(block, layout, layout.size() * 2) };
                    // SAFETY: at least that much was written by this thread.
                    assert!(unsafe { std::slice::from_raw_parts(block, layout.size()) }.iter().all(|b| *b == thread));
                    let layout = Layout::from_size_align(layout.size() * 2, layout.align()).expect("a layout");
                    // SAFETY: the same.
                    unsafe { HEAP.dealloc(block, layout) };
                }
            }
            for (block, layout) in held {
                // SAFETY: written by this thread, and of that size.
                assert!(unsafe { std::slice::from_raw_parts(block, layout.size()) }.iter().all(|b| *b == thread));
                // SAFETY: from this heap, with this layout.
                unsafe { HEAP.dealloc(block, layout) };
            }
        };
        std::thread::scope(|scope| {
            for thread in 1..5 {
                scope.spawn(move || work(thread));
            }
        });
    }
}
