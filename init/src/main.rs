//! Holdfast init.
fn main() {}
