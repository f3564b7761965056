//! Binding real sockets, and explaining real failures. Only loopback and unix sockets.
//!
//! The umask belongs to the whole process, and the tests are threads of one: every test that
//! touches files holds the lock of [`fixture::Folder`].

mod adopting;
mod binding;
mod explaining;
mod fixture;
mod paths;
mod repairing;
