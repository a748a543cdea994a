//! The command line.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  talkline demo
      Hear it work: a simulator, the relay and one spoken turn. Needs no account.
  AZURE_OPENAI_ENDPOINT=https://<resource>.openai.azure.com \\
  AZURE_OPENAI_DEPLOYMENT_NAME=<deployment> AZURE_OPENAI_API_KEY=… TALKLINE_CLIENT_KEY=… talkline run
      Run from the environment alone.
  talkline check --config talkline.toml
      Find every mistake in a configuration without opening a socket.
  TALKLINE_CLIENT_KEY=… talkline talk --wav question.wav --save reply.wav
      Hold one spoken turn with the relay on this machine.
  talkline doctor --config talkline.toml
      Try the configuration out: DNS, TCP, TLS, credential, upgrade, session.

Exit codes:
  0  success            2  wrong usage, or the check could not run
  1  findings, or a failed turn
  69 unavailable        77 the upstream refused the credential
  78 the configuration is wrong";

/// A relay between voice clients and Azure GPT Realtime that keeps the credential on the server.
#[derive(Debug, Parser)]
#[command(name = "talkline", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the relay.
    Run(RunArguments),
    /// Check the configuration without opening a socket.
    Check(CheckArguments),
    /// Go the way of a session step by step, with the real upstream, and say where it ends.
    Doctor(DoctorArguments),
    /// Ask the relay that runs with this configuration whether it is well; 0 if so, 1 if not.
    Healthcheck(HealthcheckArguments),
    /// Hold one spoken turn through a simulator and the relay, then keep both running.
    Demo(DemoArguments),
    /// Hold one turn with a relay, Azure or OpenAI: a recording or a text in, captions, audio and latencies out.
    Talk(TalkArguments),
    /// Run the simulator of Azure's Realtime endpoint alone.
    Sim(SimArguments),
    /// Make, read or revoke the tokens that browsers hold in place of a client key.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show the effective configuration, or the schema of its file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the version.
    Version(VersionArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every effective value; secrets as fingerprints.
    Show(ShowArguments),
    /// Print the JSON Schema of the configuration file.
    Schema,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token with the ring of the configuration, and print it.
    Create(TokenCreateArguments),
    /// Print what a token says, and whether it is valid. Exit 1 when it is not.
    Inspect(TokenInspectArguments),
    /// Tell a running relay to take access away, through its listener for operators.
    Revoke(TokenRevokeArguments),
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreateArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// The client whose limits hold: the name of a key, or `<issuer>:<user>`.
    #[arg(long, value_name = "NAME")]
    pub(crate) client: String,
    /// The only model that it is good for. Without it: any that the client may ask for.
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<String>,
    /// The web origin whose pages alone may use it, such as `https://talk.example.com`.
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) origin: Option<String>,
    /// The session policy, where the client has none of its own.
    #[arg(long, value_name = "NAME")]
    pub(crate) policy: Option<String>,
    /// JSON file with the session's settings (instructions, voice, tools, …); `-` reads them from
    /// standard input. They travel sealed in the token.
    #[arg(long, value_name = "FILE")]
    pub(crate) session: Option<PathBuf>,
    /// How long it can be used, at most tokens.lifetime. Without it: that long.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) lifetime: Option<u64>,
    /// Longest session.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) max_session: Option<u64>,
    /// Responses of the session.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_responses: Option<u64>,
    /// Tokens of the session, input and output together.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_tokens: Option<u64>,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct TokenInspectArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// The token; `-` reads it from standard input, so that it does not stay in the shell's history.
    #[arg(value_name = "TOKEN")]
    pub(crate) token: String,
    /// How it is printed.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct TokenRevokeArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    #[command(flatten)]
    pub(crate) target: RevokeTarget,
    /// How long it stays revoked, at most a day. Without it: a day, the longest of any session.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) time: Option<u64>,
    /// Address of the listener for operators. Without it: admin.listen.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin: Option<SocketAddr>,
}

/// Who loses access.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct RevokeTarget {
    /// A token, or its id as `inspect` prints it; the session that it opened ends.
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// A session, by its id in the log.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// A client: its sessions end, its tokens open none, and it gets no new ones.
    #[arg(long, value_name = "NAME")]
    pub(crate) client: Option<String>,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigArguments {
    /// Configuration file: TOML, or JSON/JSON5 such as an openclaw.json. Without it talkline.toml
    /// is read where it exists, else the environment alone.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address to listen on (server.listen).
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<String>,
    /// Certificate chain in PEM form (server.tls.cert).
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        conflicts_with = "tls_dev"
    )]
    pub(crate) tls_cert: Option<String>,
    /// Private key in PEM form (server.tls.key).
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        conflicts_with = "tls_dev"
    )]
    pub(crate) tls_key: Option<String>,
    /// Use a certificate for localhost made on the spot, and print how to trust it.
    #[arg(long)]
    pub(crate) tls_dev: bool,
    /// Accept the identity that is signed in to the Azure CLI or the Azure Developer CLI
    /// (auth.kind azure-cli, azd, and auto).
    #[arg(long)]
    pub(crate) dev: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    /// Which events are logged, such as `info` or `talkline_gateway=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log_level: String,
    /// Let other crates log below `info` too. Their lines may hold credentials and payloads: never on
    /// a machine whose log anybody else reads.
    #[arg(long)]
    pub(crate) unsafe_trace: bool,
    /// Open a session with every upstream before listening; exit 77 or 69 when one refuses.
    #[arg(long)]
    pub(crate) require_ready: bool,
    /// Loopback address that stands in for an upstream's: host:port:ip:port. For tests.
    #[arg(long, hide = true, value_parser = talkline_gateway::ResolveOverride::parse)]
    pub(crate) resolve: Vec<talkline_gateway::ResolveOverride>,
}

