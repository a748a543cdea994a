//! Whatever a client does to hide what it says, the guard reads what the upstream will read.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod differ;
mod drive;
mod evasion;
mod generate;
mod oracle;

use differ::Agreement;
use proptest::prelude::*;
use talkline_frame::MessageKind;

/// How many random documents a test run tries; the example `policy_differential` tries any number.
const DOCUMENTS: u64 = 20_000;

#[test]
fn random_documents_are_judged_as_a_full_parse_judges_them() {
    let (mut passed, mut blocked) = (0, 0);
    for seed in 0..DOCUMENTS {
        match generate::case(seed).agree() {
            Ok(Agreement::Passed) => passed += 1,
            Ok(Agreement::Blocked) => blocked += 1,
            Ok(Agreement::Breached) => {}
            Err(difference) => panic!("seed {seed}: {difference}"),
        }
    }
    // A generator that is always refused, or never, shows nothing.
    assert!(
        passed > DOCUMENTS / 10 && blocked > DOCUMENTS / 10,
        "{passed} {blocked}"
    );
}

proptest! {
    #[test]
    fn the_verdict_does_not_depend_on_how_pieces_are_cut(
        seed: u64,
        mut cuts in prop::collection::vec(0usize..1200, 0..20),
    ) {
        let case = generate::case(seed);
        cuts.sort_unstable();
        let verdict = |cuts: &[usize]| {
            let mut guard = differ::guard(&case.rules, &case.helpers);
            drive::send(&mut guard, MessageKind::Text, &case.message, cuts)
        };
        prop_assert_eq!(verdict(&[]), verdict(&cuts));
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        seed: u64,
    ) {
        let case = generate::Case { message: bytes, ..generate::case(seed) };
        prop_assert_eq!(case.agree().err(), None);
    }
}
