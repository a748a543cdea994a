//! No file names a folder of the machine it was written on.

use super::Violation;
use crate::workspace::TextFile;

/// Folders in which people's and build machines' checkouts live. Joined, so
/// that this file does not name them either.
const MACHINE_FOLDERS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/tmp/", "bash_jobs"),
    concat!("C:\\", "Users\\"),
];

/// Checks one file, line by line.
pub(crate) fn check(file: &TextFile) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for folder in MACHINE_FOLDERS {
            if names(line, folder) {
                violations.push(Violation::new(
                    format!("{}:{}", file.path, number + 1),
                    format!("names a path of some machine ({folder}…)"),
                ));
            }
        }
    }
    violations
}

/// Whether `folder` starts a path in `line`; within a longer path or address it is no machine's.
fn names(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let starts_a_path = !before.is_some_and(|letter| {
            letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_' | '/' | '}' | '>' | '~')
        });
        let names_something =
            line[at + folder.len()..].starts_with(|letter: char| letter.is_alphanumeric());
        starts_a_path && names_something
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    fn check_line(line: &str) -> String {
        shown(&check(&TextFile {
            path: "a.md".to_owned(),
            text: line.to_owned(),
        }))
    }

    #[test]
    fn every_machine_folder_is_found() {
        for folder in MACHINE_FOLDERS {
            for line in [
                format!("{folder}someone/x"),
                format!("see `{folder}a`"),
                format!("P={folder}a"),
            ] {
                assert_eq!(
                    check_line(&line),
                    format!("a.md:1: names a path of some machine ({folder}…)\n"),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn longer_paths_and_bare_folders_are_not_machines() {
        let folder = MACHINE_FOLDERS[1];
        for line in [
            format!("https://example.com{folder}a"),
            format!("docs{folder}a"),
            format!("the folder {folder} alone"),
        ] {
            assert_eq!(check_line(&line), "", "{line}");
        }
    }
}
