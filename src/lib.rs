//! listend binds and listens first, then launches workers that inherit the sockets.
//!
//! The map, in the order in which data flows; `tests/it/arch.rs` enforces who may use whom:
//!
//! - [`report`]: problems with their place in the YAML, rendered as text or JSON.
//! - [`config`]: YAML text → [`config::Config`], with every mistake found in one pass.
//! - [`host`]: what must be looked up on this machine (users, files, kernel settings).
//! - [`plan`]: `Config` × host facts → [`plan::Plan`], with nothing left to look up.
//! - [`listener`]: `Plan` → bound sockets, all of them or a list of every failure.
//! - [`diagnose`]: why a bind failed on this machine, and advice about what may surprise.
//! - [`evidence`]: whether a process takes clients, as /proc shows it.
//! - [`bpf`]: eBPF programs as values, and their bytes; pure.
//! - [`cgroup`]: control groups of workers: limits, figures, and an end for all that they start.
//! - [`connection`]: who is at the two ends of an accepted connection.
//! - [`core`]: decides what happens to workers; no system call, no clock, no descriptor.
//! - [`handoff`]: how a worker is told which descriptors it got.
//! - [`worker`]: turns a worker's plan into a prepared process, and its failures into words.
//! - [`notify`]: what processes say about themselves with sd_notify(3), as plain data, and to whom.
//! - [`output`]: what workers write: lines, tags, and the last of them kept.
//! - [`control`]: the language of the control socket: calls, replies, status.
//! - [`metrics`]: what is counted and measured, as Prometheus reads it.
//! - [`shell`]: the event loop; does what the core decides.
//! - [`guard`]: a parent that keeps descriptors for the daemon, and starts it again when it dies.
//! - [`store`]: what outlives the process: descriptors with names, and lines in a memory file.
//! - [`forward`]: passes connections on, in a process of its own: the main process of a worker with `forward:`.
//! - [`usage`]: the CPU time and memory of instances, for whoever shows it.
//! - [`web`]: answers HTTP in a process of its own: the worker of `metrics:`.
//! - [`export`]: a configuration → units of systemd.
//! - [`file_watch`]: which files have changed, for the process that restarts a worker then.
//! - [`import`]: configurations of other supervisors → YAML.
//! - [`writer`]: writes the files of `output: file:` in a process of its own.
//! - [`walk`]: opens paths that other users may change, without following them.
//! - [`sys`]: the only module with `unsafe`: fork, exec and the calls no crate wraps.
//! - [`cli`]: the command line. [`sample`]: the sample worker. [`launch_spec`]: how a process is
//!   set up. [`stage`]: the steps of a launch. [`verb`]: the commands for a worker.

#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

pub mod bpf;
pub mod cgroup;
pub mod cli;
pub mod config;
pub mod confine;
pub mod connection;
pub mod control;
pub mod core;
pub mod diagnose;
pub mod evidence;
pub mod export;
pub mod file_watch;
pub mod forward;
pub mod guard;
pub mod handoff;
pub mod host;
pub mod import;
pub mod launch_spec;
pub mod listener;
pub mod metrics;
pub mod notify;
pub mod output;
pub mod plan;
pub mod report;
pub mod sample;
pub mod sandbox;
pub mod shell;
pub mod stage;
pub mod store;
pub mod sys;
pub mod usage;
pub mod verb;
pub mod walk;
pub mod web;
pub mod worker;
pub mod writer;
