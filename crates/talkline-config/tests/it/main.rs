//! Data in, text out: each table holds one feature.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod broken;
mod clients;
mod confinement;
mod endpoint;
mod guides;
mod identity;
mod properties;
mod reference;
mod sound;
mod support;
