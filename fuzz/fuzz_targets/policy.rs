//! Any bytes, in any pieces, under any rules: the guard of a session policy and a full parse agree.
#![no_main]

#[path = "../../crates/talkline-session/tests/policy/differ.rs"]
mod differ;
#[path = "../../crates/talkline-session/tests/policy/drive.rs"]
mod drive;
#[path = "../../crates/talkline-session/tests/policy/generate.rs"]
mod generate;
#[path = "../../crates/talkline-session/tests/policy/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;

// The rules come from the seed, and so does the message when the fuzzer brings none.
fuzz_target!(|input: (u16, Vec<u16>, &[u8])| {
    let (seed, mut cuts, message) = input;
    let mut case = generate::case(seed.into());
    if !message.is_empty() {
        cuts.sort_unstable();
        case.cuts = cuts.into_iter().map(usize::from).collect();
        case.message = message.to_vec();
    }
    if let Err(difference) = case.agree() {
        panic!("{difference}");
    }
});
