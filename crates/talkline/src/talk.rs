//! `talk`: one turn with any Realtime URL, from the terminal.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use rustls::ClientConfig;
use serde_json::{Value, json};
use talkline_gateway::{
    callee::{Address, Callee, Diagnosis, IncidentKind, Permanence, Phase},
    tls,
};
use talkline_sim::{
    caller::{
        self, Call, CallError, Progress, Question, Secret, TurnOptions, TurnReport, hold_turn,
    },
    clips,
    wav::Wav,
};

use crate::{
    cli::TalkArguments,
    demo,
    exit::Exit,
    output,
    run::runtime,
    transcript::{self, Extra},
};

mod status;

use status::Status;

/// The rate of `audio/pcm`.
const RATE_HZ: u32 = 24_000;
/// A recording of an hour at 48 kHz, stereo.
const RECORDING_BYTES_MAX: u64 = 700 << 20;
/// Longest wait for one step, such as the answer to the upgrade.
const STEP_MAX: Duration = Duration::from_secs(15);
const NO_TRANSCRIPTION: &str = "none";

/// Exits 0 after a whole turn, 1 after a failed one, 69 when nobody could be reached, 77 when the
/// key was refused, 2 when it could not be tried.
pub(crate) fn talk(arguments: &TalkArguments) -> Result<(), Exit> {
    let callee = callee(arguments)?;
    let question = question(arguments)?;
    let call = call(&callee, arguments)?;
    let options = options(arguments);
    let status = Arc::new(Mutex::new(Status::new(&callee.url())));
    let turn = runtime()?.block_on(async {
        let shown = status::show(Arc::clone(&status));
        let mut progress = |progress: Progress<'_>| {
            if let Ok(mut status) = status.lock() {
                status.advance(progress);
            }
        };
        let turn = hold_turn(&call, &question, &options, &mut progress).await;
        shown.clear().await;
        turn
    });
    match turn {
        Ok(report) => finish(arguments, &callee, &report),
        Err(error) => {
            let failure = Failure::of(&error, &callee);
            if arguments.json {
                output::line(&failure.to_json(&callee).to_string())?;
            }
            Err(failure.into_exit())
        }
    }
}

fn callee(arguments: &TalkArguments) -> Result<Callee, Exit> {
    let could_not = |error: &dyn std::fmt::Display, hint: &str| {
        Exit::CouldNotRun(format!("{error}\nhint: {hint}"))
    };
    let address = Address::parse(&arguments.url, arguments.model.as_deref()).map_err(|error| {
        could_not(
            &error,
            "--url takes ws://, wss://, http:// and https:// URLs; --model names the model or deployment",
        )
    })?;
    let usual = address.key_variable();
    let named = arguments.key_env.as_deref();
    if let Some(named) = named
        && is_of_another(named, usual)
    {
        return Err(could_not(
            &format!("the key in {named} is not for this host, whose key is {usual}"),
            "a key is sent only to the service that it belongs to; change --url or --key-env",
        ));
    }
    let variable = named.unwrap_or(usual);
    let key = std::env::var(variable).ok().filter(|key| !key.is_empty());
    if key.is_none() && (named.is_some() || address.needs_key()) {
        return Err(could_not(
            &format!("the variable {variable} holds no key"),
            "set it to the key, or name another variable by --key-env",
        ));
    }
    let key = key.map(|key| talkline_auth::Secret::new(key.trim()));
    address
        .with_key(key, arguments.allow_insecure)
        .map_err(|error| {
            could_not(
                &error,
                "use wss://, or --allow-insecure for a relay in a network that you trust",
            )
        })
}

/// Whether a variable is by its name another service's than the address's.
fn is_of_another(named: &str, usual: &str) -> bool {
    let azure = |name: &str| name.starts_with("AZURE_");
    let openai = |name: &str| name.starts_with("OPENAI_");
    (azure(named) && openai(usual)) || (openai(named) && azure(usual))
}

