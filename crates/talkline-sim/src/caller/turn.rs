//! One spoken turn over an upgraded connection.
//!
//! Three futures share the connection, so that a peer that sends while it is sent to can never stall the caller: one
//! speaks, one writes, one listens. All end with the one that listens.

use std::cell::Cell;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::upgrade::{Stream, Upgraded, upgrade};
use super::{
    Call, CallError, Dialect, Latencies, Progress, Question, Speed, TurnOptions, TurnReport,
    UPGRADING, dialect_of,
};
use crate::wav::{self, Wav};
use crate::ws::{self, Incoming, Opcode, Parser, Role};

/// Audio of one append.
const CHUNK: Duration = Duration::from_millis(40);
/// The only rate of `audio/pcm`.
const RATE_HZ: u32 = 24_000;
/// Samples of one append.
const CHUNK_SAMPLES: usize = 960;
/// Samples louder than this are speech: -40 dBFS.
const QUIET_PEAK: u16 = 328;
/// Frames waiting to be written.
const QUEUE_FRAMES: usize = 32;
/// Longest wait for the service's side of the close handshake.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Longest reply that is collected: ten minutes.
const REPLY_BYTES_MAX: usize = 48_000 * 600;

/// Longest wait for a transcript that may fail, once the reply is there.
const TRANSCRIPT_MAX: Duration = Duration::from_secs(3);

/// Calls, speaks `question`, and collects the reply up to `response.done`.
///
/// `question` must be at 24 kHz. The service's turn detection, which is on by default, must notice its end.
///
/// # Errors
/// [`CallError`] says how far it came.
///
/// # Cancel safety
/// Dropping the future drops the connection, without a close handshake.
pub async fn spoken_turn(
    call: &Call,
    question: &Wav,
    options: &TurnOptions,
) -> Result<TurnReport, CallError> {
    let question = Question::Spoken(question.clone());
    hold_turn(call, &question, options, &mut |_| {}).await
}

/// Calls, says `question`, and collects the reply up to `response.done`; `progress` hears how far it is.
///
/// # Errors
/// [`CallError`] says how far it came.
///
/// # Cancel safety
/// Dropping the future drops the connection, without a close handshake.
pub async fn hold_turn(
    call: &Call,
    question: &Question,
    options: &TurnOptions,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<TurnReport, CallError> {
    if let Question::Spoken(wav) = question
        && wav.rate_hz() != RATE_HZ
    {
        let what = format!("the recording is at {} Hz, not {RATE_HZ}", wav.rate_hz());
        return Err(CallError::Unusable(what));
    }
    within(
        options.turn_max,
        "the end of the turn",
        turn(call, question, options, progress),
    )
    .await
}

/// How far the turn is, as the listener tells the speaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Ready,
    SpeechEnded,
}

