//! One token, through one credential of the SDK.

use std::{sync::Arc, time::Duration};

use azure_core::{
    cloud::CloudConfiguration,
    credentials::TokenCredential,
    http::{ClientOptions, RetryOptions, Transport},
    time::OffsetDateTime,
};
use talkline_auth::{FetchedToken, Secret, TokenError};
use tokio::time::timeout;
use tracing::debug;

use crate::{
    Network, Scope,
    answer::Shape,
    diagnosis::Subject,
    redact::Redactor,
    transport::{Destination, Exchange, Failure, with_sources},
};

/// What the fetches of one source have in common.
#[derive(Debug)]
pub(crate) struct Fetcher {
    pub(crate) network: Network,
    pub(crate) destination: Arc<Destination>,
    pub(crate) shape: Shape,
    pub(crate) scope: Scope,
    pub(crate) subject: Subject,
}

impl Fetcher {
    /// Builds a credential and asks it once.
    ///
    /// A credential lives for one fetch: the SDK's cache would hand out the old token until five
    /// minutes before it expires, whatever the caller wants, and makes callers wait for each other.
    pub(crate) async fn fetch<C>(
        &self,
        subject: &Subject,
        redactor: &Redactor,
        credential: C,
    ) -> Result<FetchedToken, TokenError>
    where
        C: FnOnce(ClientOptions) -> azure_core::Result<Arc<dyn TokenCredential>>,
    {
        let exchange = Exchange::new(
            self.network.clone(),
            Arc::clone(&self.destination),
            self.shape,
        );
        let sdk = |error: azure_core::Error| {
            let what = redactor.quote(&with_sources(&error));
            subject.refused("identity_refused", &what, true)
        };
        let credential = credential(options(&exchange)).map_err(sdk)?;
        let limit = self.network.limits.fetch;
        let scopes = [self.scope.as_str()];
        let answer = timeout(limit, credential.get_token(&scopes, None)).await;
        let result = match (answer, exchange.take_failure()) {
            (Ok(Ok(token)), _) => self.token(
                token.token.secret(),
                token.expires_on,
                exchange.refresh_in(),
            ),
            (_, Some(failure)) => Err(subject.failure(&failure, redactor)),
            (Ok(Err(error)), None) => Err(sdk(error)),
            (Err(_), None) => Err(subject.failure(&Failure::Timeout(limit), redactor)),
        };
        match &result {
            Ok(token) => debug!(
                source = subject.source_name,
                seconds = token.time_to_live.as_secs(),
                "token fetched"
            ),
            Err(error) => debug!(
                source = subject.source_name,
                code = error.code,
                permanent = error.permanent,
                "no token"
            ),
        }
        result
    }

    fn token(
        &self,
        token: &str,
        expires_on: OffsetDateTime,
        refresh_in: Option<Duration>,
    ) -> Result<FetchedToken, TokenError> {
        let left = expires_on - OffsetDateTime::now_utc();
        match Duration::try_from(left) {
            Ok(time_to_live) if !time_to_live.is_zero() => Ok(FetchedToken {
                secret: Secret::new(token),
                time_to_live,
                // The metadata service counts from when it got the token, not from this answer:
                // a renewal after the end would be none.
                refresh_in: refresh_in.filter(|refresh_in| *refresh_in < time_to_live),
            }),
            _ => Err(self.subject.expired()),
        }
    }
}

/// The only way in which a client of the SDK is configured: with an explicit transport (without
/// one the SDK panics) and no retries of its own.
fn options(exchange: &Arc<Exchange>) -> ClientOptions {
    ClientOptions {
        transport: Some(Transport::new(Arc::clone(exchange) as _)),
        retry: RetryOptions::none(),
        // Overwritten by the kinds that talk to Entra; the others ignore it.
        cloud: Some(Arc::new(CloudConfiguration::AzurePublic)),
        ..ClientOptions::default()
    }
}
