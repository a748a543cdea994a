//! How many instructions the scanner takes, counted by valgrind, beside the counts that are kept.
//!
//! Unlike a time, a count is the same in every run of one program, so a small growth is seen. It depends on
//! the compiler, and on the instructions that the processor offers: the kept file says what it was made with.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::process;
use crate::provision::{self, Unavailable};
use crate::workspace::{BLESS, Workspace};

/// The counts that are kept, next to what is counted.
const KEPT: &str = "benches/scanner/counts.json";
/// Growth of a count, as a factor, that fails.
const GROWTH_MAX: f64 = 1.05;

/// What was counted, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counts {
    compiler: String,
    valgrind: String,
    instructions: BTreeMap<String, u64>,
}

/// `cargo xtask bench --instructions`: prints the counts, and keeps them when `TALKLINE_BLESS` is set.
///
/// # Errors
/// When a tool is missing, a case does not run, or a count has grown too much.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Unavailable> {
    let seen = count(workspace)?;
    let path = workspace.root.join(KEPT);
    let kept = match path.exists() {
        true => Some(read(&path)?),
        false => None,
    };
    print!("{}", table(&seen, kept.as_ref()));
    if std::env::var_os(BLESS).is_some() {
        write(&path, &seen)?;
        return Ok(());
    }
    let kept = kept.with_context(|| format!("no {KEPT}: {BLESS}=1 writes it"))?;
    let problems = problems(&seen, &kept);
    if problems.is_empty() {
        return Ok(());
    }
    for problem in &problems {
        println!("FAILED {problem}");
    }
    println!("Counted with {} and {},", seen.compiler, seen.valgrind);
    println!("  kept from {} and {}.", kept.compiler, kept.valgrind);
    println!("To accept the counts: {BLESS}=1 cargo xtask bench --instructions");
    Err(anyhow::anyhow!("{KEPT} keeps other counts, see above").into())
}

fn read(path: &Path) -> Result<Counts> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {KEPT}"))?;
    serde_json::from_str(&text).with_context(|| format!("{KEPT} holds something else"))
}

fn write(path: &Path, counts: &Counts) -> Result<()> {
    let mut text = serde_json::to_string_pretty(counts)?;
    text.push('\n');
    fs::write(path, text).with_context(|| format!("writing {KEPT}"))
}

/// Builds the cases as the product is released, and runs each once under valgrind.
fn count(workspace: &Workspace) -> Result<Counts, Unavailable> {
    let valgrind = provision::debian("valgrind", "/usr/bin/valgrind")?;
    let manifest = workspace.root.join("benches/Cargo.toml");
    let lock = fs::read_to_string(manifest.with_file_name("Cargo.lock"))
        .context("reading benches/Cargo.lock")?;
    let version = locked(&lock, "gungraun-runner").context("benches/Cargo.lock has no runner")?;
    let runner = provision::cargo_install(workspace, "gungraun-runner", version)?;
    let printed = process::capture(
        workspace
            .cargo()
            .args(["bench", "--locked", "--quiet", "--bench", "scanner"])
            .arg("--manifest-path")
            .arg(&manifest)
            .arg("--target-dir")
            .arg(&workspace.target)
            .args(["--", "--output-format=json"])
            .env("GUNGRAUN_RUNNER", runner)
            .env("GUNGRAUN_VALGRIND_BIN", &valgrind),
    )?;
    Ok(Counts {
        compiler: version_of(Command::new("rustc").current_dir(&workspace.root))?,
        valgrind: version_of(&mut Command::new(valgrind))?,
        instructions: instructions(&printed)?,
    })
}

fn version_of(command: &mut Command) -> Result<String> {
    let printed = process::capture(command.arg("--version"))?;
    Ok(printed.trim().to_owned())
}

/// The version of a package in a lock file.
fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1)?.strip_prefix("version = ")?;
    Some(version.trim_matches('"'))
}

