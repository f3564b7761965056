//! Workers: how they run, stop and fail.

mod crowd;
mod failed;
mod presets;
mod run;
mod stop;
