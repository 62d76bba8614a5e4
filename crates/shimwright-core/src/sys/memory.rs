//! Mappings, files in memory, huge pages, and releasing pages.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use memmap2::{Mmap, MmapOptions};
use rustix::fs::{MemfdFlags, SealFlags};

/// Bytes that are either owned or a read-only private mapping of a file.
#[derive(Debug)]
pub(crate) enum Mapping {
    Owned(Vec<u8>),
    Mapped(Mmap),
}

impl Mapping {
    /// Maps all of `file`. An empty file gives no bytes.
    pub(crate) fn of_file(file: BorrowedFd<'_>) -> io::Result<Self> {
        let length = usize::try_from(rustix::fs::fstat(file)?.st_size)
            .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if length == 0 {
            return Ok(Self::Owned(Vec::new()));
        }
        let mut options = MmapOptions::new();
        // SAFETY: a file that shrinks meanwhile ends the process with SIGBUS; one that changes is
        // still initialised memory, and what reads it validates it.
        let mapped = unsafe { options.len(length).map_copy_read_only(file.as_raw_fd())? };
        Ok(Self::Mapped(mapped))
    }
}

impl From<Vec<u8>> for Mapping {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Mapped(mapped) => mapped,
        }
    }
}

/// A mapping through which a test writes to a file.
#[cfg(test)]
#[derive(Debug)]
pub(crate) struct SharedMapping {
    address: *mut u8,
    length: usize,
}

#[cfg(test)]
impl SharedMapping {
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let access = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
        let shared = rustix::mm::MapFlags::SHARED;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing of ours.
        let address =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, access, shared, file, 0)? };
        let address = address.cast();
        Ok(Self { address, length })
    }

    pub(crate) fn write(&mut self, at: usize, value: u8) {
        assert!(at < self.length);
        // SAFETY: the place is in the mapping, which lives as long as the process.
        unsafe { self.address.add(at).write_volatile(value) };
    }
}

/// Writes the dirty pages of a file back and waits for it, without its metadata
/// (`sync_file_range(2)`). From then on a write through a mapping is seen by the file system.
pub(crate) fn write_back(file: &File) -> io::Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: it takes a descriptor, which is open, and integers; 0 bytes mean all.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// An anonymous file in memory that [`seal`] can make read-only.
pub(crate) fn sealable_memfd(name: &CStr) -> io::Result<File> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    Ok(File::from(fd))
}

/// Forbids every further change of a [`sealable_memfd`].
pub(crate) fn seal(file: impl AsFd) -> io::Result<()> {
    let all = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    Ok(rustix::fs::fcntl_add_seals(file, all)?)
}

/// Forbids transparent huge pages for this process and its children: a small process that
/// touches two bytes of its heap should not hold two megabytes.
pub(crate) fn disable_huge_pages() {
    // SAFETY: `PR_SET_THP_DISABLE` takes integers only. A kernel without it changes nothing.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// Lets go of the pages of code and constants that this process has touched; what is touched again
/// comes back from the page cache.
pub(crate) fn release_code() {
    unsafe extern "C" fn release(
        object: *mut libc::dl_phdr_info,
        _: libc::size_t,
        _: *mut libc::c_void,
    ) -> libc::c_int {
        // SAFETY: `dl_iterate_phdr` passes a description that is valid during this call.
        let object = unsafe { &*object };
        // SAFETY: there are `dlpi_phnum` headers, which are mapped as long as the object is.
        let headers =
            unsafe { std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
        if has_relocated_code(object.dlpi_addr, headers) {
            return 0;
        }
        for header in headers {
            if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
                continue;
            }
            // SAFETY: this asks for a number.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.unsigned_abs();
            let begin = (object.dlpi_addr + header.p_vaddr).next_multiple_of(page);
            let end = (object.dlpi_addr + header.p_vaddr + header.p_memsz) / page * page;
            if begin < end {
                // SAFETY: nobody can have written to these whole pages of a private mapping of a
                // file, so they are the file's, as they will be again: the kernel itself may take
                // such pages away at any time. A failure changes nothing.
                unsafe {
                    libc::madvise(
                        begin as *mut libc::c_void,
                        (end - begin) as libc::size_t,
                        libc::MADV_DONTNEED,
                    )
                };
            }
        }
        0
    }
    // SAFETY: the function keeps to what `dl_iterate_phdr(3)` asks of it, and cannot unwind.
    unsafe { libc::dl_iterate_phdr(Some(release), std::ptr::null_mut()) };
}

/// Whether the code of an object that is loaded at `base` was written to when it was, in the way of
/// libraries that were not compiled to be any (`DT_TEXTREL`, `DF_TEXTREL` of `elf(5)`).
fn has_relocated_code(base: libc::Elf64_Addr, headers: &[libc::Elf64_Phdr]) -> bool {
    const DT_NULL: u64 = 0;
    const DT_TEXTREL: u64 = 22;
    const DT_FLAGS: u64 = 30;
    const DF_TEXTREL: u64 = 4;
    let Some(dynamic) = headers.iter().find(|h| h.p_type == libc::PT_DYNAMIC) else {
        return false;
    };
    let mut entry = (base + dynamic.p_vaddr) as *const [u64; 2];
    loop {
        // SAFETY: the section is mapped, and ends with an entry of `DT_NULL`.
        match unsafe { entry.read() } {
            [DT_NULL, _] => return false,
            [DT_TEXTREL, _] => return true,
            [DT_FLAGS, flags] if flags & DF_TEXTREL != 0 => return true,
            // SAFETY: this is not the last entry.
            _ => entry = unsafe { entry.add(1) },
        }
    }
}

/// Gives the kernel back what was freed on the heap, as far as the C library can.
pub(crate) fn release_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it touches free memory only, and takes the allocator's own locks.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Undoes [`disable_huge_pages`] for a program that is not ours.
pub(crate) fn allow_huge_pages() {
    // SAFETY: `PR_SET_THP_DISABLE` takes integers only.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 0, 0, 0, 0) };
}

/// Has the kernel refuse to make memory executable that was not, or writable memory executable, in
/// this process and for good (`PR_SET_MDWE` of `prctl(2)`). A kernel before 6.3 changes nothing.
pub(crate) fn deny_write_execute() {
    // SAFETY: the call takes integers only, and changes no mapping that there is.
    unsafe {
        libc::prctl(
            libc::PR_SET_MDWE,
            libc::c_ulong::from(libc::PR_MDWE_REFUSE_EXEC_GAIN),
            0_u64,
            0_u64,
            0_u64,
        )
    };
}
