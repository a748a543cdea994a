//! A process that runs out of something serves those that it has.

use std::time::Duration;

use tokio::{net::TcpStream, time::timeout};

use crate::{
    kit::{
        CLIENT_KEY, PATIENCE, RawSession, Relay, azure, run_arguments, simulator, talkline_after,
    },
    reload::{is_alive, open, path},
};

fn authorized() -> String {
    format!("api-key: {CLIENT_KEY}\r\n")
}

async fn limited(configuration: &str, script: &str) -> Relay {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("talkline.toml"), configuration).unwrap();
    let mut command = talkline_after(home.path(), script);
    command.args(run_arguments());
    Relay::spawn(home, command).await
}

#[tokio::test]
async fn descriptors_are_kept_for_the_sessions_that_there_are() {
    let sim = simulator().await;
    let configuration = azure(&sim.base_url()) + "limits.drainGrace = \"100ms\"\n";
    let relay = limited(&configuration, "ulimit -n 100").await;
    let authority = relay.authority();
    let mut sessions = Vec::new();
    let refused = loop {
        let session = RawSession::open(authority, &path(), &authorized()).await;
        if !session.head.starts_with("HTTP/1.1 101 ") {
            break session.head;
        }
        sessions.push(session);
        assert!(sessions.len() < 50, "more sessions than descriptors");
    };
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    assert!(sessions.len() > 20, "only {} sessions", sessions.len());
    for session in &mut sessions {
        assert_eq!(session.event().await.json()["type"], "session.created");
        is_alive(session).await;
    }
    // Room again, for as many as left.
    let mut leaving = sessions.pop().unwrap();
    leaving.send(8, &1000_u16.to_be_bytes()).await;
    assert_eq!(leaving.event().await.close().0, 1000);
    drop(leaving);
    let come_back = async {
        loop {
            let session = RawSession::open(authority, &path(), &authorized()).await;
            if session.head.starts_with("HTTP/1.1 101 ") {
                break;
            }
        }
    };
    timeout(PATIENCE, come_back).await.unwrap();
    let log = relay.log().await;
    assert!(log.contains("\"budget\":\"descriptors\""), "{log}");
}

#[tokio::test]
async fn memory_is_kept_for_the_sessions_that_there_are() {
    let sim = simulator().await;
    let configuration =
        azure(&sim.base_url()) + "limits.maxMemory = \"1MiB\"\nadmin.listen = \"127.0.0.1:0\"\n";
    let relay = Relay::start(&configuration).await;
    let session = RawSession::open(relay.authority(), &path(), &authorized()).await;
    assert!(
        session.head.starts_with("HTTP/1.1 503 "),
        "{}",
        session.head
    );
    assert!(
        session.head.contains("retry-after: 1\r\n"),
        "{}",
        session.head
    );
    let page = relay.operators_get("/metrics").await;
    let counted = "\ntalkline_full_total{budget=\"memory\"} 1\n";
    assert!(page.contains(counted), "{page}");
    let log = relay.log().await;
    assert!(log.contains("\"budget\":\"memory\""), "{log}");
}

#[tokio::test]
async fn running_out_of_descriptors_neither_ends_the_relay_nor_makes_it_spin() {
    let sim = simulator().await;
    let mut relay = limited(&azure(&sim.base_url()), "ulimit -n 40").await;
    let mut session = open(relay.authority(), &authorized()).await;
    // Connections that say nothing take every descriptor that is left, and wait for more.
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(TcpStream::connect(&relay.listener).await.unwrap());
    }
    let before = cpu_ticks(&relay);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = cpu_ticks(&relay) - before;
    // A tick is 10 ms: a loop that spins would use a hundred.
    assert!(spent < 30, "{spent} ticks in a second of doing nothing");
    is_alive(&mut session).await;
    drop(idle);
    let _another = timeout(PATIENCE, open(relay.authority(), &authorized()))
        .await
        .unwrap();
    is_alive(&mut session).await;
    relay.signal("-TERM");
    session.send(8, &1000_u16.to_be_bytes()).await;
    drop(session);
    drop(_another);
    assert_eq!(relay.exit_status().await.code(), Some(0));
    let log = relay.log_of_the_dead().await;
    assert!(log.contains("accepting a connection failed"), "{log}");
    assert!(
        log.matches("accepting a connection failed").count() < 10,
        "{log}"
    );
}

/// User and system time of the relay (proc_pid_stat(5), fields 14 and 15).
fn cpu_ticks(relay: &Relay) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", relay.pid())).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
