//! The page is what Prometheus reads, what the reference says and what `deploy/` asks for.

use std::{collections::BTreeSet, path::Path};

use talkline_config::ModelPrices;
use talkline_session::{
    End, IncidentCount, Modalities, Responses, Stalls, Traffic, Transcription, Usage,
};

use super::{families::ALL, *};

/// Instruments that have all counted something.
fn busy() -> Metrics {
    let metrics = Metrics::new();
    let modalities = Modalities {
        text: 1,
        audio: 2,
        image: 3,
    };
    let traffic = Traffic {
        bytes: 10,
        frames: 5,
        messages: 4,
    };
    let stalls = Stalls {
        count: 1,
        time: Duration::from_millis(1500),
        spilled_bytes: 9,
    };
    let summary = Summary {
        end: End {
            by: EndedBy::Client,
            kind: EndKind::Closed,
            ..End::default()
        },
        client_to_upstream: traffic,
        upstream_to_client: traffic,
        client_stalls: stalls,
        upstream_stalls: stalls,
        usage: Usage {
            input: modalities,
            cached: modalities,
            output: modalities,
            ..Usage::default()
        },
        transcription: Transcription {
            input_tokens: 1,
            output_tokens: 2,
            seconds: 1.5,
            ..Transcription::default()
        },
        responses: Responses {
            completed: 1,
            ..Responses::default()
        },
        incidents: vec![IncidentCount {
            code: "session_expired",
            count: 2,
        }],
        ..Summary::default()
    };
    let price = ModelPrices {
        output_audio: 64_000_000,
        ..ModelPrices::default()
    };
    let prices = Prices {
        currency: "USD".into(),
        models: [("voice".to_owned(), price)].into(),
    };
    let active = metrics.session_opened(UpstreamKind::Azure);
    metrics.session_ended(UpstreamKind::Azure, &summary);
    metrics.session_cost(UpstreamKind::Azure, &prices, "voice", &summary);
    metrics.session_cost(UpstreamKind::Azure, &prices, "another", &summary);
    metrics.session_refused(UpstreamKind::Azure, &Diagnosis::relay_full());
    metrics.client_refused(401, "invalid_api_key");
    metrics.dialled(Duration::from_millis(90), &Phases::default());
    metrics.first_audio(Duration::from_millis(700));
    let mut timings = metrics.timings();
    timings(Timing::PingRoundTrip(
        Side::Client,
        Duration::from_millis(20),
    ));
    timings(Timing::SpeechToAudio(Duration::from_millis(400)));
    timings(Timing::CancelToSilence(Duration::ZERO));
    timings(Timing::Relayed(Duration::from_micros(30)));
    metrics.config_reloaded(true);
    metrics.config_reloaded(false);
    metrics.watch_dropped_lines(|| 3);
    metrics.watch_buffers(Budget::new(1 << 20), 1 << 20);
    metrics.watch_limit_store(|| {
        Some(StoreHealth {
            is_up: false,
            failures: 7,
        })
    });
    metrics.full("memory");
    let key = KeyCell::new(talkline_auth::Secret::new("0123456789abcdef0123"), None);
    metrics.watch_credentials(Tokens::new(Vec::new()), vec![key]);
    drop(active);
    metrics
}

fn text(metrics: &Metrics) -> String {
    metrics.page(Format::Prometheus).0
}

/// Names of the families of a page in the text format.
fn families(page: &str) -> BTreeSet<&str> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|rest| rest.split(' ').next()).collect()
}

#[test]
fn what_happened_is_on_the_page() {
    let page = text(&busy());
    for line in [
        r#"talkline_sessions_total{upstream="azure",outcome="client_closed"} 1"#,
        r#"talkline_sessions_total{upstream="azure",outcome="refused"} 1"#,
        r#"talkline_sessions_active{upstream="azure"} 0"#,
        r#"talkline_refusals_total{code="relay_full",blame="operator",permanence="transient"} 1"#,
        r#"talkline_client_refusals_total{status="401",code="invalid_api_key"} 1"#,
        r#"talkline_incidents_total{code="session_expired"} 2"#,
        r#"talkline_bytes_total{from="client"} 10"#,
        r#"talkline_stalled_seconds_total{from="upstream"} 1.5"#,
        r#"talkline_tokens_total{upstream="azure",direction="output",modality="audio"} 2"#,
        r#"talkline_cost_total{upstream="azure",currency="USD"} 0.000128"#,
        r#"talkline_ping_round_trip_seconds_bucket{le="0.032",side="client"} 1"#,
        r#"talkline_config_reloads_total{result="failed"} 1"#,
        "talkline_config_last_reload_successful 0",
        "talkline_log_lines_dropped_total 3",
        "talkline_draining 0",
        "talkline_limit_store_up 0",
        "talkline_limit_store_failures_total 7",
        "talkline_buffered_bytes 0",
        "talkline_buffered_bytes_max 1048576",
        r#"talkline_full_total{budget="memory"} 1"#,
    ] {
        assert!(
            page.lines().any(|found| found.starts_with(line)),
            "{line}\n{page}"
        );
    }
}

