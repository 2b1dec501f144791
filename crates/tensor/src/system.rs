//! The four places where this crate needs `unsafe`: mapping a file, loading the CUDA half of libtorch, code for wider
//! vectors than every processor has, and a setting of the allocator.
#![expect(
    unsafe_code,
    reason = "mmap, dlopen, CPU features and mallopt are unsafe by nature; every other module is checked by the compiler"
)]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

/// A file's bytes, mapped read-only.
#[derive(Debug)]
pub(crate) struct MappedFile(memmap2::Mmap);

impl MappedFile {
    /// Maps the whole of a file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the bytes must not change while they are mapped. Artifacts in the store are read-only and never
        // replaced; a user's own model directory is looked at again before a result is committed, so that a model that
        // changed under a running stage fails it. Nothing here depends on the bytes for memory safety: headers are
        // checked once and every read is a bounds-checked copy. A file that shrinks ends this process, not the run.
        unsafe { memmap2::Mmap::map(&file) }.map(Self)
    }

    /// Counts these bytes no longer as this process's memory; the next access reads them again, from the page cache or the
    /// file.
    pub(crate) fn let_go(&self, range: Range<usize>) {
        #[cfg(unix)]
        // SAFETY: the map is shared and read-only, so that dropping its pages loses nothing. It is a hint: a failure is none.
        let _ = unsafe { self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
    }

    /// Asks the system to read these bytes ahead; a system that cannot reads them when they are used.
    pub(crate) fn will_need(&self, range: Range<usize>) {
        let _ = self.0.advise_range(memmap2::Advice::WillNeed, range.start, range.len());
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Runs a loop that is compiled again for processors with 256-bit and with 512-bit vectors, where this is one. Arithmetic is
/// the same to the bit: nothing is reordered, and products and sums are not fused.
#[inline]
pub(crate) fn vectorized<L: Loop>(work: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;

        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_avx512<L: Loop>(work: L) -> L::Output {
            work.run()
        }
        #[target_feature(enable = "avx2")]
        fn with_avx2<L: Loop>(work: L) -> L::Output {
            work.run()
        }
        if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { with_avx512(work) };
        }
        if has!("avx2") {
            // SAFETY: as above.
            return unsafe { with_avx2(work) };
        }
    }
    work.run()
}

/// A loop for [`vectorized`]: any closure, and what is too large for the compiler to take a closure apart for each width.
pub(crate) trait Loop {
    /// What comes of it.
    type Output;

    /// Does it; to be `#[inline(always)]`.
    fn run(self) -> Self::Output;
}

impl<R, F: FnOnce() -> R> Loop for F {
    type Output = R;

    #[inline]
    fn run(self) -> R {
        self()
    }
}

/// Makes all threads allocate from one arena, to be called before there are any.
///
/// Tensors come and go by the ten megabytes here, on threads that come and go as well. With an arena for each of them, what one
/// freed is of no use to the next: glibc holds up to twice of what is in use.
pub(crate) fn share_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets a number of the allocator's, under its lock. Where it is refused, nothing changes.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Loads a shared library for the life of the process, its symbols visible to what is loaded already.
pub(crate) fn load_for_good(path: &Path) -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};
    // SAFETY: loading runs the library's initialisers. It is the other half of the libtorch that this process already
    // runs, from the same directory, and it is never unloaded.
    let library = unsafe { Library::open(Some(path), RTLD_LAZY | RTLD_GLOBAL) }.map_err(|error| error.to_string())?;
    std::mem::forget(library);
    Ok(())
}
