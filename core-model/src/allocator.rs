//! The allocator of the programs: mimalloc, told to keep what is freed.
//!
//! A training step at the size of Stable Diffusion frees and asks again for several gigabytes. Where
//! they go back to the operating system in between, it clears every page anew for each step.

use libmimalloc_sys::{mi_option_large_os_pages, mi_option_set_default, mi_option_t};
pub use mimalloc::MiMalloc;

/// `mi_option_purge_delay`: after how many milliseconds freed memory goes back; never with -1. The
/// number is that of mimalloc's header, whose order of options is part of its interface.
const PURGE_DELAY: mi_option_t = 15;

/// Makes the allocator keep freed memory for later requests and ask for large pages. The first thing
/// that a program does; mimalloc's own environment variables (`MIMALLOC_PURGE_DELAY`,
/// `MIMALLOC_ALLOW_LARGE_OS_PAGES`) override it.
pub fn keep_freed_memory() {
    #[expect(
        unsafe_code,
        reason = "options of the allocator are set by its C functions"
    )]
    // SAFETY: both options exist, and no other thread was started yet that could read them.
    unsafe {
        mi_option_set_default(PURGE_DELAY, -1);
        mi_option_set_default(mi_option_large_os_pages, 1);
    }
}
