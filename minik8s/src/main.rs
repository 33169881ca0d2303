//! minik8s
fn main() {}
