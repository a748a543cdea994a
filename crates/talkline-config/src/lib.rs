//! Decides what a configuration means: files, variables and flags (as data) to typed settings, or every problem at once.
#![forbid(unsafe_code)]
