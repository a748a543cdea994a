//! Reaches an upstream with whichever credential is good: waits for a token, and tries once more
//! with another token or key when the upstream refuses the first.

use std::{future::Future, time::Duration};

use talkline_auth::{Presented, SealError};
use talkline_dialect::{Ask, Correlation, Diagnosis, Refusal, Upstream, UpstreamRequest};
use tracing::{info, warn};

use crate::{
    dial::{self, Answer, Dialer},
    keys::Keys,
    tokens::Tokens,
};

/// Makes one handshake with an upstream.
pub(crate) trait Dial {
    /// What an upstream that answers with 101 comes to.
    type Opened;

    /// # Cancel safety
    ///
    /// Dropping the future closes whatever was open.
    fn dial(
        &self,
        request: &UpstreamRequest,
    ) -> impl Future<Output = Result<Self::Opened, Refusal>> + Send;
}

impl Dial for Dialer {
    type Opened = (dial::Upstream, Answer);

    async fn dial(&self, request: &UpstreamRequest) -> Result<Self::Opened, Refusal> {
        self.dial(request).await
    }
}

/// Everything that opening a session with an upstream takes.
pub(crate) struct Reach<D = Dialer> {
    pub(crate) dialer: D,
    pub(crate) tokens: Tokens,
    pub(crate) keys: Keys,
    /// Longest wait for a token.
    pub(crate) token_wait_max: Duration,
}

impl<D: Dial> Reach<D> {
    /// Opens a session with the upstream. When it refuses the credential and there is another one,
    /// the handshake is made once more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes whatever was open.
    pub(crate) async fn open(
        &self,
        upstream: &Upstream,
        ask: &Ask,
        correlation: &Correlation,
    ) -> Result<D::Opened, Box<Diagnosis>> {
        let (request, refusal) = match self.attempt(upstream, ask, correlation).await? {
            Ok(opened) => return Ok(opened),
            Err(refused) => refused,
        };
        let diagnosis = Diagnosis::of(&refusal, upstream, ask.intent, request.target());
        let presented = request.target().presented();
        if !diagnosis.doubts_credential() || !self.has_another(upstream, presented).await {
            return Err(Box::new(diagnosis));
        }
        info!(
            code = diagnosis.code,
            ?presented,
            "dialling again with another credential"
        );
        let again = self.attempt(upstream, ask, correlation).await?;
        again.map_err(|(request, refusal)| {
            let target = request.target();
            Box::new(Diagnosis::of(&refusal, upstream, ask.intent, target))
        })
    }

    /// One handshake. The outer error is one of the relay's own.
    async fn attempt(
        &self,
        upstream: &Upstream,
        ask: &Ask,
        correlation: &Correlation,
    ) -> Result<Result<D::Opened, (UpstreamRequest, Refusal)>, Box<Diagnosis>> {
        if let Some(cell) = upstream.token_cell() {
            // The token that it waits for is found in the cell when the request is made.
            self.tokens
                .usable(cell, self.token_wait_max)
                .await
                .map_err(|error| Box::new(Diagnosis::identity_unavailable(&error)))?;
        }
        let request = upstream
            .request(ask, correlation)
            .map_err(|error| Box::new(unusable(&error)))?;
        match self.dialer.dial(&request).await {
            Ok(opened) => Ok(Ok(opened)),
            Err(refusal) => Ok(Err((request, refusal))),
        }
    }

    /// Whether there is another credential than the one that was presented and refused.
    async fn has_another(&self, upstream: &Upstream, presented: &Presented) -> bool {
        match presented {
            Presented::Token(token) => match upstream.token_cell() {
                Some(cell) => {
                    self.tokens
                        .replaced(cell, token.generation(), self.token_wait_max)
                        .await
                }
                None => false,
            },
            Presented::RotatingKey(key) => match upstream.key_cell() {
                Some(cell) => self.keys.replaced(cell, key).await,
                None => false,
            },
            Presented::Key(_) | Presented::Nothing => false,
        }
    }
}

fn unusable(error: &SealError) -> Diagnosis {
    if let SealError::NoToken(error) = error {
        return Diagnosis::identity_unavailable(error);
    }
    warn!(%error, "a configured upstream has no usable path");
    Diagnosis::unusable_path()
}

#[cfg(test)]
mod tests;
