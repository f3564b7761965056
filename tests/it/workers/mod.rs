//! Workers: how they run, stop and fail.

mod failed;
mod run;
mod stop;
