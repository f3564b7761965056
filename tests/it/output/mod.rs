//! What listend and its workers write.

mod files;
mod history;
mod logging;
mod workers;
