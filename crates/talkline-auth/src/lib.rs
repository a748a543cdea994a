//! Decides who may open a session and which credential its upstream gets; binds every credential to the origin it was configured for.
#![forbid(unsafe_code)]
