//! Data in, text out: each table holds one feature.

mod broken;
mod confinement;
mod endpoint;
mod properties;
mod sound;
mod support;
