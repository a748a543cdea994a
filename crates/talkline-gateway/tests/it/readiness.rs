//! `/readyz` while identities have tokens and while they have none.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use talkline_auth::{FetchedToken, Secret, TokenCell, TokenError, TokenFuture, TokenSource};
use talkline_config::{Config, DeveloperTools, Format, Inputs, SourceFile};
use talkline_gateway::{Gateway, Options};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// An identity service that answers when it is let.
#[derive(Debug, Default)]
struct Gated {
    answer: Notify,
    dropped: Arc<AtomicBool>,
}

impl TokenSource for Gated {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn fetch(&self) -> TokenFuture<'_> {
        Box::pin(async {
            self.answer.notified().await;
            Ok::<_, TokenError>(FetchedToken {
                secret: Secret::new("token"),
                time_to_live: Duration::from_secs(3600),
                refresh_in: None,
            })
        })
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

pub(crate) fn config() -> Config {
    let file = SourceFile {
        name: "talkline.toml".into(),
        format: Format::Toml,
        text: "server.listen = \"127.0.0.1:0\"\n\
               clients.keys = [{ name = \"test\", env = \"CLIENT_KEY\" }]\n\
               talk.realtime.provider = \"openai\"\n\
               talk.realtime.transport = \"gateway-relay\"\n\
               talk.realtime.providers.openai.azureEndpoint = \"https://r.openai.azure.com\"\n\
               talk.realtime.providers.openai.azureDeployment = \"voice\"\n\
               talk.realtime.providers.openai.apiKey = { env = \"AZURE_KEY\" }\n"
            .into(),
    };
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let variables = BTreeMap::from([
        variable("CLIENT_KEY", "client-key-of-some-length"),
        variable("AZURE_KEY", "0123456789abcdef0123456789abcdef"),
    ]);
    let resolved = talkline_config::resolve(&Inputs {
        files: &[file],
        variables: &variables,
        flags: &[],
        developer_tools: DeveloperTools::Refused,
        is_exposed: &|_| false,
        read_secret_file: &|_| Err("there are no files".into()),
    });
    resolved.expect("the test's configuration is sound").config
}

struct Served {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    gateway: JoinHandle<()>,
}

async fn serve(options: Options) -> Served {
    let gateway = Gateway::new(config(), options).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let gateway = tokio::spawn(gateway.serve(listener, async move {
        let _ = stopped.await;
    }));
    Served {
        address,
        stop,
        gateway,
    }
}

impl Served {
    /// Status line and body.
    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.lines().next().unwrap_or_default();
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        format!("{status}: {}", body.trim())
    }
}

#[tokio::test]
async fn readiness_waits_for_a_token_and_shutdown_ends_the_driver() {
    let source = Arc::new(Gated::default());
    let dropped = Arc::clone(&source.dropped);
    let served = serve(Options {
        token_sources: vec![(TokenCell::new("gated"), Arc::clone(&source) as _)],
        ..Options::default()
    })
    .await;
    let unready = "HTTP/1.1 503 Service Unavailable: no upstream token";
    assert_eq!(served.get("/readyz").await, unready);
    assert_eq!(served.get("/healthz").await, "HTTP/1.1 200 OK: ok");

    source.answer.notify_one();
    drop(source);
    let ready = async {
        while served.get("/readyz").await != "HTTP/1.1 200 OK: ok" {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), ready).await.unwrap();

    let _ = served.stop.send(());
    timeout(Duration::from_secs(10), served.gateway)
        .await
        .unwrap()
        .unwrap();
    assert!(dropped.load(Ordering::SeqCst), "the driver outlives serve");
}

#[tokio::test]
async fn without_identities_the_relay_is_ready() {
    let served = serve(Options::default()).await;
    assert_eq!(served.get("/readyz").await, "HTTP/1.1 200 OK: ok");
}
