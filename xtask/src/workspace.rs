//! The workspace as cargo and git describe it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;

/// Set to have what the repository keeps (snapshots, declarations, counts) written anew instead of compared.
pub(crate) const BLESS: &str = "TALKLINE_BLESS";

/// Where things are, and whether a person or a machine is asking.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) metadata: Metadata,
    pub(crate) runs_in: RunsIn,
}

/// Who reads the result: a missing tool is a hint to a person and a failure in CI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunsIn {
    Ci,
    Terminal,
}

impl Workspace {
    pub(crate) fn discover() -> Result<Workspace> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask stands in a folder of the workspace root")?
            .to_owned();
        // `--locked`: a Cargo.lock that does not fit the manifests is an error
        // everywhere, so it cannot be repaired silently by whichever step is first.
        let text = process::capture(
            Command::new(cargo())
                .args(["metadata", "--format-version", "1", "--locked"])
                .current_dir(&root),
        )?;
        let metadata: Metadata =
            serde_json::from_str(&text).context("cargo metadata printed something else")?;
        Ok(Workspace {
            root,
            target: metadata.target_directory.clone(),
            metadata,
            runs_in: runs_in(std::env::var("CI").ok().as_deref()),
        })
    }

    /// `cargo`, started in the workspace root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(cargo());
        command.current_dir(&self.root);
        command
    }

    /// Files known to git, with their text; binary files are left out.
    pub(crate) fn tracked_texts(&self) -> Result<Vec<TextFile>> {
        let listing = process::capture(
            Command::new("git")
                .args(["ls-files", "-z"])
                .current_dir(&self.root),
        )?;
        let mut files = Vec::new();
        for path in listing.split_terminator('\0') {
            let full = self.root.join(path);
            // Deleted but not yet committed, or a symbolic link to a folder.
            if !full.is_file() {
                continue;
            }
            let bytes = std::fs::read(&full).with_context(|| format!("reading {path}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(TextFile {
                    path: path.to_owned(),
                    text,
                });
            }
        }
        Ok(files)
    }
}

/// One tracked file; `path` is relative to the workspace root, with `/`.
pub(crate) struct TextFile {
    pub(crate) path: String,
    pub(crate) text: String,
}

fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

fn runs_in(ci: Option<&str>) -> RunsIn {
    match ci {
        Some("true" | "1") => RunsIn::Ci,
        _ => RunsIn::Terminal,
    }
}

// === cargo metadata, the part that is read here ===

#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) resolve: Resolve,
    target_directory: PathBuf,
}

impl Metadata {
    /// The packages of this workspace, in the order of their names.
    pub(crate) fn members(&self) -> Vec<&Package> {
        let mut members: Vec<&Package> = self
            .packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
            .collect();
        members.sort_by(|one, other| one.name.cmp(&other.name));
        members
    }
}

#[derive(Clone, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

impl Package {
    pub(crate) fn has_library(&self) -> bool {
        self.targets.iter().any(|target| target.is("lib"))
    }
}

#[derive(Clone, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for a normal dependency, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
    pub(crate) src_path: PathBuf,
}

impl Target {
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|own| own == kind)
    }
}

#[derive(Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

#[derive(Clone, Deserialize)]
pub(crate) struct EdgeKind {
    pub(crate) kind: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stated_ci_is_ci() {
        assert_eq!(runs_in(Some("true")), RunsIn::Ci);
        assert_eq!(runs_in(Some("1")), RunsIn::Ci);
        assert_eq!(runs_in(Some("")), RunsIn::Terminal);
        assert_eq!(runs_in(Some("false")), RunsIn::Terminal);
        assert_eq!(runs_in(None), RunsIn::Terminal);
    }
}
