//! What a peer did wrong, as data.

/// The first rule that a peer broke. Nothing after it can be trusted, so a scanner that has returned
/// one returns the same one for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A reserved bit is set though no extension was negotiated (RFC 6455 section 5.2).
    #[error("reserved bit set")]
    ReservedBits,
    /// An opcode that RFC 6455 section 5.2 reserves.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A frame from a client that is not masked (RFC 6455 section 5.1).
    #[error("client frame not masked")]
    Unmasked,
    /// A frame from a server that is masked (RFC 6455 section 5.1).
    #[error("server frame masked")]
    Masked,
    /// A ping, pong or close without FIN (RFC 6455 section 5.5).
    #[error("control frame fragmented")]
    ControlFragmented,
    /// A ping, pong or close of more than 125 bytes (RFC 6455 section 5.5).
    #[error("control frame longer than 125 bytes")]
    ControlTooLong,
    /// A payload length not written in the fewest bytes (RFC 6455 section 5.2).
    #[error("payload length not minimal")]
    LengthNotMinimal,
    /// A 64-bit payload length with the top bit set (RFC 6455 section 5.2).
    #[error("payload length has its top bit set")]
    LengthTopBit,
    /// A continuation frame outside a fragmented message (RFC 6455 section 5.4).
    #[error("continuation without a message")]
    ContinuationOrphan,
    /// A new data message inside a fragmented one (RFC 6455 section 5.4).
    #[error("message inside a fragmented message")]
    MessageInterleaved,
    /// A close frame whose payload is one byte (RFC 6455 section 5.5.1).
    #[error("close payload of one byte")]
    CloseTruncated,
    /// A close code that must not be on the wire (RFC 6455 section 7.4).
    #[error("illegal close code")]
    CloseCode,
    /// A close reason that is not UTF-8 (RFC 6455 section 5.5.1).
    #[error("close reason not UTF-8")]
    CloseReasonUtf8,
    /// A text message that is not UTF-8 (RFC 6455 section 8.1).
    #[error("text not UTF-8")]
    TextUtf8,
    /// A frame longer than [`Limits::frame_bytes_max`](crate::Limits::frame_bytes_max).
    #[error("frame too long")]
    FrameTooLong,
    /// A message longer than [`Limits::message_bytes_max`](crate::Limits::message_bytes_max).
    #[error("message too long")]
    MessageTooLong,
    /// A message of more frames than [`Limits::fragments_max`](crate::Limits::fragments_max).
    #[error("too many fragments")]
    TooManyFragments,
}

impl Violation {
    /// The close code that tells the offender (RFC 6455 section 7.4.1): 1002, 1007, 1008 or 1009.
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::TextUtf8 | Self::CloseReasonUtf8 => 1007,
            Self::TooManyFragments => 1008,
            Self::FrameTooLong | Self::MessageTooLong => 1009,
            Self::ReservedBits
            | Self::ReservedOpcode
            | Self::Unmasked
            | Self::Masked
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::LengthNotMinimal
            | Self::LengthTopBit
            | Self::ContinuationOrphan
            | Self::MessageInterleaved
            | Self::CloseTruncated
            | Self::CloseCode => 1002,
        }
    }

    /// A stable identifier for logs, metrics and close reasons: ASCII, `snake_case`.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved_bits",
            Self::ReservedOpcode => "reserved_opcode",
            Self::Unmasked => "client_frame_unmasked",
            Self::Masked => "server_frame_masked",
            Self::ControlFragmented => "control_fragmented",
            Self::ControlTooLong => "control_too_long",
            Self::LengthNotMinimal => "length_not_minimal",
            Self::LengthTopBit => "length_top_bit",
            Self::ContinuationOrphan => "continuation_orphan",
            Self::MessageInterleaved => "message_interleaved",
            Self::CloseTruncated => "close_truncated",
            Self::CloseCode => "close_code_illegal",
            Self::CloseReasonUtf8 => "close_reason_not_utf8",
            Self::TextUtf8 => "text_not_utf8",
            Self::FrameTooLong => "frame_too_long",
            Self::MessageTooLong => "message_too_long",
            Self::TooManyFragments => "too_many_fragments",
        }
    }
}
