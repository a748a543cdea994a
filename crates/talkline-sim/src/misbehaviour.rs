//! Ways a session goes wrong that a client must survive, each a named one.

use crate::refusal::Refusal;

/// What goes wrong in a session: a breach of the protocol, or a failure of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Misbehaviour {
    /// Takes the request and never answers it.
    StallsBefore101,
    /// Answers 101 and drops the connection without a close frame.
    ClosesAfter101,
    /// Drops the connection in the middle of the frame of `session.created`.
    ClosesMidFrame,
    /// Answers 101 with a `Sec-WebSocket-Accept` of another key.
    WrongAccept,
    /// Answers 101 with `permessage-deflate`, whatever was offered.
    UnrequestedExtension,
    /// Answers no ping.
    NoPong,
    /// Sends `session.created`, then never reads again, and keeps the connection.
    StopsReading,
    /// Cuts every message in small fragments with a ping between the first two (RFC 6455, section 5.4).
    FragmentedReplies,
    /// Sends `session.created` in the same segment as the 101, which is legal and often mishandled.
    SessionCreatedWith101,
    /// Sends `session.created`, then `session_expired` and close 1001, as after 60 minutes.
    SessionExpired,
    /// Drops the connection without a close frame in the middle of a reply.
    DropsMidReply,
    /// Fails every response for want of capacity.
    InferenceRateLimitExceeded,
    /// Ends every response in its middle, as incomplete for its content.
    ContentFilter,
    /// Answers everything with one minute of speech, which no buffer on the way may cut: see
    /// [`crate::clips::count`].
    LongReply,
}

impl Misbehaviour {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::StallsBefore101,
        Self::ClosesAfter101,
        Self::ClosesMidFrame,
        Self::WrongAccept,
        Self::UnrequestedExtension,
        Self::NoPong,
        Self::StopsReading,
        Self::FragmentedReplies,
        Self::SessionCreatedWith101,
        Self::SessionExpired,
        Self::DropsMidReply,
        Self::InferenceRateLimitExceeded,
        Self::ContentFilter,
        Self::LongReply,
    ];

    /// Whether a client has to be told that something went wrong.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::LongReply)
    }

    /// The stable name, which is also the deployment name that selects it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::StallsBefore101 => "stalls_before_101",
            Self::ClosesAfter101 => "closes_after_101",
            Self::ClosesMidFrame => "closes_mid_frame",
            Self::WrongAccept => "wrong_accept",
            Self::UnrequestedExtension => "unrequested_extension",
            Self::NoPong => "no_pong",
            Self::StopsReading => "stops_reading",
            Self::FragmentedReplies => "fragmented_replies",
            Self::SessionCreatedWith101 => "session_created_with_101",
            Self::SessionExpired => "session_expired",
            Self::DropsMidReply => "drops_mid_reply",
            Self::InferenceRateLimitExceeded => "inference_rate_limit_exceeded",
            Self::ContentFilter => "content_filter",
            Self::LongReply => "long_reply",
        }
    }

    /// The misbehaviour of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.name() == name)
    }
}

/// What awaits the caller of a deployment, in place of a proper session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scenario {
    /// An HTTP answer in place of the 101.
    Refuse(Refusal),
    /// A session in which something goes wrong.
    Misbehave(Misbehaviour),
}

impl Scenario {
    /// The scenario that a deployment of that name stands for, if any.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Refusal::by_name(name)
            .map(Self::Refuse)
            .or_else(|| Misbehaviour::by_name(name).map(Self::Misbehave))
    }
}

impl From<Refusal> for Scenario {
    fn from(refusal: Refusal) -> Self {
        Self::Refuse(refusal)
    }
}

impl From<Misbehaviour> for Scenario {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::Misbehave(misbehaviour)
    }
}
