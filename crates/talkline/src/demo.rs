//! `demo`: a simulator, the relay, and one spoken turn through both.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::ClientConfig;
use talkline_config::{DeveloperTools, Format, Inputs, SourceFile, Style};
use talkline_gateway::{Gateway, Options};
use talkline_sim::{
    Reply, Simulator,
    caller::{Call, Secret, TurnOptions, spoken_turn},
    clips,
};
use tokio::{net::TcpListener, sync::oneshot};

use crate::{
    cli::DemoArguments,
    dev_tls,
    exit::Exit,
    output,
    run::{runtime, shutdown_signal},
    transcript::{self, Extra, seconds},
};

const DEPLOYMENT: &str = "gpt-realtime";
const CLIENT_KEY: &str = "TALKLINE_CLIENT_KEY";
const AZURE_KEY: &str = "AZURE_OPENAI_API_KEY";

/// Holds the turn; then, without `--once`, keeps both running until a signal.
pub(crate) fn demo(arguments: &DemoArguments) -> Result<(), Exit> {
    runtime()?.block_on(async {
        let keys = Keys {
            client: new_key("demo")?,
            azure: new_key("azure")?,
        };
        let mut simulator = Simulator::builder().api_key(keys.azure.clone());
        if arguments.parrot {
            simulator = simulator.reply(Reply::Parrot);
        }
        let simulator = simulator
            .start()
            .await
            .map_err(|error| Exit::Unavailable(format!("the simulator cannot start: {error}")))?;
        let tls = Tls::prepare(arguments)?;
        let gateway = gateway(&simulator.base_url(), &keys, &tls)?;
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| Exit::Unavailable(format!("cannot listen on loopback: {error}")))?;
        let port = listener
            .local_addr()
            .context("the listener has no address")?
            .port();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(gateway.serve(listener, async {
            let _ = stopped.await;
        }));
        let shutdown = shutdown_signal()?;

        if !arguments.once {
            // First, so that nobody waits for the turn to hear their own.
            output::line(&format!("Talk in the browser: {}\n", tls.page(port)))?;
        }
        let turn = hold_turn(&tls.url(port), &keys.client, tls.client.clone(), arguments).await;
        if turn.is_ok() && !arguments.once {
            output::line(&pointers(&tls, port, &simulator.base_url(), &keys.client))?;
            shutdown.await;
        }
        drop(stop);
        serving.await.context("the relay ended badly")?;
        simulator.shutdown().await;
        turn
    })
}

struct Keys {
    client: String,
    azure: String,
}

/// How clients connect to the demo's relay.
struct Tls {
    server: Option<Arc<rustls::ServerConfig>>,
    client: Option<Arc<ClientConfig>>,
    trust_lines: Option<String>,
}

impl Tls {
    fn prepare(arguments: &DemoArguments) -> Result<Self, Exit> {
        if !arguments.tls_dev {
            return Ok(Self {
                server: None,
                client: None,
                trust_lines: None,
            });
        }
        let certificate = dev_tls::load_or_make(&dev_tls::directory()?)?;
        let client = trusting(&certificate.ca)?;
        Ok(Self {
            trust_lines: Some(certificate.trust_lines()),
            server: Some(certificate.server),
            client: Some(client),
        })
    }

    fn url(&self, port: u16) -> String {
        let scheme = if self.server.is_some() { "wss" } else { "ws" };
        format!("{scheme}://localhost:{port}/v1/realtime?model={DEPLOYMENT}")
    }

    /// The Talk page. Browsers give a page of localhost the microphone even without TLS.
    fn page(&self, port: u16) -> String {
        let scheme = if self.server.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://localhost:{port}/talk/")
    }
}

