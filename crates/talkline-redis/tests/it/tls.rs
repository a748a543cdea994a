//! TLS to the server: a real one behind a terminator.

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use talkline_auth::Secret;
use talkline_redis::{OnOutage, RedisStore, Server};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{redis, settings};

#[tokio::test]
async fn a_server_is_reached_by_tls_and_its_certificate_is_checked() {
    let Some(redis) = redis().await else { return };
    let plain = redis.url().rsplit_once('@').unwrap().1.to_owned();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let terminator = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(terminator));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, plain) = (acceptor.clone(), plain.clone());
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(stream).await else {
                    return;
                };
                let mut server = TcpStream::connect(&plain).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });

    let trusting = |roots: RootCertStore| {
        ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    };
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    for (roots, expected) in [(roots, true), (RootCertStore::empty(), false)] {
        let url = Secret::new(format!("rediss://:s3cret@localhost:{port}"));
        let server = Server::parse(&url, Some(Arc::new(trusting(roots)))).unwrap();
        let store = RedisStore::new(server, settings(OnOutage::Closed));
        assert_eq!(store.ping().await.is_ok(), expected);
    }
}