fn question(arguments: &TalkArguments) -> Result<Question, Exit> {
    if let Some(text) = &arguments.text {
        return Ok(Question::Written(text.clone()));
    }
    let wav = match &arguments.wav {
        None => clips::QUESTION
            .wav()
            .context("the bundled question is damaged")?,
        Some(path) => recording(path)?,
    };
    Ok(Question::Spoken(wav.resampled(RATE_HZ)))
}

fn recording(path: &Path) -> Result<Wav, Exit> {
    let unusable = |what: &dyn std::fmt::Display| {
        Exit::CouldNotRun(format!(
            "{} cannot be spoken: {what}\nhint: --wav takes 16-bit PCM, any rate, up to {} channels; \
             `sox FILE -b 16 -e signed-integer out.wav` or `ffmpeg -i FILE -c:a pcm_s16le out.wav` makes it",
            path.display(),
            talkline_sim::wav::CHANNELS_MAX,
        ))
    };
    let size = std::fs::metadata(path).map_err(|error| unusable(&error))?;
    if size.len() > RECORDING_BYTES_MAX {
        return Err(unusable(&"it is larger than an hour of speech"));
    }
    let bytes = std::fs::read(path).map_err(|error| unusable(&error))?;
    let wav = Wav::parse_mixing(&bytes).map_err(|error| unusable(&error))?;
    if wav.samples().is_empty() {
        return Err(unusable(&"there is no sound in it"));
    }
    Ok(wav)
}

fn call(callee: &Callee, arguments: &TalkArguments) -> Result<Call, Exit> {
    let url = callee.url();
    let tls = match &arguments.ca {
        _ if !url.starts_with("wss:") => None,
        Some(ca) => Some(demo::trusting(ca)?),
        None => Some(tls::client_config().context("TLS cannot be set up")?),
    };
    let headers = callee.headers();
    Ok(Call {
        headers: headers
            .map(|(name, value)| (name.to_owned(), Secret::new(value.expose())))
            .collect(),
        tls: tls.map(|config: Arc<ClientConfig>| config),
        ..Call::new(url)
    })
}

fn options(arguments: &TalkArguments) -> TurnOptions {
    let transcription = Some(arguments.transcription_model.clone());
    TurnOptions {
        transcription_model: transcription.filter(|model| model != NO_TRANSCRIPTION),
        transcription_may_fail: true,
        follow_dialect: true,
        instructions: arguments.instructions.clone(),
        step_max: STEP_MAX,
        turn_max: Duration::from_secs(arguments.timeout),
        ..TurnOptions::default()
    }
}

fn finish(arguments: &TalkArguments, callee: &Callee, report: &TurnReport) -> Result<(), Exit> {
    if let Some(path) = &arguments.save {
        std::fs::write(path, report.reply().to_bytes()).map_err(|error| {
            Exit::CouldNotRun(format!("{} cannot be written: {error}", path.display()))
        })?;
    }
    let untranscribed = report.transcription_failure.as_ref().map(|error| {
        let incident = callee.explain_incident(IncidentKind::TranscriptionFailed, error);
        (incident, error)
    });
    // A question that nobody was asked to transcribe, or nobody could, leaves the turn whole.
    let missing: Vec<&str> = report
        .missing()
        .into_iter()
        .filter(|part| *part != "transcript of the question")
        .collect();
    if arguments.json {
        let not_transcribed = untranscribed
            .as_ref()
            .map(|(incident, error)| json!({"code": incident.code, "message": error["message"]}));
        let mut object = transcript::json(report);
        object["ok"] = json!(missing.is_empty());
        object["url"] = json!(callee.url());
        object["missing"] = json!(missing);
        object["not_transcribed"] = not_transcribed.unwrap_or_default();
        object["saved"] = json!(arguments.save);
        output::line(&object.to_string())?;
    } else {
        let unheard = untranscribed.map(|(incident, _)| {
            format!(
                "(not transcribed [{}]: {})",
                incident.code, incident.next_step
            )
        });
        let extra = Extra {
            unheard: unheard.as_deref().unwrap_or("(not transcribed)"),
            saved: arguments.save.as_deref(),
            session: true,
        };
        output::line(&transcript::text(report, &extra))?;
    }
    match missing.as_slice() {
        [] => Ok(()),
        missing => Err(Exit::Findings(format!(
            "the turn was not whole: no {}",
            missing.join(", no ")
        ))),
    }
}

