//! What a client asked for, from its path, query and headers.

use percent_encoding::percent_decode_str;

/// The subprotocol that is echoed when a client offers it.
///
/// openai-dotnet and every browser SDK offer it and fail without an answer.
pub const REALTIME_SUBPROTOCOL: &str = "realtime";

const BETA_SUBPROTOCOL: &str = "openai-beta.realtime-v1";

/// The longest model alias that is looked up, in bytes.
const ALIAS_BYTES_MAX: usize = 128;

/// Which event vocabulary a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientDialect {
    /// The generally available API.
    Ga,
    /// The beta API: asked for by `OpenAI-Beta: realtime=v1` or its subprotocol.
    Beta,
}

/// What the session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Speech in, speech out.
    Conversation,
    /// Speech in, text out; the model stands in the session, not in the URL.
    Transcription,
}

/// What a client asked for. Holds nothing that could name a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The model or deployment alias, if one was given.
    pub alias: Option<String>,
    /// What the session is for.
    pub intent: Intent,
    /// The vocabulary the client speaks.
    pub dialect: ClientDialect,
    /// Whether `realtime` was among the offered subprotocols.
    pub offers_realtime: bool,
}

/// Why a request is not a Realtime request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No Realtime endpoint has this path.
    #[error(
        "there is no Realtime endpoint at this path; use /v1/realtime, /openai/v1/realtime, /openai/realtime or /realtime"
    )]
    UnknownPath,
    /// A parameter stands twice, or `model` and `deployment` differ.
    #[error("`{0}` is given more than once")]
    Ambiguous(&'static str),
    /// The alias has characters that no model or deployment name has.
    #[error(
        "`{0}` is not a model or deployment name: letters, digits and . _ : / - only, at most 128"
    )]
    BadAlias(&'static str),
    /// `intent` has an unknown value.
    #[error("`intent` is not `transcription`")]
    BadIntent,
}

impl AskError {
    /// Stable code of the error.
    pub fn code(&self) -> &'static str {
        match self {
            AskError::UnknownPath => "unknown_path",
            AskError::Ambiguous(_) => "ambiguous_parameter",
            AskError::BadAlias(_) => "invalid_model",
            AskError::BadIntent => "invalid_intent",
        }
    }
}

impl Ask {
    /// Whether `path` is one of the paths that Realtime SDKs use.
    ///
    /// The SDKs' base URLs end in nothing, `/v1`, `/openai/v1` or `/openai`; each appends
    /// `/realtime`.
    pub fn is_realtime_path(path: &str) -> bool {
        matches!(
            path,
            "/realtime" | "/v1/realtime" | "/openai/v1/realtime" | "/openai/realtime"
        )
    }

    /// Reads a request. `headers` are name and value pairs, names in any case.
    ///
    /// The path does not tell which vocabulary the client speaks: openai-python's GA client in
    /// Azure mode sends GA events to the preview URL. Only the beta header or subprotocol does.
    ///
    /// # Errors
    ///
    /// [`AskError`], each of which is the client's to mend.
    pub fn parse<'a>(
        path: &str,
        query: Option<&str>,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, AskError> {
        if !Self::is_realtime_path(path) {
            return Err(AskError::UnknownPath);
        }
        let query = query.unwrap_or_default();
        let model = single(query, "model")?;
        let deployment = single(query, "deployment")?;
        let alias = match (model, deployment) {
            (Some(model), Some(deployment)) if model != deployment => {
                return Err(AskError::Ambiguous("model"));
            }
            (Some(model), _) => Some(check_alias("model", model)?),
            (None, Some(deployment)) => Some(check_alias("deployment", deployment)?),
            (None, None) => None,
        };
        let intent = match single(query, "intent")?.as_deref() {
            None | Some("conversation") => Intent::Conversation,
            Some("transcription") => Intent::Transcription,
            Some(_) => return Err(AskError::BadIntent),
        };
        let mut dialect = ClientDialect::Ga;
        let mut offers_realtime = false;
        for (name, value) in headers {
            let value = std::str::from_utf8(value).unwrap_or_default();
            let mut items = value.split(',').map(str::trim);
            if name.eq_ignore_ascii_case("openai-beta") {
                if items.any(|item| item.eq_ignore_ascii_case("realtime=v1")) {
                    dialect = ClientDialect::Beta;
                }
            } else if name.eq_ignore_ascii_case("sec-websocket-protocol") {
                for offer in items {
                    offers_realtime |= offer == REALTIME_SUBPROTOCOL;
                    if offer == BETA_SUBPROTOCOL {
                        dialect = ClientDialect::Beta;
                    }
                }
            }
        }
        Ok(Self {
            alias,
            intent,
            dialect,
            offers_realtime,
        })
    }
}

