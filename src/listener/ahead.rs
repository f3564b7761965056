//! Binds the plain sockets of a large plan ahead of the others, in two threads: binding is the kernel's work, and a
//! second processor has nothing else to do at the start.
//!
//! Nothing else follows from it. Only what could be bound counts; what failed is bound once more when its turn comes,
//! so that every error is met in the order of the plan. A socket is plain if it needs nothing of the process that
//! threads share or have for themselves (umask, network namespace), and no other that is not plain has its port. Those
//! of one port are bound by one thread, in their order: they may be in each other's way. Nothing is bound ahead where
//! something runs short (descriptors, memory), since who gets the last of it depends on the order.

use super::inet::{self, Wanted};
use super::read_back::Effective;
use super::table::Adopted;
use crate::config::Endpoint;
use crate::plan::{ListenerId, ListenerPlan, Plan, SocketPlan};
use crate::sys;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow};
use socket2::{Domain, Socket, Type};
use std::collections::HashSet;
use std::iter::Peekable;
use std::os::fd::AsRawFd;
use std::thread;
use std::vec::IntoIter;

/// Fewer take less time than it takes to start a thread for them.
const MANY: usize = 500;

/// Far more than the calls need.
const STACK: usize = 256 << 10;

/// What was bound ahead, in the order of the plan.
#[derive(Debug, Default)]
pub(super) struct Ahead(Option<Peekable<IntoIter<Done>>>);

/// A socket by its listener and its index there, with its effective options.
type Done = ((ListenerId, usize), (Socket, Vec<Effective>));

/// A socket that can be bound by any thread.
#[derive(Clone, Copy)]
struct Plain<'p> {
    of: (ListenerId, usize),
    listener: &'p ListenerPlan,
    endpoint: &'p Endpoint,
    wanted: Wanted,
}

/// Something runs short.
struct Short;

impl Ahead {
    /// Binds what is plain, if that is much and there are processors for it. All threads have ended when this returns.
    pub(super) fn of(plan: &Plan, adopted: &Adopted) -> Ahead {
        let mut plain = plain(plan, adopted);
        if plain.len() < MANY || !thread::available_parallelism().is_ok_and(|all| all.get() > 1) {
            return Ahead::default();
        }
        plain.sort_by_key(Plain::port);
        let Some((first, second)) = halves(&plain) else {
            return Ahead::default();
        };
        let mut done = in_two_threads(first, second).unwrap_or_default();
        done.sort_by_key(|(of, _)| *of);
        Ahead(Some(done.into_iter().peekable()))
    }

    /// The socket, if it was bound ahead. They are to be asked for in the order of the plan.
    pub(super) fn take(
        &mut self,
        listener: ListenerId,
        socket: usize,
    ) -> Option<(Socket, Vec<Effective>)> {
        let done = self.0.as_mut()?;
        let (_, bound) = done.next_if(|(of, _)| *of == (listener, socket))?;
        Some(bound)
    }
}

impl Plain<'_> {
    fn port(&self) -> u16 {
        self.wanted.address.port()
    }
}

/// The plain sockets of a plan, in its order.
fn plain<'p>(plan: &'p Plan, adopted: &Adopted) -> Vec<Plain<'p>> {
    let mut plain = Vec::new();
    let mut others = HashSet::new();
    for (id, listener) in plan.listeners() {
        let all_alike = listener.settings.network_namespace.is_none()
            && listener.settings.multicast.is_empty()
            && listener.shards() == 1;
        for (index, SocketPlan { endpoint, key, .. }) in listener.sockets.iter().enumerate() {
            let Endpoint::Inet {
                transport,
                address,
                v6_only,
                scope,
                ..
            } = endpoint
            else {
                continue;
            };
            let is_plain = all_alike && scope.is_none() && address.port() != 0;
            if !is_plain || adopted.contains_key(key) {
                others.insert(address.port());
                continue;
            }
            plain.push(Plain {
                of: (id, index),
                listener,
                endpoint,
                wanted: Wanted {
                    transport: *transport,
                    address: *address,
                    v6_only: *v6_only,
                },
            });
        }
    }
    if !others.is_empty() {
        plain.retain(|one| !others.contains(&one.port()));
    }
    plain
}

