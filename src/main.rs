//! The `listend` binary: parse the command line, run the verb, exit with its code.

fn main() -> std::process::ExitCode {
    listend::cli::main()
}
