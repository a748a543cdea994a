//! Who a client is, and what it may do.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use crate::grant::{TokenId, Verified};

/// The name that clients without a key have in logs and limits.
pub const ANONYMOUS: &str = "anonymous";

/// One client as the configuration knows it: whoever holds its key, or signs in as it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Name in logs, limits and revocations. Of somebody who signed in with an OIDC token it is
    /// `<issuer's name>:<user>`, so that limits hold for each user.
    pub name: String,
    /// The models that it may ask for.
    pub routes: AllowedRoutes,
    /// What it may use.
    pub limits: ClientLimits,
    /// Name of the session policy that its sessions are under. `None` leaves it to the route.
    pub policy: Option<String>,
}

impl ClientIdentity {
    /// An identity without restrictions.
    pub fn unrestricted(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            routes: AllowedRoutes::All,
            limits: ClientLimits::default(),
            policy: None,
        }
    }
}

/// The models that a client may ask for, by the names that clients use for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedRoutes {
    /// Every one that is configured.
    #[default]
    All,
    /// These alone.
    Only(BTreeSet<String>),
}

impl AllowedRoutes {
    /// Whether a model may be asked for. `alias` is the name after routing, so that a request
    /// without a model is judged by what it would get.
    pub fn allows(&self, alias: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(aliases) => aliases.contains(alias),
        }
    }
}

/// What one client may use. `None` sets no bound of the client's own; those of the whole relay hold
/// anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Sessions at one time.
    pub sessions_max: Option<u32>,
    /// Session starts in any 60 seconds, refused upstream or not.
    pub starts_per_minute: Option<u32>,
    /// Longest session, counted from the client's 101.
    pub session_duration_max: Option<Duration>,
    /// Frames that the client may send each second.
    pub frames_per_second: Option<u64>,
    /// Payload bytes that the client may send each second.
    pub bytes_per_second: Option<u64>,
    /// Responses of one session.
    pub responses_per_session: Option<u64>,
    /// Responses of one day, which begins at 00:00 UTC.
    pub responses_per_day: Option<u64>,
    /// Tokens of one session, input and output together, as the upstream counts them.
    pub tokens_per_session: Option<u64>,
    /// Tokens of one day, which begins at 00:00 UTC.
    pub tokens_per_day: Option<u64>,
}

impl ClientLimits {
    /// The stricter of two bounds, each by each.
    #[must_use]
    pub fn within(&self, other: &Self) -> Self {
        Self {
            sessions_max: stricter(self.sessions_max, other.sessions_max),
            starts_per_minute: stricter(self.starts_per_minute, other.starts_per_minute),
            session_duration_max: stricter(self.session_duration_max, other.session_duration_max),
            frames_per_second: stricter(self.frames_per_second, other.frames_per_second),
            bytes_per_second: stricter(self.bytes_per_second, other.bytes_per_second),
            responses_per_session: stricter(
                self.responses_per_session,
                other.responses_per_session,
            ),
            responses_per_day: stricter(self.responses_per_day, other.responses_per_day),
            tokens_per_session: stricter(self.tokens_per_session, other.tokens_per_session),
            tokens_per_day: stricter(self.tokens_per_day, other.tokens_per_day),
        }
    }
}

fn stricter<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// How a client showed who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// Not at all.
    Anonymous,
    /// By its key.
    Key,
    /// By the OIDC token of a user.
    User,
    /// By an `ek_` token, which is good for one session.
    Token(TokenId),
}

/// A client that was let in. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    identity: Arc<ClientIdentity>,
    means: Means,
}

impl Client {
    /// A client of this identity.
    pub fn new(identity: Arc<ClientIdentity>, means: Means) -> Self {
        Self { identity, means }
    }

    /// Whoever holds an `ek_` token: the identity that had it minted, narrowed to what the token
    /// says.
    pub fn of_token(minter: &ClientIdentity, token: &Verified) -> Self {
        let grant = &token.grant;
        let routes = match &grant.model {
            Some(model) if minter.routes.allows(model) => {
                AllowedRoutes::Only(BTreeSet::from([model.clone()]))
            }
            // The identity has lost the route since: nothing is left.
            Some(_) => AllowedRoutes::Only(BTreeSet::new()),
            None => minter.routes.clone(),
        };
        let identity = ClientIdentity {
            name: minter.name.clone(),
            routes,
            limits: minter.limits.within(&grant.limits.as_client_limits()),
            policy: minter.policy.clone().or_else(|| grant.policy.clone()),
        };
        Self::new(Arc::new(identity), Means::Token(token.id.clone()))
    }

    /// The name in logs.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// What it may do.
    pub fn identity(&self) -> &Arc<ClientIdentity> {
        &self.identity
    }

    /// How it showed who it is.
    pub fn means(&self) -> &Means {
        &self.means
    }

    /// The id of the `ek_` token that it came with.
    pub fn token_id(&self) -> Option<&TokenId> {
        match &self.means {
            Means::Token(id) => Some(id),
            Means::Anonymous | Means::Key | Means::User => None,
        }
    }

    /// Whether `ek_` tokens may be minted for it. One that came with such a token may not: its one
    /// session would become as many as it likes.
    pub fn may_mint(&self) -> bool {
        self.token_id().is_none()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}, {:?})", self.name(), self.means)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stricter_bound_wins() {
        let client = ClientLimits {
            sessions_max: Some(4),
            tokens_per_day: Some(100),
            ..ClientLimits::default()
        };
        let token = ClientLimits {
            sessions_max: Some(9),
            session_duration_max: Some(Duration::from_secs(60)),
            tokens_per_day: Some(7),
            ..ClientLimits::default()
        };
        let both = client.within(&token);
        assert_eq!(both, token.within(&client));
        assert_eq!(both.sessions_max, Some(4));
        assert_eq!(both.tokens_per_day, Some(7));
        assert_eq!(both.session_duration_max, Some(Duration::from_secs(60)));
        assert_eq!(both.starts_per_minute, None);
    }

    #[test]
    fn routes_are_allowed_by_name() {
        let only = AllowedRoutes::Only(BTreeSet::from(["voice".to_owned()]));
        assert!(only.allows("voice") && !only.allows("other") && !only.allows(""));
        assert!(AllowedRoutes::All.allows("other"));
    }
}