/// Two parts of about the same length that have no port in common.
fn halves<'a, 'p>(by_port: &'a [Plain<'p>]) -> Option<(&'a [Plain<'p>], &'a [Plain<'p>])> {
    let middle = by_port.get(by_port.len() / 2)?.port();
    let before = by_port.partition_point(|one| one.port() < middle);
    let behind = by_port.partition_point(|one| one.port() <= middle);
    let is_nearer = before.min(by_port.len() - before) >= behind.min(by_port.len() - behind);
    let at = if is_nearer { before } else { behind };
    (0 < at && at < by_port.len()).then(|| by_port.split_at(at))
}

/// Binds both parts at once. `None` if something runs short or no thread can be had; everything is closed again then.
fn in_two_threads(first: &[Plain<'_>], second: &[Plain<'_>]) -> Option<Vec<Done>> {
    make_room(first.len() + second.len())?;
    // A signal is for the main thread, whose system calls it is to interrupt. The new one inherits the mask.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok()?;
    let mut done = Vec::with_capacity(first.len() + second.len());
    let theirs = Vec::with_capacity(second.len());
    let second = thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK);
        let thread = thread.spawn_scoped(scope, move || {
            let mut theirs = theirs;
            bind(second, &mut theirs).map(|()| theirs)
        });
        let _both = mask.thread_set_mask();
        let thread = thread.ok()?;
        let first = bind(first, &mut done);
        let second = thread.join().ok()?.ok()?;
        first.ok().map(|()| second)
    })?;
    done.extend(second);
    Some(done)
}

/// Has the kernel make its table of descriptors long enough before there is a thread: it cannot replace it by a longer
/// one, as it does many times, without waiting for all processors each time.
fn make_room(sockets: usize) -> Option<()> {
    let any = Socket::new(Domain::UNIX, Type::DGRAM, None).ok()?;
    let last = usize::try_from(any.as_raw_fd()).ok()? + sockets;
    sys::grow_descriptor_table(&any, i32::try_from(last).ok()?).ok()
}

