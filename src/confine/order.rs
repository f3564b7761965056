//! What the process that sets up a sandbox is told: the sandbox and the rest of the launch, in a memory file.
//!
//! The environment of the worker is in there, too, and that process has none: it has the rights of listend, and
//! some of the variables come from files that the worker's user can write (`LD_PRELOAD`).

use crate::launch_spec::{Credentials, Limit};
use crate::sandbox::Sandbox;
use crate::sandbox::paths::Implied;
use crate::sys::{self, CStrings, EnvSlot};
use crate::walk::spare_name;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Everything that is left to be done once the child of a launch has executed listend again.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The worker.
    pub name: String,
    /// The index of the instance.
    pub index: u32,
    /// What the worker is kept from.
    pub sandbox: Sandbox,
    /// The user to become.
    pub credentials: Option<Credentials>,
    /// The folder to run in.
    pub working_directory: Option<PathBuf>,
    /// Limits that would get in the way before.
    pub limits: Vec<Limit>,
    /// Whether SIGPIPE stays ignored.
    pub ignores_sigpipe: bool,
    /// Whether its own job is to connect to a server (`forward`).
    pub connects: bool,
    /// NOTIFY_SOCKET, if it may tell anything.
    pub notify: Option<String>,
    /// EINHORN_SOCK_PATH, if its handoff has that.
    #[serde(default)]
    pub acknowledge_at: Option<String>,
    /// The path of the control socket.
    pub control: Option<PathBuf>,
    /// Its runtime directory.
    pub runtime_directory: Option<PathBuf>,
    /// The path of the program.
    #[serde(skip)]
    pub program: CString,
    /// argv.
    #[serde(skip)]
    pub arguments: Vec<CString>,
    /// The environment; what only the process itself knows is to be added to those of `slots`.
    #[serde(skip)]
    pub variables: Vec<CString>,
    /// The variables without their values: their number in the environment, and whether it is the inode of the
    /// pidfd and not the pid.
    pub slots: Vec<(usize, bool)>,
    /// How many of the strings behind the head are arguments.
    pub words: usize,
}

/// The program and its strings, as they were laid out for execve(2).
#[derive(Debug)]
pub struct Second<'a> {
    /// The path of the program.
    pub program: &'a CStr,
    /// argv.
    pub arguments: &'a CStrings,
    /// The whole environment.
    pub environment: &'a CStrings,
}

impl Order {
    /// The order in a memory file, to be read from its beginning.
    ///
    /// # Errors
    ///
    /// There is no memory, or no descriptor.
    pub fn write(mut self, second: &Second<'_>) -> io::Result<OwnedFd> {
        let mut strings = second.program.to_bytes_with_nul().to_vec();
        let mut add = |string: &[u8]| {
            strings.extend_from_slice(string);
            strings.push(0);
        };
        for (word, _) in second.arguments.strings() {
            self.words += 1;
            add(word);
        }
        for (index, (variable, slot)) in second.environment.strings().enumerate() {
            if let Some(slot) = slot {
                self.slots.push((index, slot == EnvSlot::OwnPidfdInode));
            }
            add(variable);
        }
        let fd = memfd_create(c"listend: sandbox", MFdFlags::MFD_CLOEXEC)?;
        let mut file = File::from(fd);
        let mut whole = serde_json::to_vec(&self)?;
        whole.push(b'\n');
        whole.append(&mut strings);
        file.write_all(&whole)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read(from: OwnedFd) -> io::Result<Order> {
        let mut whole = Vec::new();
        File::from(from).read_to_end(&mut whole)?;
        let torn = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let end = whole
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or_else(torn)?;
        let (head, strings) = whole.split_at(end);
        let mut order: Order = serde_json::from_slice(head)?;
        let strings = strings.get(1..).unwrap_or_default();
        let strings = strings.split_inclusive(|byte| *byte == 0);
        let mut strings = strings.map_while(|one| CStr::from_bytes_with_nul(one).ok());
        order.program = strings.next().ok_or_else(torn)?.to_owned();
        order.arguments = strings
            .by_ref()
            .take(order.words)
            .map(CStr::to_owned)
            .collect();
        order.variables = strings.map(CStr::to_owned).collect();
        Ok(order)
    }

    /// The environment of the worker.
    pub(super) fn environment(&self) -> Vec<CString> {
        let inode = sys::own_pidfd_inode();
        let filled = self
            .variables
            .iter()
            .enumerate()
            .filter_map(|(index, variable)| {
                let slot = self.slots.iter().find(|(at, _)| *at == index);
                let value = match slot {
                    None => return Some(variable.clone()),
                    Some((_, false)) => std::process::id().to_string(),
                    // Better none than a wrong one: libsystemd refuses all descriptors then.
                    Some((_, true)) => inode?.to_string(),
                };
                let whole = [variable.as_bytes(), value.as_bytes()].concat();
                // Neither has a NUL.
                CString::new(whole).ok()
            });
        filled.collect()
    }

    /// The paths that the worker needs or must not have.
    pub(super) fn implied(&self) -> Implied {
        let told = self.notify.iter().chain(&self.acknowledge_at);
        let told = told.filter(|name| name.starts_with('/'));
        let own = told.map(PathBuf::from);
        Implied {
            own: own.chain(self.runtime_directory.clone()).collect(),
            hidden: self
                .control
                .iter()
                .flat_map(|path| both_names(path))
                .collect(),
        }
    }

    /// Whether it tells what it has to tell to an abstract name.
    pub(super) fn notifies_abstract(&self) -> bool {
        self.notify
            .as_ref()
            .is_some_and(|name| name.starts_with('@'))
    }
}

/// A path, and the hard link to its file.
fn both_names(path: &Path) -> [PathBuf; 2] {
    let spare = spare_name(path.file_name().unwrap_or_default());
    [path.to_owned(), path.with_file_name(spare)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let strings = |all: &[&str]| {
            let mut strings = CStrings::default();
            let mut all = all.iter();
            all.try_for_each(|one| strings.push(|bytes| bytes.extend_from_slice(one.as_bytes())))
                .expect("no NUL");
            strings
        };
        let mut environment = strings(&["A=1\n2", "B="]);
        environment.push_slot("LISTEN_PID", EnvSlot::OwnPid);
        let arguments = strings(&["x", "", "z"]);
        let second = Second {
            program: c"/bin/x",
            arguments: &arguments,
            environment: &environment,
        };
        let order = Order {
            name: "app.0".to_owned(),
            sandbox: crate::sandbox::Preset::Sealed.sandbox(),
            ..Order::default()
        };
        let read = Order::read(order.write(&second).expect("write it")).expect("read it");
        assert_eq!(read.sandbox, crate::sandbox::Preset::Sealed.sandbox());
        assert_eq!(read.program.as_c_str(), c"/bin/x");
        assert_eq!(read.arguments, [c"x", c"", c"z"].map(CStr::to_owned));
        let pid = CString::new(format!("LISTEN_PID={}", std::process::id())).expect("no NUL");
        let expected = [c"A=1\n2".to_owned(), c"B=".to_owned(), pid];
        assert_eq!(read.environment(), expected);
    }
}
