//! The frames that the relay originates, written by fastwebsockets.

use fastwebsockets::{Frame, OpCode, Payload};
use talkline_frame::MessageKind;
use talkline_session::{Close, Side};

use crate::scratch::fresh_key;

/// Appends a ping without payload.
pub(crate) fn append_ping(out: &mut Vec<u8>, to: Side) {
    append(out, to, OpCode::Ping, Vec::new());
}

/// Appends a pong.
pub(crate) fn append_pong(out: &mut Vec<u8>, to: Side, payload: Vec<u8>) {
    append(out, to, OpCode::Pong, payload);
}

/// Appends a text message.
pub(crate) fn append_text(out: &mut Vec<u8>, to: Side, text: String) {
    append(out, to, OpCode::Text, text.into_bytes());
}

/// Appends a message of one frame.
pub(crate) fn append_message(out: &mut Vec<u8>, to: Side, kind: MessageKind, payload: Vec<u8>) {
    let opcode = match kind {
        MessageKind::Text => OpCode::Text,
        MessageKind::Binary => OpCode::Binary,
    };
    append(out, to, opcode, payload);
}

/// Appends a close frame.
pub(crate) fn append_close(out: &mut Vec<u8>, to: Side, close: &Close) {
    append(out, to, OpCode::Close, close.payload());
}

fn append(out: &mut Vec<u8>, to: Side, opcode: OpCode, payload: Vec<u8>) {
    let key = match to {
        Side::Client => None,
        // Only towards the upstream is the relay a WebSocket client. All of these payloads are its own
        // or a pong; a predictable key is the lesser evil when the system has no randomness to give.
        Side::Upstream => Some(fresh_key().unwrap_or_default()),
    };
    let mut frame = Frame::new(true, opcode, key, Payload::Owned(payload));
    if key.is_some() {
        frame.mask();
    }
    let mut encoded = Vec::new();
    out.extend_from_slice(frame.write(&mut encoded));
}
