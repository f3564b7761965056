//! Memory that is not needed any more.

/// Gives what start-up has freed back to the kernel: the texts and trees of a large configuration.
/// A no-op where the C library has no malloc_trim(3).
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointers and may be called at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// Unmaps the pages of listend's own code: most of what start-up has run, such as the reader of the
/// YAML, is never run again. What is run again is mapped again at its first use, from the page cache.
pub fn forget_code() {
    // SAFETY: the callback does what `unmap_code` says, and nothing is kept of what it is given.
    unsafe {
        nix::libc::dl_iterate_phdr(Some(unmap_code), std::ptr::null_mut());
    }
}

/// Called for each object that the dynamic loader has mapped (dl_iterate_phdr(3)); the program itself
/// is the first, and the value that is not 0 ends the list there.
///
/// # Safety
///
/// `info` is what dl_iterate_phdr gives.
unsafe extern "C" fn unmap_code(
    info: *mut nix::libc::dl_phdr_info,
    _size: usize,
    _data: *mut std::ffi::c_void,
) -> std::ffi::c_int {
    use nix::libc::{MADV_DONTNEED, PF_W, PF_X, PT_LOAD, madvise};
    // SAFETY: dl_iterate_phdr gives a valid structure, with so many headers.
    let (base, headers) = unsafe {
        let info = &*info;
        let count = usize::from(info.dlpi_phnum);
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, count);
        (info.dlpi_addr as usize, headers)
    };
    let is_code = |flags: u32| flags & PF_X != 0 && flags & PF_W == 0;
    for header in headers {
        if header.p_type != PT_LOAD || !is_code(header.p_flags) {
            continue;
        }
        let start = base + header.p_vaddr as usize;
        // Segments begin at a page of the size that the machine has (elf(5), p_align).
        let page = start & !(header.p_align.max(1) as usize - 1);
        let length = header.p_memsz as usize + (start - page);
        // SAFETY: the segment is mapped from a file, and can be neither written nor relocated, so
        // that what is read again is what was there (madvise(2), MADV_DONTNEED). A failure only
        // leaves it mapped.
        unsafe {
            madvise(page as *mut std::ffi::c_void, length, MADV_DONTNEED);
        }
    }
    1
}