fn single(query: &str, name: &'static str) -> Result<Option<String>, AskError> {
    let mut found = None;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if percent_decode_str(key).decode_utf8_lossy() != name {
            continue;
        }
        let value = value.replace('+', " ");
        let value = percent_decode_str(&value).decode_utf8_lossy().into_owned();
        if found.replace(value).is_some() {
            return Err(AskError::Ambiguous(name));
        }
    }
    Ok(found)
}

fn check_alias(name: &'static str, alias: String) -> Result<String, AskError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    let well_formed = (1..=ALIAS_BYTES_MAX).contains(&alias.len())
        && alias.bytes().all(legal)
        && !alias.contains("..")
        && !alias.contains("//");
    if well_formed {
        Ok(alias)
    } else {
        Err(AskError::BadAlias(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, query: &str, headers: &[(&str, &str)], expected: &str) {
        let fields = headers
            .iter()
            .map(|(name, value)| (*name, value.as_bytes()));
        let got = match Ask::parse(path, Some(query), fields) {
            Ok(ask) => format!(
                "{} {:?} {:?}{}",
                ask.alias.as_deref().unwrap_or("-"),
                ask.intent,
                ask.dialect,
                if ask.offers_realtime { " realtime" } else { "" }
            ),
            Err(error) => error.code().to_owned(),
        };
        assert_eq!(got, expected, "{path}?{query} {headers:?}");
    }

    #[test]
    fn paths_and_aliases() {
        for path in [
            "/realtime",
            "/v1/realtime",
            "/openai/v1/realtime",
            "/openai/realtime",
        ] {
            check(
                path,
                "model=gpt-realtime",
                &[],
                "gpt-realtime Conversation Ga",
            );
        }
        check(
            "/openai/realtime",
            "api-version=2025-04-01-preview&deployment=voice",
            &[],
            "voice Conversation Ga",
        );
        check(
            "/v1/realtime",
            "intent=transcription",
            &[],
            "- Transcription Ga",
        );
        check(
            "/v1/realtime",
            "model=org%2Fvoice-1.5",
            &[],
            "org/voice-1.5 Conversation Ga",
        );
        check(
            "/v1/realtime",
            "model=a&deployment=a",
            &[],
            "a Conversation Ga",
        );
        check("/v1/realtime/", "model=a", &[], "unknown_path");
        check("/v1/models", "", &[], "unknown_path");
        check(
            "/v1/realtime",
            "model=a&model=b",
            &[],
            "ambiguous_parameter",
        );
        check(
            "/v1/realtime",
            "model=a&m%6Fdel=b",
            &[],
            "ambiguous_parameter",
        );
        check(
            "/v1/realtime",
            "model=a&deployment=b",
            &[],
            "ambiguous_parameter",
        );
        check("/v1/realtime", "intent=x", &[], "invalid_intent");
        for alias in [
            "",
            "..",
            "a/../b",
            "a//b",
            "a@b",
            "a%20b",
            "a%00b",
            "https:%2F%2Fevil.example",
            "%ff",
        ] {
            check(
                "/v1/realtime",
                &format!("model={alias}"),
                &[],
                "invalid_model",
            );
        }
        check(
            "/v1/realtime",
            &format!("model={}", "a".repeat(129)),
            &[],
            "invalid_model",
        );
    }

    #[test]
    fn only_the_header_or_the_subprotocol_means_beta() {
        let protocol = "sec-websocket-protocol";
        check("/openai/realtime", "deployment=v", &[], "v Conversation Ga");
        check(
            "/v1/realtime",
            "model=v",
            &[("OpenAI-Beta", "realtime=v1")],
            "v Conversation Beta",
        );
        check(
            "/v1/realtime",
            "model=v",
            &[("openai-beta", "assistants=v2, realtime=v1")],
            "v Conversation Beta",
        );
        check(
            "/v1/realtime",
            "model=v",
            &[("openai-beta", "assistants=v2")],
            "v Conversation Ga",
        );
        check(
            "/v1/realtime",
            "model=v",
            &[(protocol, "realtime,openai-insecure-api-key.k")],
            "v Conversation Ga realtime",
        );
        check(
            "/v1/realtime",
            "model=v",
            &[(protocol, "realtime, openai-beta.realtime-v1")],
            "v Conversation Beta realtime",
        );
        check(
            "/v1/realtime",
            "model=v",
            &[(protocol, "realtimex")],
            "v Conversation Ga",
        );
    }
}
