//! Workers: how they run, stop and fail.

mod failed;
mod presets;
mod run;
mod stop;
