//! The documentation against the program.

mod commands;
mod manual;
mod options;
mod recipes;
mod servers;
