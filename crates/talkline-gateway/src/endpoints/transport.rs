//! Which way a browser's audio goes, and why.
//!
//! OpenAI lets a browser talk WebRTC to it with a short-lived secret. Azure's credential never goes
//! into such a flow, and a custom endpoint is only known to speak WebSocket: with these the relay is
//! the way, whatever a page asks for.

use http::StatusCode;
use talkline_config::Transport;
use talkline_dialect::UpstreamKind;

use crate::refusal::HttpRefusal;

/// What a browser is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Open the relay's WebSocket.
    Relay(Why),
    /// Talk WebRTC to OpenAI, with a secret of OpenAI's.
    Webrtc(Why),
}

/// Why this transport: a stable code and a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The page asked for it and it is possible.
    Asked,
    /// The operator chose it.
    Configured,
    /// Azure's credential stays with the relay.
    Azure,
    /// A custom endpoint is reached by WebSocket.
    Custom,
}

impl Why {
    pub(super) fn code(self) -> &'static str {
        match self {
            Why::Asked => "as_asked",
            Why::Configured => "as_configured",
            Why::Azure => "azure_through_relay",
            Why::Custom => "custom_through_relay",
        }
    }

    pub(super) fn message(self) -> &'static str {
        match self {
            Why::Asked => "The transport that was asked for.",
            Why::Configured => "The transport that this relay is configured for.",
            Why::Azure => {
                "The upstream is Azure, whose credential stays on the server: audio goes through the relay."
            }
            Why::Custom => {
                "The upstream is a custom endpoint, which is reached by WebSocket: audio goes through the relay."
            }
        }
    }
}

impl Choice {
    pub(super) fn transport(self) -> Transport {
        match self {
            Choice::Relay(_) => Transport::GatewayRelay,
            Choice::Webrtc(_) => Transport::Webrtc,
        }
    }

    pub(super) fn why(self) -> Why {
        match self {
            Choice::Relay(why) | Choice::Webrtc(why) => why,
        }
    }
}

/// The transports that a browser may choose from, the preferred one first.
pub(super) fn offered(configured: Transport, kind: UpstreamKind) -> &'static [Transport] {
    match (kind, configured) {
        (UpstreamKind::OpenAi, Transport::Webrtc) => &[Transport::Webrtc, Transport::GatewayRelay],
        _ => &[Transport::GatewayRelay],
    }
}

/// Reads a transport as a request names it.
///
/// # Errors
///
/// 400 for a word that is no transport.
pub(super) fn parse(word: &str) -> Result<Transport, HttpRefusal> {
    let known = [
        Transport::GatewayRelay,
        Transport::Webrtc,
        Transport::ProviderWebsocket,
        Transport::ManagedRoom,
    ];
    let found = known.into_iter().find(|known| known.as_str() == word);
    found.ok_or_else(|| {
        HttpRefusal::new(
            StatusCode::BAD_REQUEST,
            "unknown_transport",
            "there is no such transport; ask for gateway-relay or webrtc, or for none",
        )
        .with_param("transport")
    })
}

/// Decides for one request.
///
/// # Errors
///
/// 400, naming the alternatives, when what is configured or asked for cannot be.
pub(super) fn choose(
    configured: Transport,
    kind: UpstreamKind,
    asked: Option<Transport>,
) -> Result<Choice, HttpRefusal> {
    use Transport::{GatewayRelay, ManagedRoom, ProviderWebsocket, Webrtc};
    let relay_only = match kind {
        UpstreamKind::Azure => Some(Why::Azure),
        UpstreamKind::Custom => Some(Why::Custom),
        UpstreamKind::OpenAi => None,
    };
    match (asked, relay_only) {
        (Some(GatewayRelay), _) => Ok(Choice::Relay(Why::Asked)),
        // A room is another product's: a page that can only join one is helped by nothing here.
        (Some(ManagedRoom), _) => Err(unsupported(configured, kind)),
        (_, Some(why)) => Ok(Choice::Relay(why)),
        (Some(Webrtc), None) if configured == Webrtc => Ok(Choice::Webrtc(Why::Asked)),
        (_, None) => match configured {
            GatewayRelay => Ok(Choice::Relay(Why::Configured)),
            Webrtc => Ok(Choice::Webrtc(Why::Configured)),
            ProviderWebsocket | ManagedRoom => Err(unsupported(configured, kind)),
        },
    }
}