async fn turn(
    call: &Call,
    question: &Question,
    options: &TurnOptions,
    progress: &mut (dyn FnMut(Progress<'_>) + Send),
) -> Result<TurnReport, CallError> {
    let begun = Instant::now();
    let upgraded = within(options.step_max, UPGRADING, upgrade(call)).await?;
    let upgraded_after = begun.elapsed();
    progress(Progress::Upgraded);
    let Upgraded {
        stream,
        first_bytes,
    } = upgraded;
    let (reader, writer) = tokio::io::split(stream);
    let (outgoing, queue) = mpsc::channel(QUEUE_FRAMES);
    let (stage, watched) = watch::channel(Stage::Opening);
    let mut parser = Parser::new(Role::Client);
    parser.buffer = first_bytes;
    let asked_at = Cell::new(None);
    let listener = Listener {
        reader,
        parser,
        outgoing: outgoing.clone(),
        stage,
        dialect: call.dialect,
        options,
        begun,
        // While the question is spoken nothing need come.
        patience: options.step_max + options.trailing_silence + duration(question),
        question,
        asked_at: &asked_at,
        progress,
    };
    let collected = tokio::select! {
        collected = listener.listen() => collected?,
        never = write(writer, queue) => match never {},
        never = speak(question, options, watched, &outgoing, &asked_at) => match never {},
    };
    let first_audio = collected.first_audio_at.zip(asked_at.get());
    let latency = first_audio
        .map(|(audio, asked): (Instant, Instant)| audio.saturating_duration_since(asked));
    Ok(TurnReport {
        session_id: collected.session_id,
        model: collected.model,
        dialect: collected.dialect,
        input_transcript: collected.input_transcript,
        transcription_failure: collected.transcription_failure,
        reply_transcript: collected.reply_transcript,
        reply_samples: wav::samples_from_le(&collected.reply_bytes).ok_or_else(|| {
            CallError::Protocol("the reply's audio ends within a sample".to_owned())
        })?,
        usage: collected.usage,
        latencies: Latencies {
            upgraded: upgraded_after,
            session_created: collected.session_created_after,
            speech_end_to_first_audio: latency.unwrap_or_default(),
            total: begun.elapsed(),
        },
    })
}

/// How long it takes to say.
fn duration(question: &Question) -> Duration {
    match question {
        Question::Spoken(wav) => wav.duration(),
        Question::Written(_) => Duration::ZERO,
    }
}

/// Bounds a wait.
async fn within<T>(
    max: Duration,
    waiting_for: &'static str,
    step: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let done = timeout(max, step).await;
    done.unwrap_or(Err(CallError::Timeout { waiting_for }))
}

/// Writes what is queued. Once the connection cannot be written to, the rest is dropped: reading will tell why.
async fn write(
    mut writer: WriteHalf<Box<dyn Stream>>,
    mut queue: mpsc::Receiver<Vec<u8>>,
) -> Infallible {
    let mut broken = false;
    while let Some(frame) = queue.recv().await {
        if !broken {
            broken = writer.write_all(&frame).await.is_err() || writer.flush().await.is_err();
        }
    }
    std::future::pending().await
}

/// Speaks the recording once the session is ready, then silence until the service has noticed the end.
async fn speak(
    question: &Question,
    options: &TurnOptions,
    mut stage: watch::Receiver<Stage>,
    outgoing: &mpsc::Sender<Vec<u8>>,
    asked_at: &Cell<Option<Instant>>,
) -> Infallible {
    let Question::Spoken(question) = question else {
        // The listener asks in writing.
        return std::future::pending().await;
    };
    // An error means that the listener is gone, and with it all of this.
    let _ = stage.wait_for(|stage| *stage != Stage::Opening).await;
    let mut pace = interval(CHUNK);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let silent_chunks = options
        .trailing_silence
        .as_millis()
        .div_ceil(CHUNK.as_millis());
    let silence = std::iter::repeat_n([0; CHUNK_SAMPLES].as_slice(), silent_chunks as usize);
    let speech_end = question
        .samples()
        .iter()
        .rposition(|sample| sample.unsigned_abs() > QUIET_PEAK);
    let last_chunk = speech_end.unwrap_or_default() / CHUNK_SAMPLES;
    for (index, chunk) in question
        .samples()
        .chunks(CHUNK_SAMPLES)
        .chain(silence)
        .enumerate()
    {
        if options.speed == Speed::RealTime {
            pace.tick().await;
        }
        if *stage.borrow() == Stage::SpeechEnded {
            break;
        }
        let event = json!({"type": "input_audio_buffer.append", "audio": STANDARD.encode(wav::samples_to_le(chunk))});
        let _ = outgoing
            .send(ws::text_frame(Role::Client, &event.to_string()))
            .await;
        if index == last_chunk {
            asked_at.set(Some(Instant::now()));
        }
    }
    std::future::pending().await
}

/// What the listener has gathered.
#[derive(Debug, Default)]
struct Collected {
    session_id: String,
    model: String,
    dialect: Dialect,
    session_created_after: Duration,
    input_transcript: String,
    transcription_failure: Option<Value>,
    transcribed: bool,
    reply_transcript: String,
    reply_bytes: Vec<u8>,
    first_audio_at: Option<Instant>,
    usage: Value,
    responded: bool,
}

struct Listener<'a> {
    reader: ReadHalf<Box<dyn Stream>>,
    parser: Parser,
    outgoing: mpsc::Sender<Vec<u8>>,
    stage: watch::Sender<Stage>,
    dialect: Dialect,
    options: &'a TurnOptions,
    begun: Instant,
    /// Longest wait for an event once the question is being asked.
    patience: Duration,
    question: &'a Question,
    /// When the last of the question was sent.
    asked_at: &'a Cell<Option<Instant>>,
    progress: &'a mut (dyn FnMut(Progress<'_>) + Send),
}

