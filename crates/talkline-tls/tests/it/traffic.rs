//! Bytes arrive as they were sent, however they are cut on the way.

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};

use crate::far::{ByHand, Bytewise, Server, configs, connected, in_memory, narrow, noise};

/// Writes noise in pieces of all sizes, some of them vectored, flushing now and then.
async fn write_mixed<W: AsyncWrite + Unpin>(io: &mut W, writes: usize, size_max: usize, seed: u64) {
    for i in 0..writes {
        let bytes = noise(i * 7919 % size_max + 1, seed + i as u64);
        if i % 3 == 0 {
            let (head, tail) = bytes.split_at(bytes.len().min(4));
            let pieces = [
                std::io::IoSlice::new(head),
                std::io::IoSlice::new(&[]),
                std::io::IoSlice::new(tail),
            ];
            let written = io.write_vectored(&pieces).await.unwrap();
            assert!(written > 0);
            io.write_all(&bytes[written..]).await.unwrap();
        } else {
            io.write_all(&bytes).await.unwrap();
        }
        if i % 5 == 0 {
            io.flush().await.unwrap();
        }
    }
    io.flush().await.unwrap();
}

/// Reads what [`write_mixed`] wrote, into buffers of all sizes.
async fn read_mixed<R: AsyncRead + Unpin>(io: &mut R, writes: usize, size_max: usize, seed: u64) {
    let mut buffer = vec![0; 70_000];
    let (mut read, mut used, mut room) = (0, 0, 1);
    for i in 0..writes {
        let expected = noise(i * 7919 % size_max + 1, seed + i as u64);
        let mut checked = 0;
        while checked < expected.len() {
            if used == read {
                room = room * 31 % 69_997 + 1;
                read = io.read(&mut buffer[..room]).await.unwrap();
                used = 0;
                assert!(read > 0, "ended at write {i}");
            }
            let length = (expected.len() - checked).min(read - used);
            assert_eq!(
                buffer[used..used + length],
                expected[checked..checked + length],
                "write {i}"
            );
            checked += length;
            used += length;
        }
    }
    assert_eq!(used, read, "nothing is left");
}

async fn both_ways<N, F>(
    (client, server): (talkline_tls::TlsStream<N>, Server<F>),
    writes: usize,
    size_max: usize,
) where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let (mut server_read, mut server_write) = tokio::io::split(server);
    tokio::join!(
        write_mixed(&mut client_write, writes, size_max, 1),
        write_mixed(&mut server_write, writes, size_max, 2),
        read_mixed(&mut server_read, writes, size_max, 1),
        read_mixed(&mut client_read, writes, size_max, 2),
    );
    let client = client_read.unsplit(client_write);
    assert_eq!(client.buffered_bytes(), 0);
}

#[tokio::test]
async fn ten_thousand_writes_each_way() {
    both_ways(in_memory(&TLS13, 20_000).await, 10_000, 3_000).await;
}

#[tokio::test]
async fn ten_thousand_writes_each_way_under_tls_1_2() {
    both_ways(in_memory(&TLS12, 20_000).await, 10_000, 3_000).await;
}

#[tokio::test]
async fn large_writes_through_a_narrow_pipe() {
    for version in [&TLS13, &TLS12] {
        both_ways(in_memory(version, 97).await, 30, 200_000).await;
    }
}

#[tokio::test]
async fn one_byte_at_a_time() {
    for version in [&TLS13, &TLS12] {
        let (near, far) = duplex(64);
        let streams = connected(narrow(configs(version)), Bytewise::new(near), far).await;
        both_ways(streams, 40, 2_000).await;
    }
}

#[tokio::test]
async fn over_loopback() {
    for version in [&TLS13, &TLS12] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        let streams = connected(configs(version), near.unwrap(), far.unwrap().0).await;
        both_ways(streams, 300, 100_000).await;
    }
}

#[tokio::test]
async fn small_fragments_take_more_room_and_nothing_else() {
    for version in [&TLS13, &TLS12] {
        // The server's handshake messages then come in pieces as well.
        let mut configs = narrow(configs(version));
        configs.client.max_fragment_size = Some(32);
        configs.server.max_fragment_size = Some(50);
        let (near, far) = duplex(4096);
        both_ways(connected(configs, near, far).await, 100, 60_000).await;
    }
}

#[tokio::test]
async fn key_updates_are_followed_and_answered() {
    let (mut client, mut far) = ByHand::connected(configs(&TLS13)).await;
    for i in 0..200u32 {
        far.server.refresh_traffic_keys().unwrap();
        far.say(&i.to_be_bytes());
        assert_eq!(client.read_u32().await.unwrap(), i);
        // The answer goes before the next data: the server could not read it otherwise.
        client.write_u32(i).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(far.receive(), i.to_be_bytes());
    }
    assert_eq!(client.buffered_bytes(), 0);
}

#[tokio::test]
async fn key_updates_without_data_end_in_an_error() {
    let (mut client, mut far) = ByHand::connected(configs(&TLS13)).await;
    for _ in 0..100 {
        far.server.refresh_traffic_keys().unwrap();
    }
    far.say(b"x");
    let error = client.read_u8().await.unwrap_err();
    assert!(
        error.to_string().contains("TooManyKeyUpdateRequests"),
        "{error}"
    );
}

#[tokio::test]
async fn many_tickets_are_no_data() {
    let mut configs = configs(&TLS13);
    configs.server.send_tls13_tickets = 500;
    let (mut client, mut far) = ByHand::connected(configs).await;
    let tickets = far.wire.with(|wire| wire.to_read.len());
    assert!(tickets > 32 << 10, "more than one read: {tickets}");
    far.say(b"data");
    let mut read = [0; 4];
    client.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"data");
    assert_eq!(client.buffered_bytes(), 0);
}
