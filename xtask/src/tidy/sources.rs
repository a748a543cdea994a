//! No test that does not run, and no code that is not there yet.

use super::Violation;
use crate::workspace::TextFile;

/// What may not stand in a source file, and why. Joined, so that this file may.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    (
        ".rs",
        concat!("#[ig", "nore"),
        "assert today's behaviour with a FIXME instead",
    ),
    (".rs", concat!("to", "do!("), "write it or leave it out"),
    (
        ".rs",
        concat!("unimple", "mented!("),
        "write it or leave it out",
    ),
    (
        ".rs",
        concat!("```ig", "nore"),
        "an example compiles: use a doctest or `text`",
    ),
    (
        ".py",
        concat!("pytest.mark.", "skip"),
        "a test that cannot run is a failure",
    ),
    (
        ".py",
        concat!("pytest.mark.", "xfail"),
        "assert today's behaviour with a FIXME instead",
    ),
    (
        ".py",
        concat!("pytest.", "skip("),
        "a test that cannot run is a failure",
    ),
    (
        ".mjs",
        concat!("test.", "skip("),
        "a test that cannot run is a failure",
    ),
    (
        ".mjs",
        concat!("test.", "todo("),
        "write it or leave it out",
    ),
    (".mjs", concat!("test.", "only("), "the others must run too"),
];

/// Checks one source file, line by line.
pub(crate) fn check(file: &TextFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for (extension, found, remedy) in FORBIDDEN {
            if file.path.ends_with(extension) && line.contains(found) {
                violations.push(Violation::new(
                    format!("{}:{}", file.path, number + 1),
                    format!("`{found}`: {remedy}"),
                ));
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    fn check_text(path: &str, text: &str) -> String {
        shown(&check(&TextFile {
            path: path.to_owned(),
            text: text.to_owned(),
        }))
    }

    #[test]
    fn every_forbidden_word_is_found() {
        for (extension, word, remedy) in FORBIDDEN {
            let path = format!("crates/a/src/lib{extension}");
            assert_eq!(
                check_text(&path, &format!("one\n    {word} = \"slow\"]\n")),
                format!("{path}:2: `{word}`: {remedy}\n"),
            );
        }
    }

    #[test]
    fn words_count_only_in_files_of_their_language() {
        let (_, word, _) = FORBIDDEN[0];
        assert_eq!(check_text("CONTRIBUTING.md", word), "");
        assert_eq!(check_text("src/lib.rs", "fn ignore() { done() }"), "");
    }
}
