//! The reference page, and the table that it is made of.

use std::{collections::HashSet, path::Path};

use super::*;
use crate::diagnosis::table::ROWS;

/// `TALKLINE_BLESS=1` writes the file anew.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test compares a file of the repository"
)]
fn the_page_of_errors_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (file, fresh) in [
        (ERRORS_PAGE, errors_reference()),
        (ERRORS_MODULE, errors_module()),
    ] {
        let path = root.join(file);
        if std::env::var_os("TALKLINE_BLESS").is_some() {
            std::fs::write(&path, &fresh).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == fresh,
            "{file} is stale: run `TALKLINE_BLESS=1 cargo test -p talkline-dialect`"
        );
    }
}

#[test]
fn every_code_has_one_anchor_and_everything_is_said() {
    let page = errors_reference();
    let mut seen = HashSet::new();
    for row in ROWS {
        for code in std::iter::once(row.code).chain(row.twin) {
            assert!(seen.insert(code), "{code} stands twice");
            assert_eq!(
                page.matches(&format!("\n### {code}\n")).count(),
                1,
                "{code}"
            );
            let word = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(code.bytes().all(word) && code.len() <= 123, "{code}");
        }
        for text in [row.summary, row.confirm, row.next_step] {
            let balanced = text.matches('{').count() == text.matches('}').count();
            assert!(text.ends_with('.') && balanced, "{}: {text}", row.code);
        }
        assert!(
            row.twin.is_none() || row.code.starts_with("azure_"),
            "{}",
            row.code
        );
    }
    assert!(seen.len() > 70, "{}", seen.len());
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test compares files of the repository"
)]
fn the_settings_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let settings = std::fs::read_to_string(root.join("docs/reference/configuration.md")).unwrap();
    let mut found = 0;
    for row in ROWS {
        let text = format!("{} {} {}", row.confirm, row.next_step, row.azure_step);
        for word in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.')) {
            let word = word.trim_end_matches('.');
            let is_limit = word
                .strip_prefix("limits.")
                .filter(|_| word != "limits.updated");
            let is_azure = Some(word).filter(|word| {
                word.strip_prefix("azure")
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
            });
            if let Some(key) = is_limit.or(is_azure) {
                assert!(
                    settings.contains(&format!("### `{key}`")),
                    "{}: {word}",
                    row.code
                );
                found += 1;
            }
        }
    }
    assert!(found > 10, "{found}");
}

#[test]
fn commands_can_be_copied() {
    for row in ROWS {
        for text in [row.confirm, row.next_step, row.azure_step] {
            assert_eq!(text.matches('`').count() % 2, 0, "{text}");
            for prose in text.split('`').step_by(2) {
                assert!(!prose.contains(" --") && !prose.contains("az "), "{prose}");
            }
        }
    }
}
