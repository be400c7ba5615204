//! Holdfast cli.
fn main() {}