impl Listener<'_> {
    async fn listen(mut self) -> Result<Collected, CallError> {
        let step_max = self.options.step_max;
        let mut collected = Collected {
            transcribed: self.options.transcription_model.is_none(),
            ..Collected::default()
        };
        let created = self.event(step_max, "session.created").await?;
        if created["type"] != "session.created" {
            let what = format!(
                "the first event is {}, not session.created",
                created["type"]
            );
            return Err(CallError::Protocol(what));
        }
        collected.session_created_after = self.begun.elapsed();
        collected.session_id = text(&created["session"]["id"]);
        collected.model = text(&created["session"]["model"]);
        if self.options.follow_dialect {
            self.dialect = dialect_of(&created["session"]).unwrap_or(self.dialect);
        }
        collected.dialect = self.dialect;
        (self.progress)(Progress::SessionCreated);
        self.send_event(&json!({"type": "session.update", "session": self.session()}))
            .await;
        while self.event(step_max, "session.updated").await?["type"] != "session.updated" {}
        (self.progress)(Progress::Asking(duration(self.question)));
        self.stage.send_replace(Stage::Ready);
        if let Question::Written(question) = self.question {
            collected.input_transcript.clone_from(question);
            collected.transcribed = true;
            self.write(question).await;
        }
        while !(collected.transcribed && collected.responded) {
            let awaited = match collected.responded {
                false => self.event(self.patience, "response.done").await,
                true if self.options.transcription_may_fail => {
                    match self.event(TRANSCRIPT_MAX, "the transcript").await {
                        Err(CallError::Timeout { .. }) => break,
                        other => other,
                    }
                }
                true => {
                    self.event(self.patience, "the transcript of the question")
                        .await
                }
            };
            self.collect(&mut collected, &awaited?)?;
        }
        self.hang_up().await;
        Ok(collected)
    }

    /// Asks in writing.
    async fn write(&mut self, question: &str) {
        let content = json!([{"type": "input_text", "text": question}]);
        let item = json!({"type": "message", "role": "user", "content": content});
        self.send_event(&json!({"type": "conversation.item.create", "item": item}))
            .await;
        self.send_event(&json!({"type": "response.create"})).await;
        self.asked_at.set(Some(Instant::now()));
        (self.progress)(Progress::Asked);
    }

    /// What is asked of the session: transcripts both ways, 24 kHz PCM, turns taken by the service.
    fn session(&self) -> Value {
        let transcription = self
            .options
            .transcription_model
            .as_ref()
            .map(|model| json!({"model": model}));
        let mut session = match self.dialect {
            Dialect::Ga => json!({
                "type": "realtime",
                "output_modalities": ["audio"],
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": RATE_HZ},
                        "transcription": transcription,
                        "turn_detection": {"type": "server_vad"},
                    },
                    "output": {"format": {"type": "audio/pcm", "rate": RATE_HZ}},
                },
            }),
            Dialect::Preview => json!({
                "modalities": ["audio", "text"],
                "input_audio_format": "pcm16",
                "output_audio_format": "pcm16",
                "input_audio_transcription": transcription,
                "turn_detection": {"type": "server_vad"},
            }),
        };
        if let Some(instructions) = &self.options.instructions {
            session["instructions"] = json!(instructions);
        }
        session
    }

    fn collect(&mut self, collected: &mut Collected, event: &Value) -> Result<(), CallError> {
        match ga_name(self.dialect, event["type"].as_str().unwrap_or_default()) {
            "input_audio_buffer.speech_stopped" => {
                self.stage.send_replace(Stage::SpeechEnded);
                (self.progress)(Progress::Asked);
            }
            "conversation.item.input_audio_transcription.completed" => {
                collected.input_transcript = text(&event["transcript"]);
                collected.transcribed = true;
                (self.progress)(Progress::Heard(&collected.input_transcript));
            }
            "conversation.item.input_audio_transcription.failed" => {
                if !self.options.transcription_may_fail {
                    return Err(failure(&event["error"], event));
                }
                collected.transcription_failure = Some(event["error"].clone());
                collected.transcribed = true;
            }
            "response.output_audio_transcript.delta" => {
                let words = event["delta"].as_str().unwrap_or_default();
                collected.reply_transcript.push_str(words);
                (self.progress)(Progress::Reply(words));
            }
            "response.output_audio.delta" => {
                if collected.first_audio_at.is_none() {
                    collected.first_audio_at = Some(Instant::now());
                    (self.progress)(Progress::FirstAudio);
                }
                let audio = STANDARD.decode(event["delta"].as_str().unwrap_or_default());
                let audio = audio
                    .map_err(|_| CallError::Protocol("audio that is not base64".to_owned()))?;
                if collected.reply_bytes.len() + audio.len() > REPLY_BYTES_MAX {
                    return Err(CallError::Protocol(
                        "a reply of more than ten minutes".to_owned(),
                    ));
                }
                collected.reply_bytes.extend(audio);
            }
            "response.done" => {
                let response = &event["response"];
                if response["status"] != "completed" {
                    let details = &response["status_details"];
                    let error = details.get("error").unwrap_or(details);
                    return Err(failure(error, event));
                }
                collected.usage = response["usage"].clone();
                collected.responded = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// The next event; an `error` event is an error.
    async fn event(
        &mut self,
        max: Duration,
        waiting_for: &'static str,
    ) -> Result<Value, CallError> {
        let text = within(max, waiting_for, self.message()).await?;
        let event: Value = serde_json::from_str(&text)
            .map_err(|error| CallError::Protocol(format!("an event that is not JSON: {error}")))?;
        if event["type"] == "error" {
            return Err(failure(&event["error"], &event));
        }
        Ok(event)
    }

    /// The next text message; pings are answered on the way.
    async fn message(&mut self) -> Result<String, CallError> {
        loop {
            let incoming = self.parser.next();
            let violation = |violation: ws::Violation| CallError::Protocol(violation.to_string());
            match incoming.map_err(violation)? {
                Some(Incoming::Text(text)) => return Ok(text),
                Some(Incoming::Ping(payload)) => {
                    self.send(ws::frame(Role::Client, true, Opcode::Pong, &payload))
                        .await;
                }
                Some(Incoming::Pong(_)) => {}
                Some(Incoming::Binary(_)) => {
                    return Err(CallError::Protocol("a binary message".to_owned()));
                }
                Some(Incoming::Close(status)) => {
                    let (code, reason) = status.unwrap_or((1005, String::new()));
                    return Err(CallError::Closed { code, reason });
                }
                None => self.read().await?,
            }
        }
    }

    async fn read(&mut self) -> Result<(), CallError> {
        let read = self.reader.read_buf(&mut self.parser.buffer).await;
        match read {
            Ok(0) => Err(CallError::Closed {
                code: 1006,
                reason: "the connection ended without a close frame".to_owned(),
            }),
            Ok(_) => Ok(()),
            Err(source) => Err(CallError::Connection {
                doing: "reading events",
                source,
            }),
        }
    }

    async fn send_event(&self, event: &Value) {
        self.send(ws::text_frame(Role::Client, &event.to_string()))
            .await;
    }

    /// The writer takes everything, so this waits no longer than the peer does to read.
    async fn send(&self, frame: Vec<u8>) {
        let _ = self.outgoing.send(frame).await;
    }

    /// The close handshake. The turn is whole by now, so how it goes changes nothing.
    async fn hang_up(&mut self) {
        let closed = async {
            self.send(ws::close_frame(Role::Client, 1000, "")).await;
            while self.message().await.is_ok() {}
        };
        let _ = timeout(CLOSE_MAX, closed).await;
    }
}

/// The GA name of a server event.
fn ga_name(dialect: Dialect, name: &str) -> &str {
    match (dialect, name) {
        (Dialect::Preview, "response.audio.delta") => "response.output_audio.delta",
        (Dialect::Preview, "response.audio_transcript.delta") => {
            "response.output_audio_transcript.delta"
        }
        (_, other) => other,
    }
}

fn failure(error: &Value, event: &Value) -> CallError {
    let code = [&error["code"], &error["reason"], &error["type"]]
        .into_iter()
        .find_map(Value::as_str);
    CallError::Event {
        code: code.unwrap_or_default().to_owned(),
        message: text(&error["message"]),
        event: event.clone(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
