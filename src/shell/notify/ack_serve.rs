//! What workers say at the socket of einhorn, and what follows from it (`ready: einhorn`).
//!
//! Like the notify socket there is one for all of them, which is read before any child is reaped. Whoever
//! connects is known by what the kernel says of it; the pid that it writes means nothing.

use super::ack::{AckSocket, Heard, PATIENCE};
use super::serve::describe_sender;
use super::{Complaint, ComplaintSubject};
use crate::core::{Input, Notice, ProcessId};
use crate::notify::einhorn;
use crate::output::visible;
use crate::shell::process::Processes;
use crate::shell::turn::Shell;
use crate::shell::{clock, event_text, watch};
use crate::sys;
use std::io;

/// As many as may wait (the backlog of [`crate::shell::own_socket::OwnSocket`], which holds one more).
const MOST_WAITING: usize = 129;
/// So much of a command is shown.
const SHOWN: usize = 100;

impl Shell {
    /// The value of EINHORN_SOCK_PATH. The socket is made when it is asked for first.
    ///
    /// # Errors
    ///
    /// See [`AckSocket::new`].
    pub(super) fn ack_socket(&mut self) -> io::Result<&str> {
        let socket = match self.notify.acks.take() {
            Some(socket) => socket,
            None => {
                let mut socket = AckSocket::new(self.control.path(), &self.plan)?;
                socket.watch(&self.epoll)?;
                self.store.touch();
                let files = socket.files();
                self.watch.files(&self.epoll, watch::Owner::Acks, &files);
                log::debug!(
                    "workers of einhorn tell {} when they are up",
                    socket.address()
                );
                socket
            }
        };
        Ok(self.notify.acks.insert(socket).address())
    }

    /// Makes it again at the address that workers of another listend know.
    pub(in crate::shell) fn ack_socket_again(&mut self, address: &str) {
        let made = self.ack_socket().map(str::to_owned);
        let why = match made {
            Ok(made) if made == address => return,
            Ok(made) => format!("the socket is at {made} now"),
            Err(error) => error.to_string(),
        };
        log::warn!("cannot receive what workers of einhorn tell {address}: {why}");
    }

    /// Takes everybody who wants to connect, and what each has said by now.
    pub(super) fn take_acks(&mut self) {
        if self.notify.acks.is_none() {
            return;
        }
        let _reserve = self.reserve.lend();
        for _ in 0..MOST_WAITING {
            let Some(acks) = &mut self.notify.acks else {
                return;
            };
            let Some(socket) = acks.accept(&self.epoll) else {
                return;
            };
            self.notify.counters.received += 1;
            // It may have gone again.
            let Ok(from) = sys::peer(&socket) else {
                continue;
            };
            let Some((process, _)) = self.whose(&from, may_be_of_a_worker) else {
                self.notify.counters.foreign += 1;
                let whose = ComplaintSubject::sender(from.sender);
                self.notify.complain(Complaint::ForeignAck, whose, &|| {
                    format!(
                        "einhorn socket: closed the connection of {}, which is no process of a \
                         worker, or exited before it could be looked up",
                        describe_sender(from.sender)
                    )
                });
                continue;
            };
            let Some(acks) = &mut self.notify.acks else {
                return;
            };
            let (id, displaced) = acks.clients.admit(socket, process, clock::now());
            if let Some(displaced) = displaced {
                self.closed_ack(displaced, "too many have connected, and it was the first");
            }
            self.hear_ack(id);
        }
    }

    /// Takes what one has said that has connected.
    pub(super) fn hear_ack(&mut self, id: u64) {
        let Some(acks) = &mut self.notify.acks else {
            return;
        };
        match acks.clients.hear(&self.epoll, id) {
            None => {}
            Some((process, Heard::Line(line))) => self.acknowledged(process, &line),
            Some((process, Heard::Nothing)) => self.closed_ack(process, "it has said nothing"),
            Some((process, Heard::TooLong)) => self.closed_ack(process, "its line is too long"),
        }
    }

    /// Lets those go that have said nothing for too long.
    pub(in crate::shell) fn acks_turn(&mut self) {
        let Some(acks) = &mut self.notify.acks else {
            return;
        };
        let now = clock::now();
        acks.resume(&self.epoll, now);
        while let Some(process) = self
            .notify
            .acks
            .as_mut()
            .and_then(|acks| acks.clients.let_go(now))
        {
            let seconds = PATIENCE.as_secs();
            self.closed_ack(process, &format!("it has said nothing for {seconds} s"));
        }
    }

    fn acknowledged(&mut self, id: ProcessId, line: &[u8]) {
        // Whatever it says, it runs its program, and that is to be known first.
        self.exec_status(id);
        let Some(process) = self.processes.get(id) else {
            return;
        };
        let name = event_text::instance_name(&self.definitions, process.instance);
        match einhorn::command(line).as_deref() {
            Some(einhorn::ACK) => {
                log::debug!("{name}: sent worker:ack");
                self.feed(Input::Notified {
                    process: id,
                    notice: Notice::Acknowledged,
                });
            }
            Some(einhorn::PING) => {}
            Some(other) => {
                let other: String = visible(other.as_bytes()).chars().take(SHOWN).collect();
                self.closed_ack(
                    id,
                    &format!("`{other}` is a command of einhorn that listend does not have"),
                );
            }
            None => self.closed_ack(id, "its line has no `command`"),
        }
    }

    fn closed_ack(&mut self, id: ProcessId, why: &str) {
        self.notify.counters.malformed += 1;
        let Some(process) = self.processes.get(id) else {
            return;
        };
        let instance = process.instance;
        let name = event_text::instance_name(&self.definitions, instance);
        let about = ComplaintSubject::Worker(instance.worker);
        self.notify.complain(Complaint::NoAck, about, &|| {
            format!("{name}: closed a connection to the einhorn socket: {why}")
        });
    }
}

fn may_be_of_a_worker(processes: &Processes, uid: u32) -> bool {
    may_descend(uid, processes.iter().map(|(_, process)| process.uid))
}

/// Whether a process of this user may descend from a worker of these: only root's can have become any user.
fn may_descend(uid: u32, mut workers: impl Iterator<Item = u32>) -> bool {
    uid == 0 || workers.any(|worker| worker == 0 || worker == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_s_process_is_of_a_worker_only_if_that_is_root_s() {
        for (uid, workers, expected) in [
            (0, &[][..], true),
            (1, &[][..], false),
            (1, &[2, 1], true),
            (1, &[2, 3], false),
            (1, &[2, 0], true),
        ] {
            assert_eq!(may_descend(uid, workers.iter().copied()), expected);
        }
    }
}
