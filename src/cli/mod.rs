//! The command line.

/// (to come)
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
