//! The `stockgate` command: parse the command line, call `cli`, return the exit code.

/// mimalloc on every target: musl's own allocator takes a lock for every allocation, and glibc's keeps what a busy minute took.
///
/// Measured on 2026-11-21 with x86_64-unknown-linux-musl before the write-ahead log and ACME, taking turns on two busy cores of a virtual machine:
///
/// | | mimalloc 3 (`no_thp`) | musl 1.2.5 |
/// |---|---|---|
/// | binary, bytes | 8,278,088 | 8,173,768 |
/// | `replay` of 333,545 records, instructions | 23.9 billion | 26.0 billion |
/// | the same, CPU seconds (user and system) | 2.7, 2.8 | 3.5, 3.9 |
/// | the same, peak MiB | 57, 59 | 45, 45 |
/// | `demo --for 5s --rate 2000`, CPU microseconds a delivery, platforms included | 214, 212 | 191, 238 |
/// | the same, peak MiB | 26, 25 | 18, 19 |
///
/// A quarter less CPU for the fold is worth 7 to 14 MiB. jemalloc was not measured: it is compiled for one page size, and aborts where the
/// kernel's pages are larger (a Raspberry Pi 5 has 16 KiB). mimalloc asks the kernel (`sysconf`), so 4, 16 and 64 KiB will do.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    stockgate_native::give_back_at_once();
    stockgate::cli::main()
}
