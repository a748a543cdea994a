//! The list of codes in the README, which operators search for.

use std::{collections::BTreeSet, fs, path::Path};

/// Every word in `text`, between `quote`s, that has the form of a code.
fn codes(text: &str, quote: char) -> BTreeSet<String> {
    let is_code = |word: &&str| {
        ["identity_", "entra_", "cli_", "vault_"]
            .iter()
            .any(|start| {
                word.strip_prefix(start)
                    .is_some_and(|rest| !rest.is_empty())
            })
            && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    text.split(quote)
        .filter(is_code)
        .map(str::to_owned)
        .collect()
}

/// All Rust sources below `directory`, up to where their tests begin.
fn sources(directory: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.push_str(&sources(&path));
        } else {
            let text = fs::read_to_string(path).unwrap();
            all.push_str(text.split("#[cfg(test)]").next().unwrap());
            all.push('"');
        }
    }
    all
}

#[test]
fn the_readme_lists_every_code() {
    // Names of attributes and of form fields have the same shape.
    let others = ["identity_header", "identity_endpoint"];
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut used = BTreeSet::new();
    for line in sources(&directory.join("src")).lines() {
        used.extend(codes(line, '"'));
    }
    used.retain(|word| !others.contains(&word.as_str()));
    let readme = fs::read_to_string(directory.join("README.md")).unwrap();
    let (_, table) = readme.split_once("## Codes").unwrap();
    assert_eq!(codes(table, '`'), used);
}
