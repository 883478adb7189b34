//! The `stockgate` command: parse the command line, call `cli`, return the exit code.

fn main() -> std::process::ExitCode {
    stockgate::cli::main()
}
