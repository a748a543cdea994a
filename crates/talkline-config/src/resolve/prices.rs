//! `prices.*`.

use crate::{ModelPrices, Prices, Problem, prices::parse, reader::Reader, shown::shown};

pub(super) fn read(reader: &mut Reader<'_>) -> Prices {
    let currency = currency(reader);
    let names = reader.names(&["prices", "models"]);
    let models = names
        .into_iter()
        .map(|name| {
            let prices = model(reader, &name);
            (name, prices)
        })
        .collect();
    Prices { currency, models }
}

fn currency(reader: &mut Reader<'_>) -> String {
    let Some(found) = reader.text(&["prices", "currency"]) else {
        return String::new();
    };
    let is_code = found.value.len() == 3 && found.value.bytes().all(|b| b.is_ascii_uppercase());
    if !is_code {
        let message = format!("{} is not a currency", shown(&found.value));
        let problem = Problem::error("price.currency", message)
            .hint("write its three letters (ISO 4217), such as \"USD\" or \"EUR\"");
        let problem = reader.at_value(problem, &found);
        reader.problem(problem);
    }
    found.value
}

fn model(reader: &mut Reader<'_>, name: &str) -> ModelPrices {
    let mut price = |key| price(reader, name, key);
    let (input_text, input_audio, input_image) =
        (price("inputText"), price("inputAudio"), price("inputImage"));
    let (cached_text, cached_audio, cached_image) = (
        price("cachedInputText"),
        price("cachedInputAudio"),
        price("cachedInputImage"),
    );
    ModelPrices {
        input_text: input_text.unwrap_or_default(),
        cached_input_text: cached_text.or(input_text).unwrap_or_default(),
        input_audio: input_audio.unwrap_or_default(),
        cached_input_audio: cached_audio.or(input_audio).unwrap_or_default(),
        input_image: input_image.unwrap_or_default(),
        cached_input_image: cached_image.or(input_image).unwrap_or_default(),
        output_text: price("outputText").unwrap_or_default(),
        output_audio: price("outputAudio").unwrap_or_default(),
    }
}

fn price(reader: &mut Reader<'_>, name: &str, key: &str) -> Option<u64> {
    let found = reader.text(&["prices", "models", name, key])?;
    let parsed = parse(&found.value);
    if parsed.is_none() {
        let message = format!("{} is not a price", shown(&found.value));
        let problem = Problem::error("price.form", message)
            .hint("write the price of a million tokens, such as \"32\" or \"0.40\"");
        let problem = reader.at_value(problem, &found);
        reader.problem(problem);
    }
    parsed
}
