//! Searches everything that the processes let out for the secrets they were given.
//!
//! The integration tests run at trace level with distinct canaries in the place of every secret and
//! record what leaves each process: log, output, and every byte sent to a client. Nothing of a
//! canary may be found there, in any of the encodings below.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::process;
use crate::workspace::Workspace;

/// What a canary looks like in the tests' sources: this, and 33 more characters.
const PREFIX: &str = "CANARY-";
const CANARY_BYTES: usize = 40;
/// A piece of a secret that is this long is a leak as well.
const PIECE_BYTES: usize = 12;

/// Runs the integration tests with recording on, then searches what they recorded.
///
/// # Errors
/// When a test fails, when too little was recorded for the search to mean anything, or when a
/// canary was found.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let folder = workspace.target.join("canary");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let canaries = canaries(&workspace.root.join("tests/it"))?;
    process::run(
        workspace
            .cargo()
            .args([
                "test",
                "--locked",
                "--quiet",
                "--package",
                "talkline",
                "--test",
                "it",
            ])
            .env("TALKLINE_CANARY_FOLDER", &folder),
    )?;
    let needles = needles(&canaries);
    let mut bytes = 0;
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut hits = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let content = fs::read(&path)?;
        bytes += content.len();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let kind = name.split_once('-').map_or("?", |(_, kind)| kind);
        *kinds.entry(kind.to_owned()).or_default() += content.len();
        hits.extend(search(&content, &needles).map(|what| format!("{name}: {what}")));
    }
    for (kind, bytes) in &kinds {
        println!("{kind:<12}{bytes:>12} bytes");
    }
    println!(
        "{} canaries, {} needles, {bytes} bytes searched: {} hits",
        canaries.len(),
        needles.len(),
        hits.len()
    );
    for kind in ["log", "stdout", "stderr", "to-client"] {
        if !kinds.contains_key(kind) {
            bail!("nothing of the kind `{kind}` was recorded: the search would prove nothing");
        }
    }
    if !hits.is_empty() {
        hits.truncate(20);
        bail!("secrets were let out:\n  {}", hits.join("\n  "));
    }
    Ok(())
}

/// Every canary that the tests name.
fn canaries(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{} is gone", folder.display()))? {
        found.extend(canaries_in(&fs::read_to_string(entry?.path())?));
    }
    found.sort();
    found.dedup();
    if found.len() < 2 {
        bail!(
            "the tests in {} name fewer than two canaries",
            folder.display()
        );
    }
    Ok(found)
}

fn canaries_in(source: &str) -> Vec<String> {
    let starts = source.match_indices(PREFIX).map(|(at, _)| at);
    let word = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    starts
        .filter_map(|at| source.get(at..at + CANARY_BYTES))
        .filter(|text| word(text))
        .map(str::to_owned)
        .collect()
}

/// A form of a canary, and what to call it.
struct Needle {
    bytes: Vec<u8>,
    what: String,
}

fn needles(canaries: &[String]) -> Vec<Needle> {
    let mut needles = Vec::new();
    for (index, canary) in canaries.iter().enumerate() {
        // The message must not become the leak: a canary is named by its number.
        let mut add = |form: &str, bytes: Vec<u8>| {
            needles.push(Needle {
                bytes,
                what: format!("canary {index}, {form}"),
            });
        };
        let bytes = canary.as_bytes();
        // The prefix is the same for all and stands in test names; what follows it is secret.
        for piece in bytes[PREFIX.len()..].windows(PIECE_BYTES) {
            add("a piece of it", piece.to_vec());
        }
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        add("in upper-case hex", hex.to_uppercase().into_bytes());
        add("in hex", hex.into_bytes());
        add("backwards", bytes.iter().rev().copied().collect());
        let escaped = |escape: &dyn Fn(u8) -> String| -> Vec<u8> {
            let text: String = bytes
                .iter()
                .map(|byte| match byte.is_ascii_alphanumeric() {
                    true => char::from(*byte).to_string(),
                    false => escape(*byte),
                })
                .collect();
            text.into_bytes()
        };
        add("percent-encoded", escaped(&|byte| format!("%{byte:02X}")));
        add(
            "percent-encoded in lower case",
            escaped(&|byte| format!("%{byte:02x}")),
        );
        add("JSON-escaped", escaped(&|byte| format!("\\u{byte:04x}")));
        for phase in 0..3 {
            add("in base64", base64_core(&STANDARD_NO_PAD, bytes, phase));
            add(
                "in URL-safe base64",
                base64_core(&URL_SAFE_NO_PAD, bytes, phase),
            );
        }
    }
    needles
}

/// The characters of the encoding that depend on nothing but the secret, when `phase` bytes of its
/// group of three came before it.
fn base64_core(engine: &impl base64::Engine, bytes: &[u8], phase: usize) -> Vec<u8> {
    let mut padded = vec![0; phase];
    padded.extend_from_slice(bytes);
    let encoded = engine.encode(&padded).into_bytes();
    let start = (phase * 8).div_ceil(6);
    let end = padded.len() * 8 / 6;
    encoded[start..end].to_vec()
}

fn search<'a>(content: &[u8], needles: &'a [Needle]) -> impl Iterator<Item = &'a str> {
    // Most windows of 6 bytes start no needle: they are told apart before anything is compared.
    let mut by_start: BTreeMap<[u8; 6], Vec<&Needle>> = BTreeMap::new();
    for needle in needles {
        if let Some(start) = needle.bytes.first_chunk::<6>() {
            by_start.entry(*start).or_default().push(needle);
        }
    }
    let mut found: Vec<&str> = Vec::new();
    for at in 0..content.len() {
        let rest = &content[at..];
        let Some(candidates) = rest
            .first_chunk::<6>()
            .and_then(|start| by_start.get(start))
        else {
            continue;
        };
        let hits = candidates
            .iter()
            .filter(|needle| rest.starts_with(&needle.bytes));
        found.extend(hits.map(|needle| needle.what.as_str()));
    }
    found.sort_unstable();
    found.dedup();
    found.into_iter()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    const CANARY: &str = "CANARY-TEST-0123456789abcdef0123456789ab";

    fn check(text: &[u8], expected: bool) {
        let needles = needles(&[CANARY.to_owned()]);
        let found = search(text, &needles).next().is_some();
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(text));
    }

    #[test]
    fn every_form_is_found() {
        check(b"nothing to see", false);
        check(b"CANARY-", false);
        check(format!("x{CANARY}y").as_bytes(), true);
        check(&CANARY.as_bytes()[20..34], true);
        let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
        check(hex.as_bytes(), true);
        check(hex.to_uppercase().as_bytes(), true);
        check(CANARY.replace('-', "%2D").as_bytes(), true);
        let backwards: String = CANARY.chars().rev().collect();
        check(backwards.as_bytes(), true);
        for before in ["", "a", "ab", "abc"] {
            check(
                STANDARD_NO_PAD
                    .encode(format!("{before}{CANARY}z"))
                    .as_bytes(),
                true,
            );
            check(
                URL_SAFE_NO_PAD
                    .encode(format!("{before}{CANARY}z"))
                    .as_bytes(),
                true,
            );
        }
    }

    #[test]
    fn canaries_are_read_from_the_sources() {
        let source = format!("const KEY: &str = \"{CANARY}\"; // CANARY- is a prefix\n");
        assert_eq!(canaries_in(&source), [CANARY]);
    }
}
