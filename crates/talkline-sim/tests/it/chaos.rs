//! The bad network, between peers that know what was sent.

use std::time::Duration;

use talkline_sim::chaos::{Chaos, Direction, Ending, Faults, Network};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long something that must not arrive is waited for.
const SILENCE: Duration = Duration::from_millis(200);

/// Two connected peers with the network between them.
struct Peers {
    network: Network,
    client: TcpStream,
    server: TcpStream,
}

impl Peers {
    async fn with(chaos: Chaos) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let network = chaos.between(listener.local_addr().unwrap()).await.unwrap();
        let client = TcpStream::connect(network.addr()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        Self {
            network,
            client,
            server,
        }
    }
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 31 % 251) as u8).collect()
}

/// Sends both ways at once and returns what each side got.
async fn exchange(peers: &mut Peers, sent: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut from_client, mut to_client) = peers.client.split();
    let (mut from_server, mut to_server) = peers.server.split();
    let (mut at_client, mut at_server) = (vec![0; sent.len()], vec![0; sent.len()]);
    let done = async {
        tokio::try_join!(
            to_client.write_all(sent),
            to_server.write_all(sent),
            from_client.read_exact(&mut at_client),
            from_server.read_exact(&mut at_server),
        )
    };
    timeout(PATIENCE, done).await.unwrap().unwrap();
    (at_client, at_server)
}

#[tokio::test]
async fn nothing_is_lost_changed_or_reordered() {
    let faults = Faults {
        delay: Duration::from_millis(2),
        jitter: Duration::from_millis(5),
        chop_bytes_max: Some(300),
        ..Faults::default()
    };
    for seed in 0..4 {
        let chaos = Chaos {
            seed,
            to_server: faults,
            to_client: faults,
        };
        let mut peers = Peers::with(chaos).await;
        let sent = bytes(100_000);
        let (at_client, at_server) = exchange(&mut peers, &sent).await;
        assert!(at_client == sent && at_server == sent, "seed {seed}");
    }
}

#[tokio::test]
async fn a_delay_is_at_least_as_long_as_asked_for() {
    let delay = Duration::from_millis(80);
    let mut peers = Peers::with(Chaos {
        to_server: Faults {
            delay,
            ..Faults::default()
        },
        ..Chaos::default()
    })
    .await;
    let start = Instant::now();
    peers.client.write_all(b"a").await.unwrap();
    peers.server.read_u8().await.unwrap();
    assert!(start.elapsed() >= delay);
}

#[tokio::test]
async fn a_narrow_path_takes_its_time() {
    let mut peers = Peers::with(Chaos {
        to_client: Faults {
            bytes_per_second: Some(100_000),
            ..Faults::default()
        },
        ..Chaos::default()
    })
    .await;
    let start = Instant::now();
    let sent = bytes(20_000);
    let (at_client, _) = exchange(&mut peers, &sent).await;
    assert_eq!(at_client, sent);
    // The pause after the last piece is nobody's.
    assert!(
        start.elapsed() >= Duration::from_millis(30),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_black_hole_keeps_one_direction_until_it_heals() {
    let mut peers = Peers::with(Chaos::default()).await;
    exchange(&mut peers, b"open").await;
    peers.network.black_hole(Direction::ToServer);
    peers.client.write_all(b"kept").await.unwrap();
    let mut kept = [0; 4];
    assert!(
        timeout(SILENCE, peers.server.read_exact(&mut kept))
            .await
            .is_err()
    );
    peers.server.write_all(b"b").await.unwrap();
    assert_eq!(peers.client.read_u8().await.unwrap(), b'b');
    peers.network.heal();
    timeout(PATIENCE, peers.server.read_exact(&mut kept))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&kept, b"kept");
}

#[tokio::test]
async fn a_half_close_ends_one_direction_only() {
    let mut peers = Peers::with(Chaos::default()).await;
    exchange(&mut peers, b"open").await;
    peers.network.half_close(Direction::ToServer);
    let mut rest = Vec::new();
    timeout(PATIENCE, peers.server.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(rest.is_empty());
    peers.server.write_all(b"b").await.unwrap();
    assert_eq!(peers.client.read_u8().await.unwrap(), b'b');
}

#[tokio::test]
async fn a_reset_reaches_both_peers_and_spares_later_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let network = Chaos::default().between(server).await.unwrap();
    let mut first = TcpStream::connect(network.addr()).await.unwrap();
    let (mut first_server, _) = listener.accept().await.unwrap();
    first.write_all(b"a").await.unwrap();
    first_server.read_u8().await.unwrap();
    network.reset();
    for stream in [&mut first, &mut first_server] {
        let error = timeout(PATIENCE, stream.read_u8())
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    let mut second = TcpStream::connect(network.addr()).await.unwrap();
    let (mut second_server, _) = listener.accept().await.unwrap();
    second.write_all(b"b").await.unwrap();
    assert_eq!(second_server.read_u8().await.unwrap(), b'b');
    assert_eq!(network.connections(), 1);
}

#[tokio::test]
async fn a_connection_breaks_off_at_the_very_byte() {
    for ending in [Ending::Fin, Ending::Reset] {
        for after in [0, 1, 1000, 20_000] {
            let mut peers = Peers::with(Chaos {
                to_client: Faults {
                    break_after: Some((after, ending)),
                    ..Faults::default()
                },
                ..Chaos::default()
            })
            .await;
            peers.server.write_all(&bytes(30_000)).await.unwrap();
            let mut got = Vec::new();
            let ended = timeout(PATIENCE, peers.client.read_to_end(&mut got))
                .await
                .unwrap();
            match ending {
                Ending::Fin => {
                    ended.unwrap();
                    assert_eq!(got, bytes(after as usize));
                }
                // A reset takes with it what was not read before.
                Ending::Reset => {
                    ended.unwrap_err();
                    assert!(got.len() <= after as usize && bytes(30_000).starts_with(&got));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_connection_that_ends_in_silence_is_gone_when_it_heals() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let mut peers = Peers::with(Chaos::default()).await;
        exchange(&mut peers, b"open").await;
        peers.network.black_hole(direction);
        peers.client.write_all(b"kept").await.unwrap();
        peers.server.write_all(b"kept").await.unwrap();
        drop((peers.client, peers.server));
        peers.network.heal();
        let gone = async {
            while peers.network.connections() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, gone)
            .await
            .expect("the connection is gone");
    }
}
