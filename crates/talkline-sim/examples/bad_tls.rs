//! Upstreams whose certificates must not be accepted, for seeing what a client makes of them.
//!
//! Argument: an existing folder, which gets `ca.pem`: the certificate to trust. Prints one line of
//! JSON with the address of each upstream and the names of everything that the simulator can do
//! wrong, and serves until its standard input ends.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use serde_json::json;
use talkline_sim::{Misbehaviour, Refusal, Running, Simulator};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Which time a certificate is good for.
enum Validity {
    Current,
    Over,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: bad_tls <folder>")?;
    let (trusted, unknown) = (
        authority("Trusted by the test")?,
        authority("Known to nobody")?,
    );
    std::fs::write(Path::new(&folder).join("ca.pem"), trusted.pem())?;
    let good = "good.openai.azure.com";
    let upstreams = [
        ("tls_good", &trusted, good, Validity::Current),
        (
            "tls_expired",
            &trusted,
            "expired.openai.azure.com",
            Validity::Over,
        ),
        ("tls_wrong_name", &trusted, good, Validity::Current),
        (
            "tls_unknown_ca",
            &unknown,
            "unknown-ca.openai.azure.com",
            Validity::Current,
        ),
    ];
    let mut running: Vec<Running> = Vec::new();
    let mut addresses = serde_json::Map::new();
    for (name, issuer, host, validity) in upstreams {
        let simulator = serve(issuer, host, validity).await?;
        addresses.insert(name.to_owned(), json!(simulator.addr().to_string()));
        running.push(simulator);
    }
    let refusals = Refusal::all();
    let failures = Misbehaviour::ALL
        .into_iter()
        .filter(|each| each.is_failure())
        .map(Misbehaviour::name);
    let names = json!({
        "upstreams": addresses,
        "refusals": refusals.iter().map(Refusal::name).collect::<Vec<_>>(),
        "misbehaviours": failures.collect::<Vec<_>>(),
    });
    let mut out = tokio::io::stdout();
    out.write_all(format!("{names}\n").as_bytes()).await?;
    out.flush().await?;
    // Whoever started this has ended, or wants it to.
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    for simulator in running {
        simulator.shutdown().await;
    }
    Ok(())
}

fn authority(name: &str) -> Result<Issuer, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate()?)
}

async fn serve(issuer: &Issuer, host: &str, validity: Validity) -> Result<Running, Box<dyn Error>> {
    let mut params = CertificateParams::new([host.to_owned()])?;
    params.use_authority_key_identifier_extension = true;
    if let Validity::Over = validity {
        params.not_before = date_time_ymd(2024, 1, 1);
        params.not_after = date_time_ymd(2024, 12, 31);
    }
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            key.serialize_der().try_into()?,
        )?;
    let mut builder = Simulator::builder().tls(Arc::new(tls));
    if let Ok(key) = std::env::var("TALKLINE_SIM_API_KEY") {
        builder = builder.api_key(key);
    }
    Ok(builder.start().await?)
}