/// Why there was no turn, and what to do about it.
struct Failure {
    code: String,
    summary: String,
    next_step: String,
    /// Where it was said: an HTTP status, if it was one.
    status: Option<u16>,
    request_id: Option<String>,
    end: End,
}

/// Which exit code it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Failed,
    Unavailable,
    KeyRefused,
    NotTried,
}

impl Failure {
    fn of(error: &CallError, callee: &Callee) -> Self {
        match error {
            CallError::Unusable(what) => Self::plain("unusable_call", what, "", End::NotTried),
            CallError::Connection { doing, source } => {
                let phase = match *doing {
                    caller::RESOLVING => Phase::Dns,
                    caller::CONNECTING => Phase::Tcp,
                    caller::SECURING => Phase::Tls,
                    _ => Phase::Upgrade,
                };
                Self::diagnosed(&callee.explain_connection(phase, source))
            }
            CallError::Refused {
                status,
                headers,
                body,
            } => Self::refused(*status, headers, body, callee),
            CallError::Timeout { waiting_for } if *waiting_for == caller::UPGRADING => {
                Self::diagnosed(&callee.explain_timeout(Phase::Upgrade))
            }
            CallError::Timeout { waiting_for } => Self::plain(
                "timeout",
                &format!("nothing came while waiting for {waiting_for}"),
                "Try again; --timeout allows more time for the whole turn. If it stays so, `talkline doctor --turn` \
                 goes the way step by step.",
                End::Unavailable,
            ),
            CallError::Event { event, .. } => Self::event(event, callee),
            CallError::Closed { code, reason } => Self::closed(*code, reason),
            other => Self::plain(
                "protocol",
                &callee.scrub(&other.to_string()),
                "Something between here and the service does not speak WebSocket as RFC 6455 has it.",
                End::Failed,
            ),
        }
    }

    fn plain(code: &str, summary: &str, next_step: &str, end: End) -> Self {
        Self {
            code: code.to_owned(),
            summary: summary.to_owned(),
            next_step: next_step.to_owned(),
            status: None,
            request_id: None,
            end,
        }
    }

    fn closed(code: u16, reason: &str) -> Self {
        // A relay's reason is a stable code; anybody else's is a sentence.
        let is_code =
            !reason.is_empty() && reason.bytes().all(|b| b == b'_' || b.is_ascii_lowercase());
        let why = match reason {
            "" => String::new(),
            _ if is_code => String::new(),
            reason => format!(": {reason}"),
        };
        let end = match code {
            1001 | 1006 | 1011 | 1012 | 1013 => End::Unavailable,
            _ => End::Failed,
        };
        Self::plain(
            if is_code { reason } else { "session_closed" },
            &format!("the session was closed with code {code} before the turn was over{why}"),
            "Look for the session in the log of the relay or of the service.",
            end,
        )
    }

    fn diagnosed(diagnosis: &Diagnosis) -> Self {
        let answer = diagnosis.answer.as_ref();
        let status = answer.map(|answer| answer.status);
        let said = answer.and_then(|answer| answer.message.as_deref());
        let summary = match said {
            Some(said) => format!("{} It said: {said}", diagnosis.summary),
            None => diagnosis.summary.clone(),
        };
        let end = match (status, diagnosis.permanence) {
            (Some(401 | 403), _) => End::KeyRefused,
            (None, _) | (_, Permanence::Transient | Permanence::Throttled) => End::Unavailable,
            (Some(_), Permanence::Permanent) => End::Failed,
        };
        Self {
            status,
            request_id: answer.and_then(|answer| answer.request_id.clone()),
            end,
            ..Self::plain(diagnosis.code, &summary, &diagnosis.next_step, end)
        }
    }

