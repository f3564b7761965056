//! The sets of descriptors that poll(2) and select(2) wait for, read from the memory of the
//! process that sleeps in them (proc_pid_mem(5)).

use super::calls::Wait;
use nix::libc;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// No more of these are looked at in one call: as many as the usual hard limit of open files is not
/// worth what reading them costs.
pub const MOST_DESCRIPTORS: u64 = 65_536;

/// `struct pollfd`: the descriptor, what is asked, what is answered.
const POLLFD: usize = size_of::<libc::pollfd>();

/// The descriptors that a thread waits for input on in poll(2) or select(2).
///
/// # Errors
///
/// The errors of pread(2) on the file; `UnexpectedEof` when the memory is gone with its process.
pub fn descriptors(memory: &File, wait: Wait) -> io::Result<Vec<i32>> {
    match wait {
        Wait::Poll { array, count } => {
            let bytes = read(memory, array, count * POLLFD as u64)?;
            Ok(polled(&bytes).collect())
        }
        // A thread that waits for no descriptor to be readable gives no set.
        Wait::Select { readable: 0, .. } => Ok(Vec::new()),
        Wait::Select { readable, count } => {
            let bytes = read(memory, readable, count.div_ceil(64) * 8)?;
            Ok(selected(&bytes, count).collect())
        }
        Wait::Descriptor(_) | Wait::Epoll(_) | Wait::Foreign | Wait::Other => Ok(Vec::new()),
    }
}

/// The number of descriptors that the thread may wait for.
pub fn count(wait: Wait) -> u64 {
    match wait {
        Wait::Poll { count, .. } | Wait::Select { count, .. } => count,
        Wait::Descriptor(_) | Wait::Epoll(_) | Wait::Foreign | Wait::Other => 1,
    }
}

fn read(memory: &File, address: u64, length: u64) -> io::Result<Vec<u8>> {
    // The caller has limited the count, so this is never cut off.
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    memory.read_exact_at(&mut bytes, address)?;
    Ok(bytes)
}

fn polled(bytes: &[u8]) -> impl Iterator<Item = i32> {
    bytes.chunks_exact(POLLFD).filter_map(|entry| {
        let (descriptor, rest) = entry.split_first_chunk()?;
        let events = i16::from_ne_bytes(*rest.first_chunk()?);
        let descriptor = i32::from_ne_bytes(*descriptor);
        // A negative one is not looked at by the kernel either.
        let asks = events & (libc::POLLIN | libc::POLLRDNORM) != 0;
        (asks && descriptor >= 0).then_some(descriptor)
    })
}

/// A `fd_set` is an array of `unsigned long`, in the order of this machine's bytes.
fn selected(bytes: &[u8], count: u64) -> impl Iterator<Item = i32> {
    let words = bytes.as_chunks::<8>().0.iter().enumerate();
    let set = words.flat_map(|(index, word)| {
        let word = u64::from_ne_bytes(*word);
        let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
        bits.map(move |bit| index as u64 * 64 + bit)
    });
    // The bits behind the count are whatever the memory held.
    let set = set.take_while(move |descriptor| *descriptor < count);
    set.filter_map(|descriptor| i32::try_from(descriptor).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_descriptors_that_are_polled_for_input_count() {
        let entries = [
            (3, libc::POLLIN),
            (4, libc::POLLOUT),
            (-1, libc::POLLIN),
            (5, libc::POLLIN | libc::POLLOUT),
            (6, libc::POLLRDNORM),
            (7, 0),
        ];
        let bytes = entries.iter().flat_map(|(descriptor, events)| {
            let descriptor: i32 = *descriptor;
            let mut entry = descriptor.to_ne_bytes().to_vec();
            entry.extend(events.to_ne_bytes());
            entry.extend([0xff; 2]);
            entry
        });
        let found: Vec<i32> = polled(&bytes.collect::<Vec<u8>>()).collect();
        assert_eq!(found, [3, 5, 6]);
    }

    #[test]
    fn bits_behind_the_count_do_not_count() {
        let words = [1_u64 << 3 | 1 << 63, 1 | 1 << 5];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        assert_eq!(selected(&bytes, 69).collect::<Vec<_>>(), [3, 63, 64]);
        assert_eq!(selected(&bytes, 70).collect::<Vec<_>>(), [3, 63, 64, 69]);
        assert_eq!(selected(&bytes, 3).count(), 0);
    }
}
