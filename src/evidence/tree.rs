//! The processes and threads of an instance.

use std::fs;
use std::io;
use std::path::Path;

/// Whether the kernel lists children (CONFIG_PROC_CHILDREN, since Linux 3.5).
pub fn lists_children() -> bool {
    Path::new("/proc/thread-self/children").exists()
}

/// The threads of a process.
///
/// # Errors
///
/// The errors of opendir(3): ENOENT when it is gone.
pub fn threads(pid: i32) -> io::Result<Vec<i32>> {
    Ok(numbers(fs::read_dir(format!("/proc/{pid}/task"))?).collect())
}

/// The children that a thread has started and that have not been waited for.
///
/// # Errors
///
/// The errors of open(2) and read(2): ENOENT when it is gone.
pub fn children(pid: i32, thread: i32) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/children"))?;
    let words = text.split_ascii_whitespace();
    Ok(words.filter_map(|word| word.parse().ok()).collect())
}

/// The other processes of the session that a process leads, in no order. It reads a file of every
/// process of the machine.
///
/// # Errors
///
/// The errors of opendir(3) on /proc.
pub fn session(leader: i32) -> io::Result<Vec<i32>> {
    let is_in_it = |pid: &i32| {
        let process = procfs::process::Process::new(*pid);
        let stat = process.and_then(|process| process.stat());
        // One that is gone meanwhile is not in it.
        *pid != leader && stat.is_ok_and(|stat| stat.session == leader)
    };
    Ok(numbers(fs::read_dir("/proc")?).filter(is_in_it).collect())
}

/// Whether a process has ended or is about to: it has given back its memory.
pub fn has_ended(pid: i32) -> bool {
    let process = procfs::process::Process::new(pid);
    match process.and_then(|process| process.stat()) {
        Ok(stat) => stat.vsize == 0,
        Err(error) => matches!(error, procfs::ProcError::NotFound(_)),
    }
}

/// The entries whose names are numbers.
pub fn numbers(folder: fs::ReadDir) -> impl Iterator<Item = i32> {
    folder.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
