//! The rules of the house that no compiler checks.
//!
//! Every rule is a function from data to violations, in a file of its own with
//! tests that show it catching one; this file gathers the data.

mod layers;
mod links;
mod locks;
mod manifests;
mod paths;
mod sources;

use std::fmt;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

/// One broken rule: where, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    place: String,
    problem: String,
}

impl Violation {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Violation {
        Violation {
            place: place.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.problem)
    }
}

/// Checks every rule and prints every violation.
///
/// # Errors
/// When there was one, or when the workspace cannot be read.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let members = workspace.metadata.members();
    let files = workspace.tracked_texts()?;
    let mut violations = layers::dependencies(layers::TABLE, &members);
    violations.extend(layers::purity(layers::TABLE, &workspace.metadata));
    let page = std::fs::read_to_string(workspace.root.join("ARCHITECTURE.md"))?;
    violations.extend(layers::architecture(layers::TABLE, &page));
    for member in &members {
        violations.extend(manifests::check(layers::TABLE, member)?);
    }
    let exists = |path: &str| workspace.root.join(path).exists();
    for file in &files {
        violations.extend(sources::check(file));
        violations.extend(links::check(file, exists));
        violations.extend(locks::check(file));
        violations.extend(paths::check(file));
    }
    for violation in &violations {
        eprintln!("tidy: {violation}");
    }
    if !violations.is_empty() {
        bail!("{} rules of the house broken", violations.len());
    }
    println!(
        "tidy: {} crates and {} files are in order",
        members.len(),
        files.len()
    );
    Ok(())
}

/// Shows a list of violations as the user sees them, for tests.
#[cfg(test)]
fn shown(violations: &[Violation]) -> String {
    violations
        .iter()
        .map(|violation| format!("{violation}\n"))
        .collect()
}
