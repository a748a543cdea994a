//! Lock files pin content, not the address it was once downloaded from.
//!
//! An address in a lock file ties every user to one mirror; names, versions
//! and hashes fix the content whatever mirror serves it.

use super::Violation;
use crate::workspace::TextFile;

/// Checks one file, if it is a lock file of a known kind.
pub(crate) fn check(file: &TextFile) -> Vec<Violation> {
    let name = file.path.rsplit('/').next().unwrap_or_default();
    let problems = match name {
        "Cargo.lock" => cargo(&file.text),
        "package-lock.json" => npm(&file.text),
        _ if name.starts_with("requirements") && !name.ends_with(".in") => python(&file.text),
        _ => Vec::new(),
    };
    problems
        .into_iter()
        .map(|problem| Violation::new(&file.path, problem))
        .collect()
}

/// One registry and nothing else. Which one it is, `deny.toml` says.
fn cargo(text: &str) -> Vec<String> {
    let mut sources: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("source = "))
        .map(|source| source.trim_matches('"'))
        .collect();
    sources.sort_unstable();
    sources.dedup();
    let registries = sources
        .iter()
        .filter(|source| source.starts_with("registry+"))
        .count();
    let mut problems: Vec<_> = sources
        .iter()
        .filter(|source| !source.starts_with("registry+"))
        .map(|source| format!("has a source that is no registry: {source}"))
        .collect();
    if registries > 1 {
        problems.push(format!(
            "has {registries} registries: {}",
            sources.join(", ")
        ));
    }
    problems
}

fn npm(text: &str) -> Vec<String> {
    let lock: serde_json::Value = match serde_json::from_str(text) {
        Ok(lock) => lock,
        Err(error) => return vec![format!("is not JSON: {error}")],
    };
    let Some(packages) = lock["packages"].as_object() else {
        return vec!["has no `packages`: npm 7 or newer writes them".to_owned()];
    };
    let mut problems = Vec::new();
    for (path, package) in packages.iter().filter(|(path, _)| !path.is_empty()) {
        if package.get("resolved").is_some() {
            problems.push(format!(
                "{path} has a download address; npm omits it with omit-lockfile-registry-resolved"
            ));
        }
        if package.get("integrity").is_none() {
            problems.push(format!("{path} has no integrity hash"));
        }
    }
    problems
}

fn python(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let mut problems = Vec::new();
    for line in joined.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.contains("://") || line.starts_with("--") {
            problems.push(format!("names where to download from: {line}"));
        } else if !line.contains("==") || !line.contains("--hash=sha256:") {
            let requirement = line.split_whitespace().next().unwrap_or_default();
            problems.push(format!("{requirement} is not pinned by version and hash"));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    fn check_lock(path: &str, text: &str, expected: &str) {
        let file = TextFile {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        assert_eq!(shown(&check(&file)), expected, "{text}");
    }

    #[test]
    fn cargo_locks_name_one_registry_only() {
        let one = "[[package]]\nname = \"a\"\nsource = \"registry+https://a.example\"\n";
        check_lock("Cargo.lock", &one.repeat(2), "");
        check_lock(
            "Cargo.lock",
            "source = \"git+https://example.com/a#1\"\n",
            "Cargo.lock: has a source that is no registry: git+https://example.com/a#1\n",
        );
        check_lock(
            "fuzz/Cargo.lock",
            &format!("{one}source = \"registry+https://b.example\"\n"),
            "fuzz/Cargo.lock: has 2 registries: registry+https://a.example, registry+https://b.example\n",
        );
    }

    #[test]
    fn npm_locks_have_hashes_and_no_addresses() {
        let lock = |package: &str| {
            format!(r#"{{"packages":{{"":{{"name":"t"}},"node_modules/a":{package}}}}}"#)
        };
        check_lock(
            "package-lock.json",
            &lock(r#"{"integrity":"sha512-x"}"#),
            "",
        );
        check_lock(
            "package-lock.json",
            &lock(r#"{"integrity":"sha512-x","resolved":"https://mirror.example/a.tgz"}"#),
            "package-lock.json: node_modules/a has a download address; npm omits it with omit-lockfile-registry-resolved\n",
        );
        check_lock(
            "package-lock.json",
            &lock("{}"),
            "package-lock.json: node_modules/a has no integrity hash\n",
        );
        check_lock(
            "package-lock.json",
            "{}",
            "package-lock.json: has no `packages`: npm 7 or newer writes them\n",
        );
    }

    #[test]
    fn python_locks_have_hashes_and_no_addresses() {
        let good = "# comment\na==1 ; python_version < '4' \\\n    --hash=sha256:00\n";
        check_lock("x/requirements.lock", good, "");
        check_lock(
            "requirements.txt",
            "--index-url https://mirror.example/simple\n",
            "requirements.txt: names where to download from: --index-url https://mirror.example/simple\n",
        );
        check_lock(
            "requirements.lock",
            "a==1\n",
            "requirements.lock: a==1 is not pinned by version and hash\n",
        );
        check_lock("requirements.in", "a==1\n", "");
    }
}
