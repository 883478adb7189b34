//! The `stockgate` command: parse the command line, call `cli`, return the exit code.

/// musl's own allocator takes a lock for every allocation, and glibc's keeps what a busy minute took. Measured on the whole path: see
/// `tests/bench/README.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    stockgate::cli::main()
}
