//! The `stockgate` command: parse the command line, call `cli`, return the exit code.

/// mimalloc on every target: musl's own allocator takes a lock for every allocation, and glibc's keeps what a busy minute took.
///
/// Measured on 2026-11-21, x86_64-unknown-linux-musl, two busy cores of a virtual machine, the lowest of several runs:
///
/// | | mimalloc 3 (`no_thp`) | musl 1.2.5 |
/// |---|---|---|
/// | binary, bytes | 8,278,088 | 8,173,768 |
/// | `replay` of 333,545 records, CPU seconds (user + system) | 2.72 | 3.49 |
/// | the same, peak MiB | 57 | 45 |
/// | `demo --for 5s`, CPU microseconds a delivery (platforms included) | 102 | 148 |
/// | the same at 2,000 deliveries a second, peak MiB | 25 | 18 |
///
/// A quarter less work is worth 7 to 13 MiB. jemalloc was not measured: it is compiled for one page size, and aborts where the kernel's
/// pages are larger (a Raspberry Pi 5 has 16 KiB). mimalloc asks the kernel (`sysconf`), so 4, 16 and 64 KiB will do.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    stockgate::cli::main()
}
