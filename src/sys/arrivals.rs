//! Whether anybody has come to a socket since it was asked last, without being woken for it.
//!
//! Who accepts soon enough leaves no trace in epoll(7) of the others who have the socket: it looks again
//! whether there is something before it says so. A poll request of io_submit(2) (IOCB_CMD_POLL, Linux 4.18) is
//! completed by the wakeup itself, on the kernel's side; that is read when it is of interest.
//!
//! A request holds the open file, so that a socket that listend closes would go on listening. It is taken
//! back before any descriptor that a [`super::SharedFd`] has is closed.

use nix::libc::{self, c_long};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

/// So many sockets can be watched at once, of the 65536 that `fs.aio-max-nr` allows on a machine.
const MOST: u32 = 1024;
/// From linux/aio_abi.h.
const IOCB_CMD_POLL: u16 = 5;
/// How long it is waited for a request that was taken back, and how often. The kernel takes
/// microseconds.
const TAKEN_BACK: Duration = Duration::from_millis(5);
const WAITS: u32 = 4;

/// What has come to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Nothing since it was watched.
    None,
    /// A client, a datagram or an end.
    Some,
    /// The socket is not watched.
    Unwatched,
}

/// struct iocb of linux/aio_abi.h.
#[repr(C)]
#[derive(Debug, Default)]
struct Request {
    data: u64,
    #[cfg(target_endian = "little")]
    key: u32,
    rw_flags: i32,
    #[cfg(target_endian = "big")]
    key: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    resfd: u32,
}

/// struct io_event of linux/aio_abi.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Done {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

thread_local! {
    static ARRIVALS: RefCell<Option<Arrivals>> = const { RefCell::new(None) };
}

struct Arrivals {
    /// aio_context_t.
    context: libc::c_ulong,
    /// By descriptor: the request under way, whose address names it, or `None` once it is completed.
    watched: BTreeMap<RawFd, Option<Box<Request>>>,
}

/// Notices what comes to a socket from now on.
///
/// # Errors
///
/// io_setup(2) or io_submit(2) failed: the kernel has neither, or no room.
pub fn watch_arrivals(socket: &impl AsRawFd) -> io::Result<()> {
    ARRIVALS.with_borrow_mut(|arrivals| {
        let arrivals = match arrivals {
            Some(arrivals) => arrivals,
            None => arrivals.insert(Arrivals::new()?),
        };
        arrivals.watch(socket.as_raw_fd())
    })
}

/// What has come to a socket since it was last watched.
pub fn arrived(socket: &impl AsRawFd) -> Arrival {
    ARRIVALS.with_borrow_mut(|arrivals| {
        let Some(arrivals) = arrivals else {
            return Arrival::Unwatched;
        };
        arrivals.read(Duration::ZERO);
        match arrivals.watched.get(&socket.as_raw_fd()) {
            None => Arrival::Unwatched,
            Some(None) => Arrival::Some,
            Some(Some(_)) => Arrival::None,
        }
    })
}

/// A descriptor is about to be closed.
pub(super) fn forget_arrivals(socket: RawFd) {
    // It may be that of a thread that ends.
    let _ends = ARRIVALS.try_with(|arrivals| {
        if let Ok(mut arrivals) = arrivals.try_borrow_mut()
            && let Some(arrivals) = &mut *arrivals
        {
            arrivals.take_back(socket);
        }
    });
}

impl Arrivals {
    fn new() -> io::Result<Arrivals> {
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes one number, which lives here.
        let done =
            unsafe { libc::syscall(libc::SYS_io_setup, c_long::from(MOST), &raw mut context) };
        match done {
            0 => Ok(Arrivals {
                context,
                watched: BTreeMap::new(),
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn watch(&mut self, socket: RawFd) -> io::Result<()> {
        if let Some(Some(_)) = self.watched.get(&socket) {
            return Ok(());
        }
        self.watched.remove(&socket);
        let number = socket.cast_unsigned();
        let mut request = Box::new(Request {
            data: number.into(),
            opcode: IOCB_CMD_POLL,
            fd: number,
            buffer: libc::POLLIN.cast_unsigned().into(),
            ..Request::default()
        });
        let requests: [*mut Request; 1] = [&raw mut *request];
        // SAFETY: the context is that of io_setup, and the list names one request. The kernel reads it before
        // it returns, and keeps its address only as a name.
        let done = unsafe {
            libc::syscall(
                libc::SYS_io_submit,
                self.context,
                1 as c_long,
                requests.as_ptr(),
            )
        };
        if done != 1 {
            return Err(io::Error::last_os_error());
        }
        self.watched.insert(socket, Some(request));
        Ok(())
    }

    /// Notes what is completed, or waits so long for something to be.
    fn read(&mut self, wait: Duration) {
        const AT_ONCE: usize = 64;
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: wait.subsec_nanos().cast_signed().into(),
        };
        let mut least = c_long::from(!wait.is_zero());
        loop {
            let mut done = [Done::default(); AT_ONCE];
            // SAFETY: the kernel writes at most as many events as there is room for; the time lives here.
            let count = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.context,
                    least,
                    AT_ONCE as c_long,
                    done.as_mut_ptr(),
                    &raw mut time,
                )
            };
            let count = usize::try_from(count).unwrap_or_default();
            for one in done.iter().take(count) {
                let socket = u32::try_from(one.data).map(u32::cast_signed);
                if let Some(watched) = socket.ok().and_then(|fd| self.watched.get_mut(&fd)) {
                    *watched = None;
                }
            }
            if count < AT_ONCE {
                return;
            }
            least = 0;
        }
    }

    /// Has the kernel let go of a socket.
    fn take_back(&mut self, socket: RawFd) {
        let Some(Some(request)) = self.watched.get(&socket) else {
            self.watched.remove(&socket);
            return;
        };
        let mut done = Done::default();
        // SAFETY: the request was submitted to this context and its memory is still there; the kernel writes
        // nothing but a result, which lives here. That it is completed already is no harm.
        unsafe {
            libc::syscall(
                libc::SYS_io_cancel,
                self.context,
                ptr::from_ref::<Request>(request),
                &raw mut done,
            );
        }
        for _ in 0..WAITS {
            if let Some(None) | None = self.watched.get(&socket) {
                break;
            }
            // That of another one may come first.
            self.read(TAKEN_BACK);
        }
        self.watched.remove(&socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::SharedFd;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::OwnedFd;

    #[test]
    fn who_was_accepted_at_once_has_come_all_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(arrived(&listener), Arrival::Unwatched);
        let address = listener.local_addr().unwrap();
        for _ in 0..100 {
            watch_arrivals(&listener).unwrap();
            assert_eq!(arrived(&listener), Arrival::None);
            let _client = TcpStream::connect(address).unwrap();
            listener.accept().unwrap();
            assert_eq!(arrived(&listener), Arrival::Some);
        }
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        watch_arrivals(&socket).unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        socket.recv(&mut [0]).unwrap();
        assert_eq!(arrived(&socket), Arrival::Some);
        assert_eq!(arrived(&listener), Arrival::Some);
        for fd in [listener.as_raw_fd(), socket.as_raw_fd()] {
            forget_arrivals(fd);
        }
    }

    #[test]
    fn a_socket_that_is_closed_does_not_go_on_listening() {
        for _ in 0..100 {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            watch_arrivals(&listener).unwrap();
            drop(SharedFd::from(OwnedFd::from(listener)));
            // The kernel may have it for the length of its own last step.
            while TcpListener::bind(address).is_err() {
                std::thread::yield_now();
            }
        }
    }
}
