//! Whatever a client does to hide what it says, the guard reads what the upstream will read.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod differ;
mod drive;
mod evasion;
mod generate;
mod oracle;

use generate::Random;
use proptest::prelude::*;
use talkline_frame::MessageKind;

/// How many random documents a test run tries; the example `policy_differential` tries any number.
const DOCUMENTS: u64 = 20_000;

#[test]
fn random_documents_are_judged_as_a_full_parse_judges_them() {
    let (mut passed, mut blocked) = (0, 0);
    for seed in 0..DOCUMENTS {
        match differ_at(seed) {
            Ok(true) => passed += 1,
            Ok(false) => blocked += 1,
            Err(difference) => panic!("{difference}"),
        }
    }
    // A generator that is always refused, or never, shows nothing.
    assert!(
        passed > DOCUMENTS / 10 && blocked > DOCUMENTS / 10,
        "{passed} {blocked}"
    );
}

/// Tries the document of a seed; says whether something of it went on.
fn differ_at(seed: u64) -> Result<bool, String> {
    let mut random = Random(seed);
    let rules = generate::rules(&mut random);
    let helpers = generate::helpers(&mut random);
    let message = generate::message(&mut random);
    let cuts = generate::cuts(&mut random, message.len());
    match differ::difference(&rules, &helpers, &message, &cuts) {
        None => Ok(matches!(
            oracle::outcome(&rules, &helpers, &message),
            oracle::Outcome::Pass(_)
        )),
        Some(difference) => Err(format!(
            "seed {seed}\n{}\n{rules:?}\n{helpers:?}\n{difference}",
            String::from_utf8_lossy(&message)
        )),
    }
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_how_pieces_are_cut(
        seed: u64,
        mut cuts in prop::collection::vec(0usize..1200, 0..20),
    ) {
        let mut random = Random(seed);
        let rules = generate::rules(&mut random);
        let helpers = generate::helpers(&mut random);
        let message = generate::message(&mut random);
        cuts.sort_unstable();
        let verdict = |cuts: &[usize]| {
            let mut guard = differ::guard(&rules, &helpers);
            drive::send(&mut guard, MessageKind::Text, &message, cuts)
        };
        prop_assert_eq!(verdict(&[]), verdict(&cuts));
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        seed: u64,
    ) {
        let mut random = Random(seed);
        let rules = generate::rules(&mut random);
        let helpers = generate::helpers(&mut random);
        let difference = differ::difference(&rules, &helpers, &bytes, &[]);
        prop_assert_eq!(difference, None);
    }
}