/// TLS towards a server whose certificate this authority signed.
pub(crate) fn trusting(ca: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    let mut roots = rustls::RootCertStore::empty();
    roots.add(
        CertificateDer::from_pem_file(ca)
            .with_context(|| format!("the CA {} cannot be read", ca.display()))?,
    )?;
    let config = ClientConfig::builder_with_provider(talkline_gateway::tls::crypto_provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The relay, configured by the same words that an operator writes.
fn gateway(endpoint: &str, keys: &Keys, tls: &Tls) -> Result<Gateway, Exit> {
    let file = SourceFile {
        name: "demo.toml".into(),
        format: Format::Toml,
        text: format!(
            "server.listen = \"127.0.0.1:0\"\n\
             ui.enabled = true\n\
             clients.allowAnonymous = true\n\
             clients.keys = [{{ name = \"demo\", env = \"{CLIENT_KEY}\" }}]\n\
             talk.realtime.provider = \"openai\"\n\
             talk.realtime.transport = \"gateway-relay\"\n\
             talk.realtime.providers.openai.azureEndpoint = \"{endpoint}\"\n\
             talk.realtime.providers.openai.azureDeployment = \"{DEPLOYMENT}\"\n\
             talk.realtime.providers.openai.apiKey = {{ env = \"{AZURE_KEY}\" }}\n"
        ),
    };
    let variables = BTreeMap::from([
        (CLIENT_KEY.to_owned(), keys.client.clone()),
        (AZURE_KEY.to_owned(), keys.azure.clone()),
    ]);
    let resolved = talkline_config::resolve(&Inputs {
        files: &[file],
        variables: &variables,
        flags: &[],
        developer_tools: DeveloperTools::default(),
        is_exposed: &|_| false,
        read_secret_file: &|_| Err("the demo reads no files".into()),
    })
    .map_err(|report| Exit::Configuration(report.render(Style::Plain)))?;
    let options = Options {
        tls: tls.server.clone(),
        ..Options::default()
    };
    Gateway::new(resolved.config, options).map_err(|error| Exit::CouldNotRun(error.to_string()))
}

async fn hold_turn(
    url: &str,
    key: &str,
    tls: Option<Arc<ClientConfig>>,
    arguments: &DemoArguments,
) -> Result<(), Exit> {
    let question = clips::QUESTION
        .wav()
        .context("the bundled question is damaged")?;
    output::line(&format!(
        "Speaking {} of recorded speech into {url} …",
        seconds(question.duration())
    ))?;
    let call = Call {
        bearer: Some(Secret::new(key)),
        tls,
        ..Call::new(url)
    };
    let report = spoken_turn(&call, &question, &TurnOptions::default())
        .await
        .map_err(|error| Exit::Findings(format!("the turn failed: {error}")))?;
    output::line(&transcript::text(&report, &Extra::default()))?;
    if let Some(path) = &arguments.save {
        std::fs::write(path, report.reply().to_bytes())
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    match report.missing().as_slice() {
        [] => Ok(()),
        missing => Err(Exit::Findings(format!(
            "the turn was not whole: no {}",
            missing.join(", no ")
        ))),
    }
}

/// How to point a real SDK at what is running.
fn pointers(tls: &Tls, port: u16, simulator: &str, key: &str) -> String {
    let (http, ws) = if tls.server.is_some() {
        ("https", "wss")
    } else {
        ("http", "ws")
    };
    let mut text = format!(
        "The relay and the simulator keep running. Point a client at the relay:\n\
         \n\
         \x20 WebSocket URL   {ws}://localhost:{port}/v1/realtime?model={DEPLOYMENT}\n\
         \x20 OpenAI SDKs     base_url {http}://localhost:{port}/v1\n\
         \x20 Azure SDKs      endpoint {http}://localhost:{port}\n\
         \x20 client key      {key}\n\
         \x20 simulator       {simulator} (has another key, which only the relay knows)\n"
    );
    match &tls.trust_lines {
        Some(lines) => {
            let _ = write!(text, "\n{lines}\n");
        }
        None => text.push_str(
            "\nopenai-node and Azure modes insist on TLS: start with --tls-dev for them.\n",
        ),
    }
    text.push_str("\nStop with Ctrl-C.");
    text
}

fn new_key(prefix: &str) -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("{prefix}-{hex}"))
}
