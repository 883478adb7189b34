//! The `stockgate` command.
fn main() {}
