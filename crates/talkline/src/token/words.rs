//! A token in words.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use talkline_auth::{
    TokenRefusal,
    grant::{CLOCK_SKEW, Shown, Verified},
};

use super::unix;

/// What was found out about a token.
pub(super) struct Inspected<'t> {
    pub(super) shown: &'t Shown,
    /// What the ring says about the signature; `None` without a ring.
    pub(super) signature: Option<Result<Verified, TokenRefusal>>,
    pub(super) now: SystemTime,
}

impl Inspected<'_> {
    /// Why it is not accepted, as far as that can be told from here.
    pub(super) fn refusal(&self) -> Option<TokenRefusal> {
        if let Some(Err(refusal)) = &self.signature {
            return Some(*refusal);
        }
        if self.now >= self.shown.expires_at {
            return Some(TokenRefusal::Expired);
        }
        (self.shown.valid_from > self.now + CLOCK_SKEW).then_some(TokenRefusal::NotYetValid)
    }

    fn signature(&self) -> String {
        match &self.signature {
            None => "not checked: no ring is configured here".to_owned(),
            Some(Ok(_)) => "correct".to_owned(),
            Some(Err(refusal)) => refusal.to_string(),
        }
    }

    fn validity(&self) -> String {
        let since = |earlier: SystemTime, later: SystemTime| {
            time(later.duration_since(earlier).unwrap_or_default())
        };
        let (shown, now) = (self.shown, self.now);
        match self.refusal() {
            Some(TokenRefusal::Expired) => format!("expired {} ago", since(shown.expires_at, now)),
            Some(TokenRefusal::NotYetValid) => {
                format!("not valid for another {}", since(now, shown.valid_from))
            }
            Some(_) => "not accepted by this configuration".to_owned(),
            None => format!(
                "valid for another {}, unless it has been used",
                since(now, shown.expires_at)
            ),
        }
    }

    fn settings(&self) -> Option<&str> {
        self.signature
            .as_ref()?
            .as_ref()
            .ok()?
            .grant
            .session
            .as_deref()
    }

    pub(super) fn text(&self) -> String {
        let grant = &self.shown.grant;
        let some = |text: &Option<String>, none: &str| text.clone().unwrap_or_else(|| none.into());
        let session = match (self.settings(), self.shown.has_settings) {
            (Some(settings), _) => settings.to_owned(),
            (None, true) => "sealed".to_owned(),
            (None, false) => "none".to_owned(),
        };
        let mut bounds: Vec<String> = Vec::new();
        bounds.extend(grant.limits.session_duration_max.map(time));
        bounds.extend(
            grant
                .limits
                .responses_max
                .map(|max| format!("{max} responses")),
        );
        bounds.extend(grant.limits.tokens_max.map(|max| format!("{max} tokens")));
        if bounds.is_empty() {
            bounds.push("the client's own".to_owned());
        }
        let lines = [
            ("validity", self.validity()),
            ("signature", self.signature()),
            ("id", self.shown.id.to_string()),
            ("key", self.shown.key.clone()),
            ("audience", self.shown.audience.clone()),
            ("client", grant.client.clone()),
            (
                "model",
                some(&grant.model, "any that the client may ask for"),
            ),
            ("origin", some(&grant.origin, "any that the relay lets in")),
            ("policy", some(&grant.policy, "the client's own")),
            ("bounds", bounds.join(", ")),
            ("session", session),
        ];
        lines
            .iter()
            .map(|(name, value)| format!("{name:<10} {}\n", printable(value)))
            .collect()
    }

    pub(super) fn json(&self) -> Value {
        let grant = &self.shown.grant;
        let session = self
            .settings()
            .and_then(|text| serde_json::from_str::<Value>(text).ok());
        json!({
            "accepted": self.refusal().is_none(),
            "code": self.refusal().map(TokenRefusal::code),
            "validity": self.validity(),
            "signature_checked": self.signature.is_some(),
            "id": self.shown.id.as_str(),
            "key": self.shown.key,
            "audience": self.shown.audience,
            "client": grant.client,
            "model": grant.model,
            "origin": grant.origin,
            "policy": grant.policy,
            "session_seconds_max": grant.limits.session_duration_max.map(|max| max.as_secs()),
            "responses_max": grant.limits.responses_max,
            "tokens_max": grant.limits.tokens_max,
            "issued_at": unix(self.shown.issued_at),
            "valid_from": unix(self.shown.valid_from),
            "expires_at": unix(self.shown.expires_at),
            "sealed_settings": self.shown.has_settings,
            "session": session,
        })
    }
}