#[test]
fn the_table_and_the_page_name_the_same_families() {
    let page = text(&busy());
    let shown = families(&page);
    let described: BTreeSet<&str> = ALL.iter().map(|described| described.name).collect();
    assert_eq!(shown, described);
    for described in ALL {
        let kind = match described.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let line = format!("# TYPE {} {kind}", described.name);
        assert!(page.lines().any(|found| found == line), "{line}");
    }
}

/// The rules that promtool has for names, on the page itself: they hold without the tool.
#[test]
fn the_page_follows_the_naming_rules() {
    let page = text(&busy());
    for described in ALL {
        let name = described.name;
        assert_eq!(
            name.ends_with("_total"),
            described.kind == Kind::Counter,
            "{name}"
        );
        assert!(!described.help.is_empty(), "{name}");
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(legal), "{name}");
        for other in ["milliseconds", "minutes", "kilobytes", "ms", "percent"] {
            let mut parts = name.split('_');
            assert!(
                !parts.any(|part| part == other),
                "{name} is not in a base unit"
            );
        }
        assert!(page.contains(&format!("# HELP {name} ")), "{name}");
    }
    let mut seen = BTreeSet::new();
    for line in page.lines() {
        if let Some(sample) = line.strip_prefix(|c: char| c != '#').and(Some(line)) {
            let (series, value) = sample.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(seen.insert(series), "{series} is there twice");
        }
    }
    assert!(!page.contains("# EOF"));
    assert!(busy().page(Format::OpenMetrics).0.ends_with("# EOF\n"));
}

/// A label takes a `&'static str` or a number; the page of a process that met hostile peers has the
/// label values that the table names.
#[test]
fn labels_have_the_names_of_the_table() {
    let page = text(&busy());
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, rest)) = line.split_once('{') else {
            continue;
        };
        let described = ALL
            .iter()
            .find(|described| {
                name.strip_prefix(described.name)
                    .is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
            })
            .unwrap();
        let labels = rest.rsplit_once('}').unwrap().0;
        for label in labels.split("\",") {
            let label = label.split('=').next().unwrap();
            let known = described.labels.iter().any(|(known, _)| *known == label);
            assert!(known || label == "le", "{line}");
        }
    }
}

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// `TALKLINE_BLESS=1` writes the file anew.
#[test]
fn the_reference_page_is_fresh() {
    let path = repository("docs/reference/metrics.md");
    let fresh = reference();
    if std::env::var_os("TALKLINE_BLESS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == fresh,
        "docs/reference/metrics.md is stale: run `TALKLINE_BLESS=1 cargo test -p talkline-gateway`"
    );
}

/// Dashboards, alerts and autoscalers ask for families that exist, and for no other.
#[test]
fn deployments_ask_for_metrics_that_exist() {
    let mut asked = 0;
    let mut folders = vec![repository("deploy"), repository("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            for word in words(&text) {
                asked += 1;
                let known = ALL.iter().any(|described| {
                    word.strip_prefix(described.name)
                        .is_some_and(|rest| match rest {
                            "" => true,
                            "_bucket" | "_sum" | "_count" => described.kind == Kind::Histogram,
                            _ => false,
                        })
                });
                assert!(known, "{} asks for {word}", path.display());
            }
        }
    }
    assert!(asked > 20, "the walk found {asked} names");
}

/// Words that look like a metric of Talkline's: a unit or `_total` stands at the end of most, so the
/// test is for the prefix; names of crates and of rules are not written with it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == ':'))
        .filter(|word| word.starts_with("talkline_") && !word.contains(['.', ':']))
        .filter(|word| {
            const CRATES: &[&str] = &[
                "auth", "config", "dialect", "entra", "frame", "gateway", "relay", "session", "sim",
            ];
            let rest = &word["talkline_".len()..];
            !rest.is_empty() && !CRATES.contains(&rest)
        })
}
