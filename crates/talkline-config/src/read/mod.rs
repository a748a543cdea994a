//! Text to tree, for each format.

mod json5;
mod toml;

use std::ops::Range;

use crate::{Format, tree::Table};

/// A configuration file is a page or two; beyond this something else was named by mistake.
const FILE_BYTES_MAX: usize = 1 << 20;

/// What keeps a text from being read.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) span: Range<usize>,
}

/// Reads a whole file.
///
/// # Errors
///
/// Every syntax error that the format's parser can tell apart: TOML all of them, JSON5 the first.
pub(crate) fn read(text: &str, format: Format, file: usize) -> Result<Table, Vec<SyntaxError>> {
    if text.len() > FILE_BYTES_MAX {
        let message = format!(
            "the file has {} bytes; a configuration has at most 1 MiB",
            text.len()
        );
        return Err(vec![SyntaxError {
            message,
            span: 0..0,
        }]);
    }
    match format {
        Format::Toml => toml::read(text, file),
        Format::Json5 => json5::read(text, file).map_err(|error| vec![error]),
    }
}