/// Instructions by case, of what the runner printed: one JSON object a line.
fn instructions(printed: &str) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for line in printed.lines() {
        let summary: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("no summary: {line}"))?;
        let instructions = &summary["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"];
        match (summary["id"].as_str(), instructions["new"].as_u64()) {
            (Some(case), Some(count)) => found.insert(case.to_owned(), count),
            _ => bail!("a summary without a count: {line}"),
        };
    }
    if found.is_empty() {
        bail!("nothing was counted");
    }
    Ok(found)
}

/// A line for each case: what it took, what it took when the counts were kept, the change.
fn table(seen: &Counts, kept: Option<&Counts>) -> String {
    let mut lines = vec![format!(
        "{:<20} {:>12} {:>12} {:>9}",
        "case", "instructions", "kept", "change"
    )];
    for (case, count) in &seen.instructions {
        let before = kept.and_then(|kept| kept.instructions.get(case));
        lines.push(match before {
            Some(before) => format!(
                "{case:<20} {count:>12} {before:>12} {:>+8.2} %",
                (growth(*count, *before) - 1.0) * 100.0
            ),
            None => format!("{case:<20} {count:>12} {:>12} {:>9}", "-", "-"),
        });
    }
    lines.push(String::new());
    lines.join("\n")
}

/// What has grown too much, and cases that only one side has.
fn problems(seen: &Counts, kept: &Counts) -> Vec<String> {
    let mut problems = Vec::new();
    for (case, before) in &kept.instructions {
        match seen.instructions.get(case) {
            None => problems.push(format!("{case} is kept and was not counted")),
            Some(count) if growth(*count, *before) > GROWTH_MAX => {
                problems.push(format!("{case} grew from {before} to {count}"));
            }
            Some(_) => {}
        }
    }
    let new = seen.instructions.keys();
    let new = new.filter(|case| !kept.instructions.contains_key(*case));
    problems.extend(new.map(|case| format!("{case} was counted and is not kept")));
    problems
}

fn growth(count: u64, before: u64) -> f64 {
    count as f64 / before.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(cases: &[(&str, u64)]) -> Counts {
        Counts {
            compiler: "rustc 1".to_owned(),
            valgrind: "valgrind-3".to_owned(),
            instructions: cases
                .iter()
                .map(|(case, count)| ((*case).to_owned(), *count))
                .collect(),
        }
    }

    #[test]
    fn growth_beyond_the_bound_is_a_problem_and_less_is_not() {
        let kept = counts(&[("a", 1000), ("b", 1000), ("c", 1000)]);
        assert!(problems(&kept, &kept).is_empty());
        let seen = counts(&[("a", 1050), ("b", 1051), ("c", 500)]);
        assert_eq!(problems(&seen, &kept), ["b grew from 1000 to 1051"]);
    }

    #[test]
    fn a_case_on_one_side_only_is_a_problem() {
        assert_eq!(
            problems(
                &counts(&[("a", 1), ("b", 1)]),
                &counts(&[("a", 1), ("c", 1)])
            ),
            [
                "c is kept and was not counted",
                "b was counted and is not kept"
            ]
        );
    }

    #[test]
    fn the_table_shows_the_change() {
        let seen = counts(&[("append", 1021), ("new", 7)]);
        assert_eq!(
            table(&seen, Some(&counts(&[("append", 1000)]))),
            "case                 instructions         kept    change\n\
             append                       1021         1000    +2.10 %\n\
             new                             7            -         -\n"
        );
    }

    #[test]
    fn what_the_runner_prints() {
        let line = r#"{"id":"append","profiles":[{"data":{"total":{"metrics":{"Ir":{"values":{"new":7,"old":6}}}}}}]}"#;
        assert_eq!(instructions(line).unwrap()["append"], 7);
        for wrong in ["", "{}", "warning", r#"{"id":"append","profiles":[]}"#] {
            assert!(instructions(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_runner_is_the_one_that_is_locked() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"b\"\nversion = \"2.1.0\"\n";
        assert_eq!(locked(lock, "b"), Some("2.1.0"));
        assert_eq!(locked(lock, "c"), None);
    }
}
