//! What an endpoint knows, and how it answers.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::clock::now_unix;
use crate::record::SeenRequest;

use super::super::answer::{Answer, Reaction};
use super::super::calendar;
use super::super::fault::{Fault, Modes};
use super::super::form::{pairs, value};
use super::super::host::Service;
use super::super::token::{Asked, Expiry, Issued, TokenSpec};
use super::endpoint::{Endpoint, Id};
use super::{IdentityMode, ManagedIdentity};

/// A token and what is said about it.
#[derive(Debug)]
pub(super) struct Granted<'a> {
    pub(super) issued: Issued,
    pub(super) resource: &'a str,
    pub(super) identity: &'a ManagedIdentity,
}

impl Granted<'_> {
    /// Adds `expires_on`, and what else is said about time in both answers.
    pub(super) fn date(&self, body: &mut Value) {
        let at = self.issued.expires_unix;
        body["expires_on"] = match self.issued.expiry {
            Expiry::EpochString => at.to_string().into(),
            Expiry::EpochNumber => at.into(),
            Expiry::EpochMillis => at.saturating_mul(1000).to_string().into(),
            Expiry::DateString => calendar::american(u64::try_from(at).unwrap_or_default()).into(),
            Expiry::Missing => Value::Null,
        };
        if let Some(secs) = self.issued.refresh_in_secs {
            body["refresh_in"] = secs.to_string().into();
        }
        if let (Expiry::Missing, Some(fields)) = (self.issued.expiry, body.as_object_mut()) {
            fields.retain(|name, _| {
                !matches!(
                    name.as_str(),
                    "expires_on" | "expires_in" | "ext_expires_in"
                )
            });
        }
    }
}

#[derive(Debug)]
pub(super) struct Rules {
    pub(super) modes: Modes<IdentityMode>,
    pub(super) token: Mutex<TokenSpec>,
    pub(super) system: Option<ManagedIdentity>,
    pub(super) users: Vec<ManagedIdentity>,
    pub(super) endpoint: Endpoint,
}

impl Service for Rules {
    fn greet(&self) -> Option<Fault> {
        self.modes.greet()
    }

    fn react(&self, request: &SeenRequest) -> Reaction {
        let refuse =
            |status, error, description| Reaction::from(self.refuse(status, error, description));
        match self.modes.take() {
            (IdentityMode::Gone { lasts }, since) if since < lasts => {
                refuse(410, "gone", "The metadata service is being updated.")
            }
            (IdentityMode::Works | IdentityMode::Gone { .. }, _) => self.proper(request).into(),
            (IdentityMode::IdentityNotFound, _) => refuse(400, "invalid_request", self.endpoint.no_identity()),
            (IdentityMode::NotFound, _) => refuse(404, "not_found", "Not found"),
            (IdentityMode::Throttled { retry_after }, _) => self
                .refuse(429, "invalid_request", "Temporarily throttled, too many requests")
                .header("retry-after", retry_after.as_secs().to_string())
                .into(),
            (IdentityMode::Unreachable, _) => Answer::html(
                403,
                "connecting to 169.254.169.254:80: dial tcp 169.254.169.254:80: connectex: A socket operation was \
                 attempted to an unreachable network.",
            )
            .into(),
            (IdentityMode::Fault(fault), _) => fault.react(|| self.proper(request)),
        }
    }
}

impl Rules {
    fn proper(&self, request: &SeenRequest) -> Answer {
        let query = pairs(&request.query);
        if let Err(objection) = self.endpoint.check(request, &query) {
            return self.refuse(objection.status, objection.error, objection.description);
        }
        let Some(resource) = value(&query, "resource").filter(|resource| !resource.is_empty())
        else {
            return self.refuse(
                400,
                "invalid_request",
                "Required query variable 'resource' is missing",
            );
        };
        let Some(identity) = self.identity(&query) else {
            return self.refuse(400, "invalid_request", self.endpoint.no_identity());
        };
        let token = self
            .token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let issued = token.issue(
            &Asked {
                audience: resource,
                object_id: Some(&identity.object_id),
                app_id: Some(&identity.client_id),
                tenant: None,
            },
            now_unix(),
        );
        Answer::json(
            200,
            &self.endpoint.grant(&Granted {
                issued,
                resource,
                identity,
            }),
        )
    }

    /// The one identity that the query names, or the system's if it names none.
    fn identity(&self, query: &[(String, String)]) -> Option<&ManagedIdentity> {
        let mut named = self
            .endpoint
            .names()
            .iter()
            .filter_map(|(name, id)| Some((*id, value(query, name)?)));
        let Some((id, wanted)) = named.next() else {
            return self.system.as_ref();
        };
        if named.next().is_some() {
            return None;
        }
        self.system.iter().chain(&self.users).find(|each| {
            let own = match id {
                Id::Client => &each.client_id,
                Id::Object => &each.object_id,
                Id::Resource => &each.resource_id,
            };
            !wanted.is_empty() && own.eq_ignore_ascii_case(wanted)
        })
    }

    fn refuse(&self, status: u16, error: &str, description: &str) -> Answer {
        Answer::json(status, &self.endpoint.error(status, error, description))
    }
}
