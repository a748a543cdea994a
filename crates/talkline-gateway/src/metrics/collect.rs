//! What is looked up when the page is asked for: credentials, the process, the log.

use std::{
    fmt::Error,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use talkline_auth::{KeyCell, KeySlot};

use super::{Readings, families::help};

/// Since when each rotating key has been as it is.
pub(crate) struct KeyAges(Mutex<Vec<KeyAge>>);

struct KeyAge {
    cell: KeyCell,
    fingerprint: Option<String>,
    since: Instant,
}

impl KeyAges {
    pub(super) fn new(cells: Vec<KeyCell>) -> Self {
        let age = |cell: KeyCell| KeyAge {
            fingerprint: cell.fingerprint(KeySlot::Primary),
            cell,
            since: Instant::now(),
        };
        Self(Mutex::new(cells.into_iter().map(age).collect()))
    }

    /// A change is noticed when it is looked for, so an age is as exact as the scrape interval.
    fn look(&self) -> Vec<Duration> {
        let mut ages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let look = |age: &mut KeyAge| {
            let fingerprint = age.cell.fingerprint(KeySlot::Primary);
            if fingerprint != age.fingerprint {
                age.fingerprint = fingerprint;
                age.since = Instant::now();
            }
            age.since.elapsed()
        };
        ages.iter_mut().map(look).collect()
    }
}

pub(super) fn encode(readings: &Readings, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
    let mut page = Page(encoder);
    page.gauge(
        "talkline_sessions_max",
        readings.sessions_max.load(Ordering::Relaxed) as f64,
    )?;
    page.gauge(
        "talkline_draining",
        f64::from(readings.draining.load(Ordering::Relaxed)),
    )?;
    if let Some((budget, bytes_max)) = readings.buffers.load().as_deref() {
        page.gauge("talkline_buffered_bytes", budget.used() as f64)?;
        page.gauge("talkline_buffered_bytes_max", *bytes_max as f64)?;
    }
    let store = readings.limit_store.get();
    if let Some(health) = store.and_then(|health| health()) {
        page.gauge("talkline_limit_store_up", f64::from(health.is_up))?;
        let failures = health.failures as f64;
        page.counter("talkline_limit_store_failures_total", failures)?;
    }
    if let Some(dropped) = readings.dropped_lines.get() {
        page.counter("talkline_log_lines_dropped_total", dropped() as f64)?;
    }
    let credentials = readings.credentials.load();
    if let Some((tokens, ages)) = credentials.as_deref() {
        let counts = tokens.counts();
        page.gauge("talkline_token_identities", counts.identities as f64)?;
        page.gauge("talkline_tokens_usable", counts.usable as f64)?;
        page.labelled(
            "talkline_token_refreshes_total",
            MetricType::Counter,
            &[
                ([("result", "ok".to_owned())], counts.refreshed as f64),
                ([("result", "failed".to_owned())], counts.failed as f64),
            ],
        )?;
        let ages: Vec<_> = ages
            .look()
            .iter()
            .enumerate()
            .map(|(at, age)| ([("secret", (at + 1).to_string())], age.as_secs_f64()))
            .collect();
        if !ages.is_empty() {
            page.labelled("talkline_secret_age_seconds", MetricType::Gauge, &ages)?;
        }
    }
    process(&mut page)
}

/// What Linux tells of this process; elsewhere nothing.
fn process(page: &mut Page<'_>) -> Result<(), Error> {
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", open.count() as f64)?;
    }
    if let Some(max) = max_fds() {
        page.gauge("process_max_fds", max)?;
    }
    if let Some(memory) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", memory)?;
    }
    if let Some((cpu, started)) = cpu_and_start() {
        page.counter("process_cpu_seconds_total", cpu)?;
        page.gauge("process_start_time_seconds", started)?;
    }
    Ok(())
}

fn max_fds() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Ticks of the kernel's interface in one second (`USER_HZ`), the same on every Linux that runs this.
const TICKS_PER_SECOND: f64 = 100.0;

fn cpu_and_start() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold anything; what follows it is numbers, from field 3 on.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let cpu = (field(14)? + field(15)?) / TICKS_PER_SECOND;
    let boot = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some((cpu, boot + field(22)? / TICKS_PER_SECOND))
}

struct Page<'e>(DescriptorEncoder<'e>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, value: f64) -> Result<(), Error> {
        let metric = ConstGauge::new(value);
        let family = self
            .0
            .encode_descriptor(name, help(name), None, MetricType::Gauge)?;
        metric.encode(family)
    }

    fn counter(&mut self, name: &str, value: f64) -> Result<(), Error> {
        let plain = name.strip_suffix("_total").unwrap_or(name);
        let metric = ConstCounter::new(value);
        let family = self
            .0
            .encode_descriptor(plain, help(name), None, MetricType::Counter)?;
        metric.encode(family)
    }

    fn labelled(
        &mut self,
        name: &str,
        kind: MetricType,
        samples: &[([(&'static str, String); 1], f64)],
    ) -> Result<(), Error> {
        let plain = name.strip_suffix("_total").unwrap_or(name);
        let mut family = self.0.encode_descriptor(plain, help(name), None, kind)?;
        for (labels, value) in samples {
            let sample = family.encode_family(labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(*value).encode(sample)?,
                _ => ConstGauge::new(*value).encode(sample)?,
            }
        }
        Ok(())
    }
}