fn bind(sockets: &[Plain<'_>], done: &mut Vec<Done>) -> Result<(), Short> {
    for one in sockets {
        match inet::bind(one.endpoint, one.wanted, one.listener) {
            Ok(bound) => done.push((one.of, bound)),
            Err(failure) if is_short(failure.errno) => return Err(Short),
            Err(_met_again_in_its_turn) => {}
        }
    }
    Ok(())
}

fn is_short(errno: i32) -> bool {
    matches!(
        errno,
        libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Transport;
    use crate::listener::{Purpose, bind_all};
    use crate::plan::{Access, SocketKey};
    use crate::report::Place;
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::path::PathBuf;

    const PORTS: u16 = 12;
    const COUNT: u16 = 50 * PORTS;

    /// No two tests that run have one in common, and no listener of theirs has these ports.
    fn address(test: u8, index: u16) -> SocketAddr {
        let [.., high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, 64 + test + high % 64, low, 1 + (index / PORTS) as u8);
        SocketAddr::from((ip, 7101 + index % PORTS))
    }

    fn listener(index: u16, address: SocketAddr) -> ListenerPlan {
        let socket = SocketPlan {
            key: SocketKey::default(),
            endpoint: Endpoint::Inet {
                transport: Transport::Tcp,
                address,
                v6_only: true,
                optional: false,
                scope: None,
            },
            shard: 0,
            place: Place::default(),
        };
        ListenerPlan::new(format!("l{index}"), vec![socket], 16, Access::PRIVATE)
    }

    fn listeners(test: u8) -> impl Iterator<Item = ListenerPlan> {
        (0..COUNT).map(move |index| listener(index, address(test, index)))
    }

    fn allow_many_descriptors() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    }

    fn has_processors() -> bool {
        thread::available_parallelism().unwrap().get() > 1
    }

    #[test]
    fn whichever_thread_meets_an_error_it_comes_in_the_order_of_the_plan() {
        allow_many_descriptors();
        let held = [3, 4, 17, 300, 301, 599];
        let holders = held.map(|index| TcpListener::bind(address(0, index)).unwrap());
        let plan = Plan::new(listeners(0), []);
        let outcome = bind_all(&plan, Purpose::Keep, Adopted::default());
        let errors = outcome.errors.iter();
        let errors: Vec<_> = errors.map(|one| (one.listener.0, one.errno)).collect();
        let wanted = held.map(|index| (u32::from(index), libc::EADDRINUSE));
        assert_eq!(errors, wanted);
        for (id, listener) in plan.listeners() {
            let socket = outcome.bound.get(listener.sockets[0].key);
            let found = socket.map(|socket| crate::listener::endpoint_of(&socket.fd).unwrap());
            let is_free = !held.map(u32::from).contains(&id.0);
            let wanted = is_free.then(|| listener.sockets[0].endpoint.to_string());
            assert_eq!(found.map(|found| found.to_string()), wanted, "{id:?}");
            assert_eq!(socket.map(|socket| socket.listener), is_free.then_some(id));
        }
        drop((outcome, holders));
        // Tried only, all of them are free again afterwards.
        for _ in 0..2 {
            let outcome = bind_all(&plan, Purpose::Try, Adopted::default());
            assert_eq!(outcome.errors, []);
        }
    }

    #[test]
    fn what_is_bound_ahead_is_given_out_in_its_turn() {
        allow_many_descriptors();
        let plan = Plan::new(listeners(1), []);
        let mut ahead = Ahead::of(&plan, &Adopted::default());
        for (id, listener) in plan.listeners() {
            assert!(ahead.take(id, 1).is_none());
            let bound = ahead.take(id, 0);
            assert_eq!(bound.is_some(), has_processors(), "{id:?}");
            let Some((socket, effective)) = bound else {
                continue;
            };
            assert!(effective.is_empty());
            let address = socket.local_addr().unwrap().as_socket();
            assert_eq!(
                address.unwrap().to_string(),
                listener.sockets[0].endpoint.to_string()
            );
            assert!(ahead.take(id, 0).is_none());
        }
    }

    #[test]
    fn a_port_is_not_bound_ahead_that_a_socket_has_which_is_not_plain() {
        let of_ports = |others: &[ListenerPlan], adopted: &Adopted| {
            let all = listeners(2).take(24).chain(others.iter().cloned());
            let plan = Plan::new(all, []);
            let plain = plain(&plan, adopted);
            let mut ports: Vec<u16> = plain.iter().map(|one| one.port() - 7100).collect();
            assert!(plain.is_sorted_by_key(|one| one.of));
            ports.sort_unstable();
            ports.dedup();
            ports
        };
        let none = Adopted::default();
        let all: Vec<u16> = (1..=12).collect();
        assert_eq!(of_ports(&[], &none), all);
        let other = |port: u16| listener(99, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        // The kernel chooses a port that is free.
        assert_eq!(of_ports(&[other(0)], &none), all);
        let mut elsewhere = other(7101);
        elsewhere.settings_mut().network_namespace = Some(PathBuf::from("/run/netns/x"));
        let mut shards = other(7102);
        shards.add_shards(2);
        let mut scoped = other(7103);
        if let Endpoint::Inet { scope, .. } = &mut scoped.sockets[0].endpoint {
            *scope = Some("lo".to_owned());
        }
        assert_eq!(of_ports(&[elsewhere, shards, scoped], &none), all[3..]);
        let fd = TcpListener::bind("127.0.0.1:0").unwrap().into();
        let adopted = Adopted::from([(SocketKey(11), fd)]);
        assert_eq!(of_ports(&[], &adopted), all[..11]);
    }

    #[test]
    fn halves_have_no_port_in_common() {
        let listener = listener(0, address(3, 0));
        let split = |ports: &[u16]| {
            let plain = ports.iter().map(|port| Plain {
                of: (ListenerId(0), 0),
                listener: &listener,
                endpoint: &listener.sockets[0].endpoint,
                wanted: Wanted {
                    transport: Transport::Tcp,
                    address: SocketAddr::from((Ipv4Addr::LOCALHOST, *port)),
                    v6_only: true,
                },
            });
            let plain: Vec<_> = plain.collect();
            halves(&plain).map(|(first, second)| (first.len(), second.len()))
        };
        assert_eq!(split(&[]), None);
        assert_eq!(split(&[1]), None);
        assert_eq!(split(&[1, 1, 1]), None);
        assert_eq!(split(&[1, 2]), Some((1, 1)));
        assert_eq!(split(&[1, 1, 1, 2]), Some((3, 1)));
        assert_eq!(split(&[1, 2, 2, 2]), Some((1, 3)));
        assert_eq!(split(&[1, 1, 2, 2, 2]), Some((2, 3)));
        assert_eq!(split(&[1, 2, 2, 2, 3, 3]), Some((4, 2)));
    }
}
