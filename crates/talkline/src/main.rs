//! Parses arguments, builds the runtime, picks implementations, maps errors to exit codes.
#![forbid(unsafe_code)]

fn main() {}
