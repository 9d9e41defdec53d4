//! dnd
fn main() {}