#[derive(Debug, Args)]
pub(crate) struct HealthcheckArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Ask whether it takes new sessions, too: it does not while it drains or has no upstream token.
    #[arg(long)]
    pub(crate) ready: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
    /// Let warnings fail the check as well, with exit code 1.
    #[arg(long)]
    pub(crate) deny_warnings: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Run these checks and what they need; a name such as `upstream` stands for a whole group.
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Leave these checks out, and what needs them.
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub(crate) skip: Vec<String>,
    /// Hold one spoken turn as well, which costs tokens.
    #[arg(long)]
    pub(crate) turn: bool,
    /// How findings are printed.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) output: OutputFormat,
    /// The least severity that makes the exit code 1.
    #[arg(long, value_enum, default_value_t, value_name = "SEVERITY")]
    pub(crate) severity_min: MinimumSeverity,
    /// Loopback address that stands in for an upstream's: host:port:ip:port. For tests.
    #[arg(long, hide = true, value_parser = talkline_gateway::ResolveOverride::parse)]
    pub(crate) resolve: Vec<talkline_gateway::ResolveOverride>,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Say where each value came from.
    #[arg(long)]
    pub(crate) origin: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// End after the spoken turn: 0 if it was a whole one, 1 if not.
    #[arg(long)]
    pub(crate) once: bool,
    /// Answer with the caller's own words instead of a recorded sentence.
    #[arg(long)]
    pub(crate) parrot: bool,
    /// Let clients connect with TLS (wss), as openai-node needs it.
    #[arg(long)]
    pub(crate) tls_dev: bool,
    /// Save the reply as a WAV file.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
}

const TALK_EXAMPLES: &str = "\
Examples:
  TALKLINE_CLIENT_KEY=… talkline talk
      Ask the relay on this machine the bundled question.
  TALKLINE_CLIENT_KEY=… talkline talk --url wss://relay.example --model voice --wav ask.wav --save reply.wav
      Speak a recording, and keep the reply.
  AZURE_OPENAI_API_KEY=… talkline talk --url https://<resource>.openai.azure.com --model <deployment>
      Try an Azure deployment without a relay; GA, since no api-version is named.
  AZURE_OPENAI_API_KEY=… talkline talk \\
      --url 'https://<resource>.openai.azure.com/openai/realtime?api-version=<version>' --model <deployment>
      The same with the preview API.
  OPENAI_API_KEY=… talkline talk --url https://api.openai.com --model gpt-realtime --text 'Are you there?'
      Ask OpenAI in writing.

Exit codes:
  0  a whole turn       2  wrong usage, no key, or an unreadable recording
  1  a failed turn     69  nobody could be reached, or nothing came in time
                       77  the key was refused";

#[derive(Debug, Args)]
#[command(after_help = TALK_EXAMPLES)]
pub(crate) struct TalkArguments {
    /// Whom to call: ws, wss, http or https. What is missing of the path is completed: /openai/v1/realtime for an
    /// Azure host, /v1/realtime for any other.
    #[arg(long, default_value = "ws://localhost:8080", value_name = "URL")]
    pub(crate) url: String,
    /// The model, or on Azure the deployment; a relay may do without.
    #[arg(long, value_name = "NAME")]
    pub(crate) model: Option<String>,
    /// Speak this recording: WAV, 16-bit PCM, any rate and up to 8 channels. Without it and --text, the bundled
    /// question.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub(crate) wav: Option<PathBuf>,
    /// Ask in writing.
    #[arg(long, value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// The variable that holds the key. Defaults to AZURE_OPENAI_API_KEY for an Azure host, OPENAI_API_KEY for
    /// OpenAI's, TALKLINE_CLIENT_KEY for any other.
    #[arg(long, value_name = "NAME")]
    pub(crate) key_env: Option<String>,
    /// Save the reply's audio as a WAV file.
    #[arg(long, value_name = "FILE")]
    pub(crate) save: Option<PathBuf>,
    /// Instructions for the model.
    #[arg(long, value_name = "TEXT")]
    pub(crate) instructions: Option<String>,
    /// The model that transcribes the question, on Azure the name of its deployment; `none` for no transcript. The
    /// turn goes on without one.
    #[arg(long, default_value = "gpt-4o-mini-transcribe", value_name = "NAME")]
    pub(crate) transcription_model: String,
    /// Trust this certificate authority in the place of the system's, as for a relay with --tls-dev.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Let the key go to another machine in plain text.
    #[arg(long)]
    pub(crate) allow_insecure: bool,
    /// Longest time for the whole turn.
    #[arg(long, default_value_t = 180, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SimArguments {
    /// Loopback address to listen on.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    pub(crate) listen: SocketAddr,
    /// Which service is simulated.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) profile: SimProfile,
    /// Append one JSON line per request to this file. It will hold the credentials that were sent.
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,
    /// Answer with the caller's own words instead of recorded sentences.
    #[arg(long)]
    pub(crate) parrot: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// Several lines an event, for a terminal.
    Pretty,
    /// One line an event.
    #[default]
    Compact,
    /// One JSON object an event.
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// With source snippets, for people.
    #[default]
    Human,
    /// One JSON object, for programs.
    Json,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum MinimumSeverity {
    /// Hints too.
    Info,
    /// Warnings and errors.
    #[default]
    Warning,
    /// Errors only.
    Error,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum SimProfile {
    /// Azure, GA path only.
    Ga,
    /// Azure, preview path only.
    Preview,
    /// Azure with both paths, as a real resource has them.
    #[default]
    Both,
    /// api.openai.com.
    Openai,
}
