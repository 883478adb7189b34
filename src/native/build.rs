//! Compiles `memory.c`: for musl under the names of the C library, whose own are then not linked; elsewhere under names of ours, for the tests.

fn main() {
    println!("cargo::rerun-if-changed=memory.c");
    let musl = std::env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("musl");
    let mut build = cc::Build::new();
    build.file("memory.c").opt_level(2);
    // or the compiler finds a copy in the copy, and calls itself
    for flag in ["-ffreestanding", "-fno-builtin", "-fno-tree-loop-distribute-patterns"] {
        build.flag(flag);
    }
    if musl {
        build.define("INSTEAD_OF_LIBC", None);
    }
    build.compile("stockgate_memory");
}
