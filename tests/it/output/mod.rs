//! What listend and its workers write.

mod history;
mod logging;
mod workers;
