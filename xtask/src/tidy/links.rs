//! Relative links in Markdown lead somewhere.

use super::Violation;
use crate::workspace::TextFile;

/// Checks the inline links of one Markdown file; `exists` takes a path from the root.
///
/// Addresses with a scheme and anchors within the page are not followed.
pub(crate) fn check(file: &TextFile, exists: impl Fn(&str) -> bool) -> Vec<Violation> {
    if !file.path.ends_with(".md") {
        return Vec::new();
    }
    let mut violations = Vec::new();
    let mut in_code = false;
    for (number, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in targets(line) {
            let broken = match resolve(&file.path, target) {
                None => false,
                Some(Ok(path)) => !exists(&path),
                Some(Err(Outside)) => true,
            };
            if broken {
                violations.push(Violation::new(
                    format!("{}:{}", file.path, number + 1),
                    format!("links to `{target}`, which does not exist"),
                ));
            }
        }
    }
    violations
}

/// The targets of `[text](target)` and `[text](target "title")` in one line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let inner = rest.split_once(')')?.0;
        inner
            .split_whitespace()
            .next()
            .map(|it| it.trim_matches(['<', '>']))
    })
}

/// A link that climbs out of the repository.
struct Outside;

/// The path from the root that a link in `page` leads to; `None` when it is not relative.
fn resolve(page: &str, target: &str) -> Option<Result<String, Outside>> {
    let path = target.split(['#', '?']).next().unwrap_or_default();
    let has_scheme = target.contains("://") || target.starts_with("mailto:");
    if path.is_empty() || has_scheme {
        return None;
    }
    let mut parts: Vec<&str> = match path.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => page.split('/').collect(),
    };
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Some(Err(Outside));
                }
            }
            name => parts.push(name),
        }
    }
    Some(Ok(parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::shown;

    fn check_page(text: &str) -> String {
        let file = TextFile {
            path: "docs/guide/azure.md".to_owned(),
            text: text.to_owned(),
        };
        let there = [
            "README.md",
            "docs/guide/azure.md",
            "docs/decisions",
            "docs/guide/a.md",
        ];
        shown(&check(&file, |path| there.contains(&path)))
    }

    #[test]
    fn links_that_lead_somewhere() {
        for text in [
            "[a](a.md) and [top](../../README.md#start)",
            "[folder](../decisions/)",
            "[root](/README.md)",
            "[self](#anchor) [web](https://example.com/a.md) [mail](mailto:a@example.com)",
            "[titled](a.md \"A title\") ![picture](<a.md>)",
            "```\n[not a link](nowhere.md)\n```",
        ] {
            assert_eq!(check_page(text), "", "{text}");
        }
    }

    #[test]
    fn links_that_lead_nowhere() {
        let check = |text: &str, target: &str| {
            assert_eq!(
                check_page(text),
                format!("docs/guide/azure.md:2: links to `{target}`, which does not exist\n"),
            );
        };
        check("\n[gone](gone.md)", "gone.md");
        check("\n[a](a.md), [gone](../gone.md#x)", "../gone.md#x");
        check("\n[outside](../../../README.md)", "../../../README.md");
    }

    #[test]
    fn other_files_are_not_read_as_markdown() {
        let file = TextFile {
            path: "a.rs".to_owned(),
            text: "[a](gone.md)".to_owned(),
        };
        assert!(check(&file, |_| false).is_empty());
    }
}
