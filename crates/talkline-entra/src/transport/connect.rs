//! Name resolution, and the first of several addresses that answers.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    net::lookup_host,
    task::JoinSet,
    time::{Instant, error::Elapsed, sleep, timeout_at},
};

/// The pause before the next address is tried beside the ones before it (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<_> = lookup_host((host, port)).await?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ));
    }
    Ok(addresses)
}

/// Connects to the addresses in order, without waiting long for one that does not answer; the
/// first success wins and the other attempts are dropped, as they all are at the deadline.
pub(super) async fn first<T, F>(
    addresses: &[SocketAddr],
    deadline: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<io::Result<T>, Elapsed>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    timeout_at(deadline, race(addresses, connect)).await
}

async fn race<T, F>(addresses: &[SocketAddr], connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut waiting = addresses.iter();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(connect(*address));
        }
        let outcome = tokio::select! {
            outcome = attempts.join_next() => outcome,
            () = sleep(STAGGER), if waiting.len() > 0 => continue,
        };
        match outcome {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => last = error,
            Some(Err(error)) => last = io::Error::other(error),
            None => return Err(last),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use super::*;

    /// Which address wins, and after how many milliseconds. Port 1 refuses, port 2 never answers,
    /// any other accepts at once.
    async fn check(ports: &[u16], winner: Option<u16>, milliseconds: u64) {
        let addresses: Vec<_> = ports
            .iter()
            .map(|port| SocketAddr::from(([127, 0, 0, 1], *port)))
            .collect();
        let start = Instant::now();
        let deadline = start + Duration::from_secs(2);
        let won = first(&addresses, deadline, |address| async move {
            match address.port() {
                1 => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                2 => future::pending().await,
                port => Ok(port),
            }
        })
        .await;
        assert_eq!(won.ok().and_then(Result::ok), winner, "{ports:?}");
        assert_eq!(
            start.elapsed(),
            Duration::from_millis(milliseconds),
            "{ports:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_is_dead_does_not_hold_up_the_next() {
        check(&[80], Some(80), 0).await;
        check(&[1, 80], Some(80), 0).await;
        check(&[2, 80], Some(80), 250).await;
        check(&[2, 1, 2, 80], Some(80), 500).await;
        check(&[1, 1], None, 0).await;
        check(&[2], None, 2000).await;
        check(&[2, 2, 1], None, 2000).await;
        check(&[], None, 0).await;
    }
}
