//! The public keys of those who sign users in: fetched when they are first needed, kept for an hour,
//! and fetched again early when a token names a key that is not among them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Empty;
use serde::Deserialize;
use talkline_auth::{KeySet, KeysAt, OidcIssuer, UserCheck, UserRefusal};
use talkline_dialect::Refusal;
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tracing::warn;

use crate::{dial::Dialer, outgoing, refusal::HttpRefusal};

/// How long keys are used before they are fetched again. Entra asks for at least once a day.
const KEYS_AGE_MAX: Duration = Duration::from_secs(60 * 60);
/// Least time between two fetches, whatever tokens name: a stranger can make one up at any time.
const FETCH_PAUSE: Duration = Duration::from_secs(30);
/// From the first name to the last byte of a fetch, discovery included.
const FETCH_TIME_MAX: Duration = Duration::from_secs(5);

/// Keys of all issuers.
pub(crate) struct Jwks {
    dialer: Dialer,
    /// By the issuer's name in the configuration.
    issuers: HashMap<String, Mutex<Cached>>,
}

/// One issuer's keys. Whoever finds them missing begins to fetch them and waits while holding the
/// lock, so that all who need them wait for one fetch.
#[derive(Default)]
struct Cached {
    keys: Option<Arc<KeySet>>,
    tried: Option<Instant>,
    fetched: Option<Instant>,
    fetching: Option<Fetching>,
}

/// A fetch that goes on when whoever began it hangs up: a stranger who does nothing else would
/// otherwise keep every user out.
struct Fetching(JoinHandle<Result<KeySet, String>>);

impl Drop for Fetching {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a user is not let in.
#[derive(Debug)]
pub(crate) enum JwksError {
    /// Because of its token.
    Refused(UserRefusal),
    /// The issuer's keys are not to be had.
    NoKeys,
}

impl JwksError {
    pub(crate) fn refusal(&self) -> Option<UserRefusal> {
        match self {
            Self::Refused(refusal) => Some(*refusal),
            Self::NoKeys => None,
        }
    }

    pub(crate) fn unavailable(&self) -> HttpRefusal {
        HttpRefusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "issuer_unavailable",
            "the keys of the identity provider could not be fetched; try again later",
        )
        .with_header(header::RETRY_AFTER, "5")
    }
}

impl Jwks {
    pub(crate) fn new(issuers: &[Arc<OidcIssuer>], dialer: Dialer) -> Self {
        let empty = |issuer: &Arc<OidcIssuer>| (issuer.name().to_owned(), Mutex::default());
        Self {
            dialer,
            issuers: issuers.iter().map(empty).collect(),
        }
    }

    /// Verifies a user's token.
    ///
    /// # Cancel safety
    ///
    /// A fetch that is under way goes on, for the next caller.
    pub(crate) async fn verify(
        &self,
        check: &UserCheck,
    ) -> Result<talkline_auth::Client, JwksError> {
        let keys = self.keys(check.issuer(), None).await?;
        match check.verify(&keys, SystemTime::now()) {
            Err(UserRefusal::UnknownKey) => {
                let newer = self.keys(check.issuer(), Some(&keys)).await?;
                check.verify(&newer, SystemTime::now())
            }
            verified => verified,
        }
        .map_err(JwksError::Refused)
    }

    /// The issuer's keys: others than `insufficient`, if that can be.
    async fn keys(
        &self,
        issuer: &Arc<OidcIssuer>,
        insufficient: Option<&Arc<KeySet>>,
    ) -> Result<Arc<KeySet>, JwksError> {
        let cached = self.issuers.get(issuer.name()).ok_or(JwksError::NoKeys)?;
        let mut cached = cached.lock().await;
        let now = Instant::now();
        let fresh = cached.fetched.is_some_and(|then| now - then < KEYS_AGE_MAX);
        let enough = match (&cached.keys, insufficient) {
            (Some(keys), Some(known)) => !Arc::ptr_eq(keys, known),
            (Some(_), None) => fresh,
            (None, _) => false,
        };
        let rests = cached.tried.is_some_and(|then| now - then < FETCH_PAUSE);
        if !enough && !rests && cached.fetching.is_none() {
            cached.tried = Some(now);
            let (dialer, issuer) = (self.dialer.clone(), Arc::clone(issuer));
            let fetch = async move {
                let fetched = timeout(FETCH_TIME_MAX, fetch(&dialer, &issuer)).await;
                fetched.unwrap_or_else(|_| Err("they did not come in time".to_owned()))
            };
            cached.fetching = Some(Fetching(tokio::spawn(fetch)));
        }
        if !enough && let Some(Fetching(fetching)) = &mut cached.fetching {
            let fetched = fetching.await;
            cached.fetching = None;
            match fetched.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(keys) => {
                    cached.keys = Some(Arc::new(keys));
                    cached.fetched = cached.tried;
                }
                Err(reason) => {
                    let issuer = issuer.name();
                    warn!(issuer, reason, "an issuer's keys were not fetched");
                }
            }
        }
        // Keys that are too old are better than none: nobody can sign with them but the issuer.
        cached.keys.clone().ok_or(JwksError::NoKeys)
    }
}

async fn fetch(dialer: &Dialer, issuer: &OidcIssuer) -> Result<KeySet, String> {
    let uri = match issuer.keys_at() {
        KeysAt::Uri(uri) => uri,
        KeysAt::Discovery(uri) => {
            #[derive(Deserialize)]
            struct Discovered {
                issuer: String,
                jwks_uri: String,
            }
            let document = get(dialer, &uri).await?;
            let found: Discovered = serde_json::from_slice(&document)
                .map_err(|_| "the discovery document has no jwks_uri".to_owned())?;
            // OpenID Connect Discovery 1.0 section 4.3.
            if found.issuer != issuer.issuer {
                return Err("the discovery document is another issuer's".to_owned());
            }
            found.jwks_uri
        }
    };
    let document = get(dialer, &uri).await?;
    KeySet::parse(&document).map_err(|error| error.to_string())
}

/// The body at a URL. TLS, except on loopback.
async fn get(dialer: &Dialer, url: &str) -> Result<Bytes, String> {
    let uri: Uri = url.parse().map_err(|_| "its URL is malformed".to_owned())?;
    let host = uri.host().ok_or("its URL has no host")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") if is_loopback(bare) => false,
        _ => return Err("its URL is not https".to_owned()),
    };
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let authority = uri.authority().ok_or("its URL has no host")?.as_str();
    if authority.contains('@') {
        return Err("its URL has a user name".to_owned());
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(header::HOST, authority)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let say = |refusal: Refusal| format!("{refusal:?}");
    let addresses = dialer.resolve_name(bare, port).await.map_err(say)?;
    let tcp = dialer.connect(addresses).await.map_err(say)?;
    let answered = if tls {
        let tls = dialer.handshake_name(bare, tcp).await.map_err(say)?;
        outgoing::exchange(tls, request).await
    } else {
        outgoing::exchange(tcp, request).await
    };
    let (parts, body) = answered.map_err(say)?;
    match parts.status {
        StatusCode::OK => Ok(body),
        status => Err(format!("it is answered with {status}")),
    }
}

fn is_loopback(host: &str) -> bool {
    host.parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
