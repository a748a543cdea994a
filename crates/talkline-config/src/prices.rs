//! What a model's tokens cost, as the operator wrote it.

use std::collections::BTreeMap;

/// `prices.*`: the price table. Talkline knows no prices itself; they change without it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// Three letters, as `USD`.
    pub currency: String,
    /// By the name that the upstream is asked for: the deployment with Azure, else the model.
    pub models: BTreeMap<String, ModelPrices>,
}

/// Prices of one model, each in millionths of the currency for a million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelPrices {
    /// Text read.
    pub input_text: u64,
    /// Text read from the cache.
    pub cached_input_text: u64,
    /// Audio read.
    pub input_audio: u64,
    /// Audio read from the cache.
    pub cached_input_audio: u64,
    /// Images read.
    pub input_image: u64,
    /// Images read from the cache.
    pub cached_input_image: u64,
    /// Text written.
    pub output_text: u64,
    /// Audio written.
    pub output_audio: u64,
}

/// Tokens that are billed. The cached ones are part of the input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BilledTokens {
    /// Text read, cached included.
    pub input_text: u64,
    /// Of it, from the cache.
    pub cached_input_text: u64,
    /// Audio read, cached included.
    pub input_audio: u64,
    /// Of it, from the cache.
    pub cached_input_audio: u64,
    /// Images read, cached included.
    pub input_image: u64,
    /// Of it, from the cache.
    pub cached_input_image: u64,
    /// Text written.
    pub output_text: u64,
    /// Audio written.
    pub output_audio: u64,
}

/// A price is in millionths for a million tokens.
const UNITS: f64 = 1e12;

impl ModelPrices {
    /// What the tokens cost, in the currency.
    #[must_use]
    pub fn of(&self, tokens: &BilledTokens) -> f64 {
        let lines = [
            (
                self.input_text,
                tokens.input_text.saturating_sub(tokens.cached_input_text),
            ),
            (self.cached_input_text, tokens.cached_input_text),
            (
                self.input_audio,
                tokens.input_audio.saturating_sub(tokens.cached_input_audio),
            ),
            (self.cached_input_audio, tokens.cached_input_audio),
            (
                self.input_image,
                tokens.input_image.saturating_sub(tokens.cached_input_image),
            ),
            (self.cached_input_image, tokens.cached_input_image),
            (self.output_text, tokens.output_text),
            (self.output_audio, tokens.output_audio),
        ];
        lines
            .iter()
            .map(|(price, count)| *price as f64 * *count as f64 / UNITS)
            .sum()
    }
}

/// Millionths, from a decimal number such as `4`, `0.4` or `64.00`.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let fraction: u64 = format!("{fraction:0<6}").parse().ok()?;
    // Beyond a billion nobody means it, and sums stay exact enough.
    (whole < 1_000_000_000).then(|| whole * 1_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_decimal_numbers() {
        let check = |text, expected| assert_eq!(parse(text), expected, "{text}");
        check("4", Some(4_000_000));
        check("0.4", Some(400_000));
        check("64.00", Some(64_000_000));
        check("0.000001", Some(1));
        check("0.0000001", None);
        check(".5", None);
        check("-1", None);
        check("1e3", None);
        check("", None);
        check("1000000000", None);
    }

    #[test]
    fn cached_tokens_are_billed_once() {
        let prices = ModelPrices {
            input_audio: parse("32").unwrap_or_default(),
            cached_input_audio: parse("0.40").unwrap_or_default(),
            output_audio: parse("64").unwrap_or_default(),
            ..ModelPrices::default()
        };
        let tokens = BilledTokens {
            input_audio: 1_000_000,
            cached_input_audio: 500_000,
            output_audio: 250_000,
            ..BilledTokens::default()
        };
        assert!((prices.of(&tokens) - (16.0 + 0.2 + 16.0)).abs() < 1e-9);
    }
}