    /// A refusal of the upgrade: a relay says itself what it means, any other service is diagnosed.
    fn refused(status: u16, headers: &[(String, String)], body: &str, callee: &Callee) -> Self {
        let pairs = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let diagnosed = Self::diagnosed(&callee.explain_answer(status, pairs, body));
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let said = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
        if let (Some(code), Some(title), Some(step)) =
            (said("/code"), said("/title"), said("/next_step"))
        {
            // A relay that was told to refuse by problem documents.
            return Self {
                code: code.to_owned(),
                summary: title.to_owned(),
                next_step: step.to_owned(),
                ..diagnosed
            };
        }
        // Azure's errors have no type; those of a relay, and of other compatible services, do.
        let relays_own = !callee.is_vendor() && said("/error/type").is_some();
        match (said("/error/code"), said("/error/message")) {
            (Some(code), Some(message)) if relays_own => Self {
                code: code.to_owned(),
                summary: message.to_owned(),
                next_step: match status {
                    401 | 403 => {
                        "Set TALKLINE_CLIENT_KEY, or the variable that --key-env names, to a key of the relay's \
                         clients.keys."
                    }
                    _ => "",
                }
                .to_owned(),
                ..diagnosed
            },
            _ => diagnosed,
        }
    }

    /// An event that reported a failure. A relay's says what to do in its message.
    fn event(event: &Value, callee: &Callee) -> Self {
        let (kind, error) = match event["type"].as_str() {
            Some("response.done") => {
                let details = &event["response"]["status_details"];
                let failed = event["response"]["status"] == "failed";
                match failed {
                    true => (IncidentKind::ResponseFailed, details["error"].clone()),
                    false => {
                        let error =
                            json!({"code": details["reason"], "message": details["reason"]});
                        (IncidentKind::ResponseIncomplete, error)
                    }
                }
            }
            _ => (IncidentKind::Error, event["error"].clone()),
        };
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        let status = error["upstream"]["status"]
            .as_u64()
            .and_then(|status| u16::try_from(status).ok());
        let end = match status {
            Some(401 | 403) => End::KeyRefused,
            Some(429 | 500..) => End::Unavailable,
            _ => End::Failed,
        };
        if let Some((message, next_step)) = text("message").split_once(" Next step: ") {
            return Self {
                status,
                request_id: error["upstream"]["request_id"].as_str().map(str::to_owned),
                ..Self::plain(text("code"), message, next_step, end)
            };
        }
        let diagnosis = callee.explain_incident(kind, &error);
        let summary = format!("{} It said: {}", diagnosis.summary, text("message"));
        Self::plain(
            diagnosis.code,
            &callee.scrub(&summary),
            &diagnosis.next_step,
            end,
        )
    }

    fn to_json(&self, callee: &Callee) -> Value {
        json!({
            "ok": false,
            "url": callee.url(),
            "error": {
                "code": self.code,
                "message": self.summary,
                "next_step": self.next_step,
                "status": self.status,
                "request_id": self.request_id,
            },
        })
    }

    fn into_exit(self) -> Exit {
        let mut text = format!("{} [{}]", self.summary, self.code);
        if let Some(id) = &self.request_id {
            text.push_str(&format!("\nrequest id: {id}"));
        }
        if !self.next_step.is_empty() {
            text.push_str(&format!("\nhint: {}", self.next_step));
        }
        match self.end {
            End::Failed => Exit::Findings(text),
            End::Unavailable => Exit::Unavailable(text),
            End::KeyRefused => Exit::NoPermission(text),
            End::NotTried => Exit::CouldNotRun(text),
        }
    }
}
