//! What responses cost, and when that is too much.

use crate::ClientLimits;

/// What has been used: of one response, one session or one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Responses that were finished, whether completed, cancelled or failed.
    pub responses: u64,
    /// Tokens, input and output together, as the upstream counts them.
    pub tokens: u64,
}

impl Usage {
    /// One response with this many tokens.
    pub fn response(tokens: u64) -> Self {
        Self {
            responses: 1,
            tokens,
        }
    }

    /// Both together. Stays at the largest number rather than begin again at zero.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            responses: self.responses.saturating_add(other.responses),
            tokens: self.tokens.saturating_add(other.tokens),
        }
    }
}

/// Which budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// Responses of the session.
    #[error("the session has used its {0} responses")]
    SessionResponses(u64),
    /// Tokens of the session.
    #[error("the session has used its {0} tokens")]
    SessionTokens(u64),
    /// Responses of the day.
    #[error("this client has used its {0} responses of the day, which ends at 00:00 UTC")]
    DayResponses(u64),
    /// Tokens of the day.
    #[error("this client has used its {0} tokens of the day, which ends at 00:00 UTC")]
    DayTokens(u64),
}

impl Exhausted {
    /// Stable code, for the error event and the refusal.
    pub fn code(self) -> &'static str {
        match self {
            Self::SessionResponses(_) => "session_response_budget",
            Self::SessionTokens(_) => "session_token_budget",
            Self::DayResponses(_) => "daily_response_budget",
            Self::DayTokens(_) => "daily_token_budget",
        }
    }

    /// Whether the day's usage leaves a client with these limits nothing.
    pub fn day(limits: &ClientLimits, used: Usage) -> Option<Self> {
        reached(limits.responses_per_day, used.responses)
            .map(Self::DayResponses)
            .or_else(|| reached(limits.tokens_per_day, used.tokens).map(Self::DayTokens))
    }
}

/// The budget of one session. What a response costs is known when it is done, so the last one may
/// go beyond it.
#[derive(Clone, Copy, Debug)]
pub struct SessionBudget {
    limits: ClientLimits,
    used: Usage,
}

impl SessionBudget {
    /// A session that has used nothing.
    pub fn new(limits: &ClientLimits) -> Self {
        Self {
            limits: *limits,
            used: Usage::default(),
        }
    }

    /// Adds one response. `Some` when the session has nothing left and is to end.
    pub fn spend(&mut self, response: Usage) -> Option<Exhausted> {
        self.used = self.used.plus(response);
        let Usage { responses, tokens } = self.used;
        reached(self.limits.responses_per_session, responses)
            .map(Exhausted::SessionResponses)
            .or_else(|| {
                reached(self.limits.tokens_per_session, tokens).map(Exhausted::SessionTokens)
            })
    }

    /// What the session has used.
    pub fn used(&self) -> Usage {
        self.used
    }
}

fn reached(limit: Option<u64>, used: u64) -> Option<u64> {
    limit.filter(|limit| used >= *limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_with_the_response_that_reaches_its_budget() {
        let limits = ClientLimits {
            responses_per_session: Some(3),
            tokens_per_session: Some(1_000),
            ..ClientLimits::default()
        };
        let check = |tokens: &[u64], expected: Option<Exhausted>| {
            let mut budget = SessionBudget::new(&limits);
            let mut last = None;
            for (index, tokens) in tokens.iter().enumerate() {
                assert_eq!(last, None, "response {index} after the end");
                last = budget.spend(Usage::response(*tokens));
            }
            assert_eq!(last, expected, "{tokens:?}");
        };
        check(&[10, 10], None);
        check(&[10, 10, 10], Some(Exhausted::SessionResponses(3)));
        check(&[10, 990], Some(Exhausted::SessionTokens(1_000)));
        check(&[999], None);
        check(&[u64::MAX], Some(Exhausted::SessionTokens(1_000)));
    }

    #[test]
    fn without_limits_nothing_ends() {
        let mut budget = SessionBudget::new(&ClientLimits::default());
        assert_eq!(budget.spend(Usage::response(u64::MAX)), None);
        assert_eq!(budget.spend(Usage::response(u64::MAX)), None);
        assert_eq!(budget.used().tokens, u64::MAX);
        assert_eq!(
            Exhausted::day(&ClientLimits::default(), budget.used()),
            None
        );
    }
}