/// A token may come from anywhere: nothing in it moves the cursor.
fn printable(text: &str) -> String {
    let escaped = |c: char| match c.is_control() {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// A time as one says it.
pub(super) fn time(time: Duration) -> String {
    let one = |number: u64, unit: &str| match number {
        1 => format!("1 {unit}"),
        number => format!("{number} {unit}s"),
    };
    match time.as_secs() {
        seconds @ 0..120 => one(seconds, "second"),
        seconds @ 120..7_200 => one(seconds / 60, "minute"),
        seconds @ 7_200..172_800 => one(seconds / 3_600, "hour"),
        seconds => one(seconds / 86_400, "day"),
    }
}

#[cfg(test)]
mod tests {
    use talkline_auth::{Grant, GrantLimits, KeyRing, RingKey};

    use super::*;

    fn ring(byte: u8) -> KeyRing {
        KeyRing::new(vec![RingKey::ephemeral(&[byte; 32])], "talkline").unwrap()
    }

    fn minted_at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn token() -> String {
        let grant = Grant {
            model: Some("voice".into()),
            session: Some("{\"instructions\":\"CANARY\"}".into()),
            limits: GrantLimits {
                session_duration_max: Some(Duration::from_secs(300)),
                tokens_max: Some(900),
                ..GrantLimits::default()
            },
            ..Grant::new("web")
        };
        let minted = ring(1).mint(&grant, Duration::from_secs(60), minted_at(), [7; 16]);
        minted.unwrap().secret.expose().to_owned()
    }

    /// The validity and signature lines, and whether the settings are shown.
    fn check(ring: Option<KeyRing>, seconds_later: i64, expected: &str) {
        let token = token();
        let shown = Shown::read(&token).unwrap();
        let later = Duration::from_secs(seconds_later.unsigned_abs());
        let inspected = Inspected {
            signature: ring.map(|ring| ring.verify(&token, shown.valid_from)),
            shown: &shown,
            now: match seconds_later < 0 {
                true => minted_at() - later,
                false => minted_at() + later,
            },
        };
        let text = inspected.text();
        let lines: Vec<&str> = text.lines().take(2).collect();
        let told = lines
            .join(" / ")
            .replace("validity   ", "")
            .replace("signature  ", "");
        let settings = if text.contains("CANARY") {
            " +settings"
        } else {
            ""
        };
        assert_eq!(format!("{told}{settings}"), expected);
        assert_eq!(
            inspected.json().to_string().contains("CANARY"),
            !settings.is_empty()
        );
        assert!(
            text.contains("bounds     5 minutes, 900 tokens\n"),
            "{text}"
        );
    }

    #[test]
    fn validity_in_words() {
        let unchecked = "not checked: no ring is configured here";
        check(
            None,
            10,
            &format!("valid for another 50 seconds, unless it has been used / {unchecked}"),
        );
        check(
            Some(ring(1)),
            10,
            "valid for another 50 seconds, unless it has been used / correct +settings",
        );
        check(None, 60, &format!("expired 0 seconds ago / {unchecked}"));
        check(
            Some(ring(1)),
            600,
            "expired 9 minutes ago / correct +settings",
        );
        check(
            None,
            -30,
            &format!("not valid for another 30 seconds / {unchecked}"),
        );
        check(
            Some(ring(2)),
            10,
            "not accepted by this configuration / the client token has been altered",
        );
    }

    #[test]
    fn times_as_one_says_them() {
        let check = |seconds: u64, expected: &str| {
            assert_eq!(time(Duration::from_secs(seconds)), expected);
        };
        check(1, "1 second");
        check(119, "119 seconds");
        check(150, "2 minutes");
        check(7_200, "2 hours");
        check(300_000, "3 days");
    }
}
