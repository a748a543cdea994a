//! What runs in a browser: the client package by itself, then the Talk page with the real binary behind it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::provision::{self, Unavailable};
use crate::report::Tally;
use crate::test::Outcome;
use crate::workspace::{BLESS, Workspace};
use crate::{process, sdk};

/// What the compiler is told: the package, what runs in the audio thread, and the page.
const PROJECTS: [&str; 3] = [
    "tsconfig.json",
    "tsconfig.worklets.json",
    "tsconfig.page.json",
];

/// Runs both suites and adds what they found to `outcome`.
pub(crate) fn add(workspace: &Workspace, outcome: &mut Outcome) {
    sdk::add(
        "the browser client",
        client(workspace),
        workspace.runs_in,
        outcome,
    );
    sdk::add("the Talk page", page(workspace), workspace.runs_in, outcome);
    sdk::add(
        "SDK tests in a browser",
        packages(workspace),
        workspace.runs_in,
        outcome,
    );
}

/// Type checks, declarations, and `node --test` over what needs no browser.
fn client(workspace: &Workspace) -> Result<Tally, Unavailable> {
    let source = workspace.root.join("ui");
    let tools = provision::node(workspace, &source.join("client"))?;
    // The compiler looks for packages upwards from the files that it reads.
    let copy = tools.join("ui");
    copy_all(&source, &copy)?;
    let package = copy.join("client");
    let types = package.join("types");
    if types.exists() {
        fs::remove_dir_all(&types).context("removing the old declarations")?;
    }
    for project in PROJECTS {
        process::run(
            Command::new(tools.join("node_modules/.bin/tsc"))
                .args(["--project", project])
                .current_dir(&package),
        )?;
    }
    let mut tally = sdk::node_tests(workspace, "client", &package.join("test"), |command| {
        command
    })?;
    same_declarations(&types, &source.join("client/types"))?;
    tally.passed += PROJECTS.len() + 1;
    Ok(tally)
}

/// The page in a browser, with the demo and other commands of the real binary behind it.
fn page(workspace: &Workspace) -> Result<Tally, Unavailable> {
    let source = workspace.root.join("tests/browser");
    let tools = provision::node(workspace, &source)?;
    let chromium = provision::chromium()?;
    let talkline = sdk::build(workspace)?;
    let copy = tools.join("tests");
    sdk::copy_tests(&source, &copy)?;
    let shots = workspace.target.join("browser");
    if shots.exists() {
        fs::remove_dir_all(&shots).context("removing the old screenshots")?;
    }
    fs::create_dir_all(&shots).context("making a folder for screenshots")?;
    println!("screenshots: {}", shots.display());
    let tally = sdk::node_tests(workspace, "browser", &copy, |command| {
        command
            .env("TALKLINE_BIN", &talkline)
            .env("TALKLINE_CHROMIUM", &chromium)
            .env("TALKLINE_SHOTS", &shots)
            .env(
                "TALKLINE_ASSETS",
                workspace.root.join("crates/talkline-sim/assets"),
            )
    })?;
    Ok(tally)
}

/// The browser code of OpenAI's packages in a browser, with tokens that the real binary mints.
fn packages(workspace: &Workspace) -> Result<Tally, Unavailable> {
    let source = workspace.root.join("tests/sdk/browser");
    let tools = provision::node(workspace, &source)?;
    let chromium = provision::chromium()?;
    let talkline = sdk::build(workspace)?;
    let copy = tools.join("tests");
    sdk::copy_tests(&source, &copy)?;
    let tally = sdk::node_tests(workspace, "browser-packages", &copy, |command| {
        command
            .env("TALKLINE_BIN", &talkline)
            .env("TALKLINE_CHROMIUM", &chromium)
    })?;
    Ok(tally)
}

/// Whether what the compiler derives is what the repository has.
fn same_declarations(fresh: &Path, kept: &Path) -> Result<()> {
    if std::env::var_os(BLESS).is_some() {
        if kept.exists() {
            fs::remove_dir_all(kept)?;
        }
        return copy_all(fresh, kept);
    }
    let (fresh_names, kept_names) = (names(fresh)?, names(kept)?);
    let stale = fresh_names != kept_names
        || fresh_names
            .iter()
            .any(|name| fs::read(fresh.join(name)).ok() != fs::read(kept.join(name)).ok());
    if stale {
        bail!("ui/client/types is stale: run `{BLESS}=1 cargo xtask test --browser`");
    }
    Ok(())
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Copies a folder of sources; what an earlier copy had and this one has not, goes.
fn copy_all(source: &Path, copy: &Path) -> Result<()> {
    if copy.exists() {
        fs::remove_dir_all(copy).with_context(|| format!("removing {}", copy.display()))?;
    }
    let mut folders: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        fs::create_dir_all(copy.join(&folder))?;
        for entry in fs::read_dir(source.join(&folder))? {
            let entry = entry?;
            let name = folder.join(entry.file_name());
            match entry.file_type()?.is_dir() {
                // What somebody's own `npm install` left behind.
                true if entry.file_name() == "node_modules" => {}
                true => folders.push(name),
                false => {
                    fs::copy(entry.path(), copy.join(&name))?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_that_differ_are_stale() {
        let root = std::env::temp_dir().join(format!("xtask-browser-{}", std::process::id()));
        let (fresh, kept) = (root.join("fresh"), root.join("kept"));
        fs::create_dir_all(&fresh).unwrap();
        fs::write(fresh.join("a.d.ts"), "one").unwrap();
        copy_all(&fresh, &kept).unwrap();
        assert!(same_declarations(&fresh, &kept).is_ok());
        fs::write(fresh.join("a.d.ts"), "two").unwrap();
        assert!(same_declarations(&fresh, &kept).is_err());
        copy_all(&fresh, &kept).unwrap();
        fs::write(kept.join("b.d.ts"), "").unwrap();
        assert!(same_declarations(&fresh, &kept).is_err());
        fs::remove_dir_all(root).unwrap();
    }
}
