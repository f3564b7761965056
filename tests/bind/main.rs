//! Binding real sockets, and explaining real failures. Nothing leaves the machine: loopback, unix
//! sockets, and network namespaces of the tests' own.
//!
//! The umask belongs to the whole process, and the tests are threads of one: every test that
//! touches files holds the lock of [`fixture::Folder`].

mod accepting;
mod adopting;
mod binding;
mod depth;
mod explaining;
mod fixture;
mod flows;
mod kinds;
mod late;
mod namespaces;
mod options;
mod paths;
#[path = "../it/harness/ports.rs"]
mod ports;
mod rebinding;
mod repairing;
mod sharing;
mod waiting;
