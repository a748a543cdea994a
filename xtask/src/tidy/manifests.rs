//! What every crate carries: a description, the ban on unsafe code, a README.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Violation;
use super::layers::{Kind, Layer};
use crate::workspace::Package;

const FORBID_UNSAFE: &str = "#![forbid(unsafe_code)]";

/// What the `clippy.toml` of a pure crate bans, at the least.
const BANNED_IN_PURE: &[&str] = &[
    "std::time::Instant::now",
    "std::time::SystemTime::now",
    "std::thread::sleep",
    "std::env::var",
    "std::env::var_os",
    "std::env::vars",
    "std::fs::read",
    "std::fs::read_to_string",
    "std::fs::write",
    "std::fs::metadata",
    "std::fs::File::open",
    "std::fs::File::create",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::os::unix::net::UnixStream",
];

/// Shortest README that can say what a crate decides and what it does not know.
const README_LINES_MIN: usize = 5;

/// Checks one package of the workspace against its files.
///
/// # Errors
/// When a file that cargo names cannot be read.
pub(crate) fn check(table: &[Layer], package: &Package) -> Result<Vec<Violation>> {
    let folder = package
        .manifest_path
        .parent()
        .context("a manifest stands in a folder")?;
    let kind = table
        .iter()
        .find(|layer| layer.name == package.name)
        .map(|layer| layer.kind);
    let mut violations = Vec::new();
    violations.extend(description(package));
    violations.extend(one_integration_binary(package));
    for target in &package.targets {
        if target.is("lib") || target.is("bin") || target.is("proc-macro") {
            let root = fs::read_to_string(&target.src_path)
                .with_context(|| format!("reading {}", target.src_path.display()))?;
            violations.extend(forbids_unsafe(&package.name, &target.name, &root));
        }
    }
    if kind == Some(Kind::Pure) {
        violations.extend(bans(
            &package.name,
            optional(&folder.join("clippy.toml"))?.as_deref(),
        ));
    }
    if package.has_library() {
        violations.extend(readme(
            &package.name,
            optional(&folder.join("README.md"))?.as_deref(),
        ));
    }
    Ok(violations)
}

fn optional(path: &Path) -> Result<Option<String>> {
    if !path.exists() {
        return Ok(None);
    }
    Ok(Some(
        fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
    ))
}

fn description(package: &Package) -> Option<Violation> {
    let described = package
        .description
        .as_deref()
        .is_some_and(|text| text.trim().ends_with('.'));
    (!described).then(|| {
        Violation::new(
            &package.name,
            "needs a `description` of one sentence in Cargo.toml",
        )
    })
}

/// Each integration binary links the whole product again.
fn one_integration_binary(package: &Package) -> Option<Violation> {
    let binaries: Vec<&str> = package
        .targets
        .iter()
        .filter(|target| target.is("test"))
        .map(|target| target.name.as_str())
        .collect();
    (binaries.len() > 1).then(|| {
        Violation::new(
            &package.name,
            format!(
                "has several integration binaries ({}); make one",
                binaries.join(", ")
            ),
        )
    })
}

fn forbids_unsafe(package: &str, target: &str, root: &str) -> Option<Violation> {
    let forbids = root.lines().any(|line| line.trim() == FORBID_UNSAFE);
    (!forbids).then(|| Violation::new(package, format!("target {target} lacks {FORBID_UNSAFE}")))
}

fn bans(package: &str, clippy: Option<&str>) -> Vec<Violation> {
    let Some(clippy) = clippy else {
        return vec![Violation::new(
            package,
            "is pure and has no clippy.toml of its own",
        )];
    };
    let listed = |path: &str| {
        let quoted = format!("\"{path}\"");
        clippy
            .lines()
            .any(|line| !line.trim_start().starts_with('#') && line.contains(&quoted))
    };
    BANNED_IN_PURE
        .iter()
        .filter(|path| !listed(path))
        .map(|path| Violation::new(package, format!("is pure; its clippy.toml must ban {path}")))
        .collect()
}

fn readme(package: &str, text: Option<&str>) -> Option<Violation> {
    let Some(text) = text else {
        return Some(Violation::new(package, "is a library and has no README.md"));
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
    let has_example = text.contains("```");
    (lines < README_LINES_MIN || !has_example).then(|| {
        Violation::new(
            package,
            "README.md must say what the crate decides and does not know, with an example",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    fn package(value: serde_json::Value) -> Package {
        let mut whole = serde_json::json!({ "id": "a 1.0", "name": "a", "description": null,
            "manifest_path": "Cargo.toml", "dependencies": [], "targets": [] });
        for (key, value) in value.as_object().unwrap() {
            whole[key] = value.clone();
        }
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_crate_says_what_it_decides() {
        assert!(description(&package(serde_json::json!({}))).is_some());
        assert!(description(&package(serde_json::json!({ "description": " " }))).is_some());
        assert!(description(&package(serde_json::json!({ "description": "Decides." }))).is_none());
    }

    #[test]
    fn a_second_integration_binary_is_caught() {
        let target = |name| serde_json::json!({ "name": name, "kind": ["test"], "src_path": "" });
        let one = package(serde_json::json!({ "targets": [target("it")] }));
        let two = package(serde_json::json!({ "targets": [target("it"), target("more")] }));
        assert!(one_integration_binary(&one).is_none());
        assert_eq!(
            one_integration_binary(&two).unwrap().to_string(),
            "a: has several integration binaries (it, more); make one"
        );
    }

    #[test]
    fn a_root_without_the_ban_on_unsafe_is_caught() {
        assert!(forbids_unsafe("a", "a", "//! A.\n#![forbid(unsafe_code)]\n").is_none());
        assert!(forbids_unsafe("a", "a", "//! A.\n").is_some());
        assert!(forbids_unsafe("a", "a", "// #![forbid(unsafe_code)]\n").is_some());
    }

    #[test]
    fn a_method_missing_from_clippy_toml_is_caught() {
        let whole: String = BANNED_IN_PURE
            .iter()
            .map(|path| format!("{{ path = \"{path}\" }},\n"))
            .collect();
        assert_eq!(shown(&bans("a", Some(&whole))), "");
        let without = whole.replace("\"std::env::var\"", "\"std::env::other\"");
        assert_eq!(
            shown(&bans("a", Some(&without))),
            "a: is pure; its clippy.toml must ban std::env::var\n"
        );
        let commented = whole.replace("{ path = \"std::fs::read\" }", "# \"std::fs::read\"");
        assert_eq!(bans("a", Some(&commented)).len(), 1);
        assert_eq!(bans("a", None).len(), 1);
    }

    #[test]
    fn a_title_is_not_a_readme() {
        assert!(readme("a", None).is_some());
        assert!(readme("a", Some("# a\n")).is_some());
        assert!(readme("a", Some("# a\n\none\n\ntwo\n\nthree\n\nfour\n")).is_some());
        assert!(readme("a", Some("# a\n\none\n\ntwo\n\n```rust\nuse a;\n```\n")).is_none());
    }
}
