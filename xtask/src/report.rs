//! Adding up what several test runners say.

use std::fmt;
use std::ops::AddAssign;

use anyhow::{Result, bail};

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    pub(crate) fn total(self) -> usize {
        self.passed + self.failed + self.skipped
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            passed,
            failed,
            skipped,
        } = self;
        write!(
            formatter,
            "{passed} passed, {failed} failed, {skipped} skipped"
        )
    }
}

/// The counts in one line of a Rust test binary's output, if it is the summary line.
///
/// `test result: ok. 3 passed; 0 failed; 1 ignored; …`: libtest's JSON output
/// exists on nightly only, and this line has been the same since Rust 1.0.
pub(crate) fn libtest_line(line: &str) -> Option<Tally> {
    let counts = line
        .trim()
        .strip_prefix("test result: ")?
        .split_once(". ")?
        .1;
    let mut tally = Tally::default();
    for part in counts.split("; ") {
        let (number, word) = part.split_once(' ')?;
        match word {
            "passed" => tally.passed = number.parse().ok()?,
            "failed" => tally.failed = number.parse().ok()?,
            "ignored" => tally.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

/// The counts of a JUnit XML report, as pytest and Node's test runner write it.
///
/// Counted by `<testcase>` and what stands inside it: the totals in the
/// attributes of `<testsuite>` are written by one of the two only.
///
/// # Errors
/// When the text ends within a tag, a comment or a test case, as after a crash.
pub(crate) fn junit(xml: &str) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut case: Option<Outcome> = None;
    let mut rest = xml;
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        let tag;
        (tag, rest) = split_markup(rest)?;
        match element_name(tag) {
            "testcase" if tag.ends_with("/>") => tally.passed += 1,
            "testcase" => case = Some(Outcome::Passed),
            "failure" | "error" if case.is_some() => case = Some(Outcome::Failed),
            "skipped" if case == Some(Outcome::Passed) => case = Some(Outcome::Skipped),
            "/testcase" => match case.take() {
                Some(Outcome::Passed) => tally.passed += 1,
                Some(Outcome::Failed) => tally.failed += 1,
                Some(Outcome::Skipped) => tally.skipped += 1,
                None => bail!("the report closes a test case that it did not open"),
            },
            _ => {}
        }
    }
    if case.is_some() {
        bail!("the report ends within a test case");
    }
    Ok(tally)
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// Splits one piece of markup off the front of `xml`, which starts with `<`.
fn split_markup(xml: &str) -> Result<(&str, &str)> {
    let end = if xml.starts_with("<!--") {
        xml.find("-->").map(|at| at + 3)
    } else if xml.starts_with("<![CDATA[") {
        xml.find("]]>").map(|at| at + 3)
    } else {
        end_of_tag(xml)
    };
    match end {
        Some(end) => Ok(xml.split_at(end)),
        None => bail!("the report ends within a tag"),
    }
}

/// Position after the `>` that closes a tag; one in a quoted attribute does not count.
fn end_of_tag(xml: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in xml.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

fn element_name(tag: &str) -> &str {
    let inner = tag.trim_start_matches('<').trim_end_matches('>');
    let closing = usize::from(inner.starts_with('/'));
    let length = inner[closing..]
        .find(|letter: char| letter.is_whitespace() || letter == '/')
        .unwrap_or(inner.len() - closing);
    &inner[..closing + length]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: usize, failed: usize, skipped: usize) -> Tally {
        Tally {
            passed,
            failed,
            skipped,
        }
    }

    #[test]
    fn libtest_summary_lines() {
        let check = |line, expected| assert_eq!(libtest_line(line), expected, "{line}");
        check(
            "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s",
            Some(tally(7, 0, 1)),
        );
        check(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s",
            Some(tally(1, 2, 0)),
        );
        check("test result of nothing", None);
        check("test a::b ... ok", None);
        check("running 3 tests", None);
    }

    fn check_junit(xml: &str, expected: Tally) {
        assert_eq!(junit(xml).unwrap(), expected, "{xml}");
    }

    #[test]
    fn junit_of_pytest() {
        check_junit(
            r#"<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite errors="1" failures="1" skipped="1" tests="4"><testcase classname="a" name="one" time="0.1" /><testcase name="two"><failure message="a &lt;testcase&gt; > 1">text</failure></testcase><testcase name="three"><skipped type="pytest.skip" message="no" /></testcase><testcase name="four"><error message="setup">x</error><system-out>y</system-out></testcase></testsuite></testsuites>"#,
            tally(1, 2, 1),
        );
    }

    #[test]
    fn junit_of_node() {
        check_junit(
            "<?xml version=\"1.0\"?>\n<testsuites>\n\t<testcase name=\"one\" time=\"0.1\" classname=\"test\"/>\n\
             \t<testsuite name=\"group\" tests=\"2\">\n\t\t<testcase name=\"two\"/>\n\
             \t\t<testcase name=\"three\">\n<failure type=\"testCodeFailure\" message=\"no\">\n[Error: x] { a: '<testcase/>' }\n</failure>\n</testcase>\n\
             \t</testsuite>\n\t<!-- tests 3 <testcase> -->\n</testsuites>\n"
                .replace("'<testcase/>'", "'&lt;testcase/&gt;'")
                .as_str(),
            tally(2, 1, 0),
        );
    }

    #[test]
    fn markup_in_cdata_and_attributes_is_text() {
        check_junit(
            "<testcase name='a > b'><![CDATA[<failure>]]></testcase>",
            tally(1, 0, 0),
        );
    }

    #[test]
    fn a_failed_test_stays_failed_when_teardown_skips() {
        check_junit("<testcase><failure/><skipped/></testcase>", tally(0, 1, 0));
    }

    #[test]
    fn a_report_cut_short_is_an_error() {
        for xml in [
            "<testcase name=",
            "<testcase>",
            "<!-- ",
            "</testcase>",
            "<![CDATA[ ",
        ] {
            assert!(junit(xml).is_err(), "{xml}");
        }
    }

    #[test]
    fn the_last_line_is_what_tools_look_for() {
        assert_eq!(tally(3, 0, 1).to_string(), "3 passed, 0 failed, 1 skipped");
    }
}
