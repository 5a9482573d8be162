//! The two fakes as a program.
fn main() {}
