//! What a developer or CI runs. Depends on no product crate.
#![forbid(unsafe_code)]

fn main() {}
