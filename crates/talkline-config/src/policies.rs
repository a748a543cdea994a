//! Session policies by name.

use std::{collections::BTreeMap, sync::Arc};

use talkline_session::policy::Policy;

/// Session policies by the names that clients' identities have for them.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    by_name: BTreeMap<String, Arc<Policy>>,
    transparent: Arc<Policy>,
}

/// No policy has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no session policy of this name")]
pub struct UnknownPolicy;

impl Policies {
    pub(crate) fn new(by_name: BTreeMap<String, Arc<Policy>>) -> Self {
        Self {
            by_name,
            transparent: Arc::default(),
        }
    }

    /// The policy of this name; a session without a name has a transparent one.
    ///
    /// # Errors
    ///
    /// [`UnknownPolicy`], which a resolved configuration gives for none of its own names. A session must
    /// not go on without the policy that it should have.
    pub fn resolve(&self, name: Option<&str>) -> Result<&Arc<Policy>, UnknownPolicy> {
        match name {
            None => Ok(&self.transparent),
            Some(name) => self.by_name.get(name).ok_or(UnknownPolicy),
        }
    }

    /// Every policy with its name, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Policy>)> {
        self.by_name
            .iter()
            .map(|(name, policy)| (name.as_str(), policy))
    }
}
