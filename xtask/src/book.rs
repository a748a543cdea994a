//! The documentation as a book: built by mdBook, with every page in it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{process, provision};

/// Builds the book under the target directory.
///
/// # Errors
/// When a page is in no chapter, `llms.txt` leaves one out, or mdBook fails.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let docs = workspace.root.join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).context("reading docs/SUMMARY.md")?;
    let llms = fs::read_to_string(docs.join("llms.txt")).context("reading docs/llms.txt")?;
    let mut pages = Vec::new();
    collect(&docs, &docs, &mut pages)?;
    let mut lost = Vec::new();
    for page in &pages {
        if !summary.contains(&format!("]({page})")) {
            lost.push(format!("{page} is in no chapter of docs/SUMMARY.md"));
        }
        if !page.starts_with("decisions/") && !llms.contains(page.as_str()) {
            lost.push(format!("{page} is not in docs/llms.txt"));
        }
    }
    if !lost.is_empty() {
        bail!("{}", lost.join("\n"));
    }
    let lock = workspace.root.join("xtask/requirements-deploy.lock");
    let mdbook = provision::python(workspace, "deploy", &lock)?.join("bin/mdbook");
    let out = workspace.target.join("book");
    process::run(
        Command::new(mdbook)
            .arg("build")
            .arg(&docs)
            .arg("--dest-dir")
            .arg(&out),
    )?;
    for page in &pages {
        let html = out.join(page).with_extension("html");
        let html = match page.strip_suffix("README.md") {
            Some(folder) => out.join(folder).join("index.html"),
            None => html,
        };
        if !html.exists() {
            bail!("mdBook made no page of {page}");
        }
    }
    println!(
        "{} pages: {}",
        pages.len(),
        out.join("index.html").display()
    );
    Ok(())
}

/// Every Markdown page below `folder`, relative to `docs`, SUMMARY.md apart.
fn collect(docs: &Path, folder: &Path, pages: &mut Vec<String>) -> Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(docs, &path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            let relative = path.strip_prefix(docs)?.to_string_lossy().into_owned();
            if relative != "SUMMARY.md" {
                pages.push(relative);
            }
        }
    }
    Ok(())
}
