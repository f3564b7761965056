//! Short files of /proc.

use std::fs::File;
use std::io::{self, ErrorKind, Read};

/// The longest that is read: a path of a control group can have 4 KiB.
const LENGTH_MAX: usize = 8 * 1024;

/// A file in /proc/PID, or its first 8 KiB. The kernel gives all of it in one read(2), so that neither its
/// size, which /proc does not know, nor its end has to be asked for.
///
/// # Errors
///
/// The errors of open(2) and read(2): ENOENT or ESRCH when the process is gone.
pub fn read_proc_file(pid: i32, name: &str) -> io::Result<Vec<u8>> {
    let mut file = File::open(format!("/proc/{pid}/{name}"))?;
    let mut bytes = vec![0; LENGTH_MAX];
    loop {
        match file.read(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
