//! Starts a simulator, asks it the bundled question, and prints what came back.
//!
//! `cargo run -p talkline-sim --example turn`

use talkline_sim::caller::{Call, Secret, TurnOptions, spoken_turn};
use talkline_sim::{DEFAULT_API_KEY, Simulator, clips};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let simulator = Simulator::builder().start().await?;
    let url = format!("ws://{}/openai/v1/realtime?model=voice", simulator.addr());
    let mut call = Call::new(url);
    call.headers
        .push(("api-key".to_owned(), Secret::new(DEFAULT_API_KEY)));
    let report = spoken_turn(&call, &clips::QUESTION.wav()?, &TurnOptions::default()).await?;
    simulator.shutdown().await;

    #[expect(clippy::print_stdout, reason = "an example's output")]
    {
        println!("caller    {}", report.input_transcript);
        println!("simulator {}", report.reply_transcript);
        println!(
            "reply     {:.1} s of audio",
            report.reply().duration().as_secs_f64()
        );
        println!("usage     {}", report.usage);
        println!("latency   {:?}", report.latencies);
    }
    match report.missing().as_slice() {
        [] => Ok(()),
        missing => Err(format!("not a whole turn, missing: {}", missing.join(", ")).into()),
    }
}
