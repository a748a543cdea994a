//! `sim`: the simulator as a process.

use talkline_sim::{Profile, Reply, Simulator};

use crate::{
    cli::{SimArguments, SimProfile},
    exit::Exit,
    output,
    run::{runtime, shutdown_signal},
};

/// Names the key that the simulator accepts.
const KEY_VARIABLE: &str = "TALKLINE_SIM_API_KEY";

/// Runs until SIGTERM or SIGINT.
pub(crate) fn sim(arguments: &SimArguments) -> Result<(), Exit> {
    let profile = match arguments.profile {
        SimProfile::Ga => Profile::Ga,
        SimProfile::Preview => Profile::Preview,
        SimProfile::Both => Profile::Both,
        SimProfile::Openai => Profile::OpenAi,
    };
    let mut builder = Simulator::builder()
        .listen(arguments.listen)
        .profile(profile);
    if let Ok(key) = std::env::var(KEY_VARIABLE) {
        builder = builder.api_key(key);
    }
    if let Some(path) = &arguments.record {
        builder = builder.record_to(path);
    }
    if arguments.parrot {
        builder = builder.reply(Reply::Parrot);
    }
    runtime()?.block_on(async {
        let running = builder
            .start()
            .await
            .map_err(|error| Exit::Unavailable(format!("the simulator cannot start: {error}")))?;
        let shutdown = shutdown_signal()?;
        output::line(&format!("listening on {}", running.base_url()))?;
        shutdown.await;
        running.shutdown().await;
        Ok(())
    })
}