fn unsupported(configured: Transport, kind: UpstreamKind) -> HttpRefusal {
    let alternatives: Vec<_> = offered(configured, kind)
        .iter()
        .map(|transport| transport.as_str())
        .collect();
    HttpRefusal::new(
        StatusCode::BAD_REQUEST,
        "transport_unsupported",
        format!(
            "this transport does not lead to the configured upstream; ask for {}",
            alternatives.join(" or ")
        ),
    )
    .with_param("transport")
}

#[cfg(test)]
mod tests {
    use Transport::{GatewayRelay, ManagedRoom, ProviderWebsocket, Webrtc};
    use UpstreamKind::{Azure, Custom, OpenAi};

    use super::*;

    fn check(
        kind: UpstreamKind,
        configured: Transport,
        asked: impl Into<Option<Transport>>,
        expected: &str,
    ) {
        let asked = asked.into();
        let got = match choose(configured, kind, asked) {
            Ok(choice) => format!("{} {}", choice.transport().as_str(), choice.why().code()),
            Err(refusal) => refusal.code().to_owned(),
        };
        assert_eq!(got, expected, "{kind:?} {configured:?} {asked:?}");
    }

    #[test]
    fn azure_goes_through_the_relay() {
        for configured in [GatewayRelay, Webrtc] {
            check(Azure, configured, None, "gateway-relay azure_through_relay");
            check(
                Azure,
                configured,
                Webrtc,
                "gateway-relay azure_through_relay",
            );
            check(
                Azure,
                configured,
                ProviderWebsocket,
                "gateway-relay azure_through_relay",
            );
            check(Azure, configured, GatewayRelay, "gateway-relay as_asked");
            check(Azure, configured, ManagedRoom, "transport_unsupported");
            assert_eq!(offered(configured, Azure), [GatewayRelay]);
        }
        check(Custom, Webrtc, Webrtc, "gateway-relay custom_through_relay");
    }

    #[test]
    fn openai_goes_as_configured() {
        check(OpenAi, GatewayRelay, None, "gateway-relay as_configured");
        check(OpenAi, GatewayRelay, Webrtc, "gateway-relay as_configured");
        check(OpenAi, GatewayRelay, GatewayRelay, "gateway-relay as_asked");
        check(OpenAi, Webrtc, None, "webrtc as_configured");
        check(OpenAi, Webrtc, Webrtc, "webrtc as_asked");
        check(OpenAi, Webrtc, ProviderWebsocket, "webrtc as_configured");
        check(OpenAi, Webrtc, GatewayRelay, "gateway-relay as_asked");
        check(OpenAi, Webrtc, ManagedRoom, "transport_unsupported");
        check(OpenAi, ProviderWebsocket, None, "transport_unsupported");
        check(OpenAi, ManagedRoom, None, "transport_unsupported");
        check(OpenAi, ManagedRoom, GatewayRelay, "gateway-relay as_asked");
    }

    #[test]
    fn a_refusal_names_what_is_possible() {
        let refusal = choose(Webrtc, OpenAi, Some(ManagedRoom)).unwrap_err();
        assert!(
            refusal
                .message()
                .ends_with("ask for webrtc or gateway-relay")
        );
        assert_eq!(parse("webrtc").unwrap(), Webrtc);
        assert_eq!(parse("telepathy").unwrap_err().code(), "unknown_transport");
    }
}
