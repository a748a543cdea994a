//! What is wrong with a configuration, all of it at once.

use std::{fmt, ops::Range, sync::Arc};

use crate::{Source, render};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration runs, but probably not as meant.
    Warning,
    /// The configuration cannot be run.
    Error,
}

/// One thing that is wrong, where, and what to do about it.
///
/// No field holds a secret: values are only quoted where they cannot be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable identifier, such as `key.unknown`.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, one lower-case sentence without a full stop.
    pub message: String,
    /// The dotted key that it is about, if it is about one.
    pub key: Option<String>,
    /// Where it was written, if it was.
    pub source: Option<Source>,
    /// Bytes of the key or value in the file that `source` names.
    pub span: Option<Range<usize>>,
    /// What to do.
    pub hint: Option<String>,
    /// Which of the report's files `span` points into.
    pub(crate) file: Option<usize>,
}

impl Problem {
    pub(crate) fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message.into())
    }

    pub(crate) fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message.into())
    }

    fn new(severity: Severity, code: &'static str, message: String) -> Self {
        Self {
            code,
            severity,
            message,
            key: None,
            source: None,
            span: None,
            hint: None,
            file: None,
        }
    }

    pub(crate) fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Whether the rendered text carries terminal colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text only.
    Plain,
    /// ANSI colours.
    Colour,
}

/// A file as it is shown in a report: same length and lines as the original, with everything that
/// may be a secret blotted out.
#[derive(Clone, Debug)]
pub(crate) struct ShownFile {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Problems, in the order of the files and then of the keys.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub(crate) problems: Vec<Problem>,
    pub(crate) files: Arc<[ShownFile]>,
}

impl Report {
    /// The problems.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether one of them keeps the configuration from running.
    pub fn has_errors(&self) -> bool {
        self.problems
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }

    /// The text to show to a person: each problem with its place in the source and its remedy.
    pub fn render(&self, style: Style) -> String {
        render::render(self, style)
    }

    /// The exact text of the file that a problem points at, unless it may be a secret.
    pub fn span_text(&self, problem: &Problem) -> Option<&str> {
        self.files
            .get(problem.file?)?
            .text
            .get(problem.span.clone()?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Style::Plain))
    }
}

impl std::error::Error for Report {}
