//! Numbers as people read them: a line while it runs, tables at the end.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::Results;
use super::load::Found;
use super::peers::{Peer, Tools};
use super::scenarios::{SCENARIOS, Scenario, Shows};

const BEGIN: &str = "<!-- begin: cargo xtask bench --write -->";
const END: &str = "<!-- end -->";

/// One measurement in one line.
pub(crate) fn brief(scenario: &Scenario, found: &Found) -> String {
    let mut line = match scenario.shows {
        Shows::Cpu => format!(
            "{:6.2} us/frame, {:6.0} frames/s, user {} sys {} ticks, relay {:.0} % and generator {:.0} % busy",
            found.cpu_us(),
            found.frames as f64 / found.seconds,
            found.user_ticks,
            found.system_ticks,
            found.shares().0,
            found.shares().1
        ),
        Shows::Latency => format!(
            "{:6.2} us/frame, p50 {:.0} p99 {:.0} p99.9 {:.0} us",
            found.cpu_us(),
            found.latency.p50,
            found.latency.p99,
            found.latency.p999
        ),
        Shows::Memory | Shows::Stalled => format!(
            "{:6.2} KiB/session, {} MiB open, {} MiB before, {} MiB after, {:.0} sessions/s",
            found.session_kib(),
            found.resident_open_kib / 1024,
            found.resident_before_kib / 1024,
            found.resident_after_kib / 1024,
            found.sessions as f64 / found.set_up_seconds
        ),
        Shows::SetUp => format!("p50 {:.0} p99 {:.0} us", found.set_up.p50, found.set_up.p99),
    };
    if scenario.shows == Shows::Stalled {
        let _ = write!(
            line,
            ", {} KiB of sockets in all, neighbours' p99 {:.0} us before and {:.0} us beside them, {} ended in {:.1} s",
            found.socket_kib,
            found.quiet.p99,
            found.latency.p99,
            found.evicted,
            found.evicted_seconds
        );
    }
    if found.lost + found.corrupt > 0 {
        let _ = write!(line, ", LOST {} CORRUPT {}", found.lost, found.corrupt);
    }
    line
}

/// All of it as the page has it.
pub(crate) fn markdown(
    results: &Results,
    tools: &Tools,
    repetitions: usize,
    arguments: &[&str],
) -> String {
    let mut text = String::new();
    let took_part = |peers: &[Peer]| results.keys().any(|(_, peer)| peers.contains(peer));
    let haproxy = [Peer::HaproxyTcp, Peer::HaproxyHttp, Peer::HaproxyTls];
    let versions = [
        tools.haproxy.as_deref().filter(|_| took_part(&haproxy)),
        tools.nginx.as_deref().filter(|_| took_part(&[Peer::Nginx])),
    ];
    let versions: Vec<&str> = versions.into_iter().flatten().collect();
    let _ = writeln!(
        text,
        "Written by `{}`. Medians of {repetitions} alternating runs; in brackets the least and the greatest. Compared \
         with: {}.\n",
        command(arguments),
        versions.join("; ")
    );
    for shows in [
        Shows::Cpu,
        Shows::Latency,
        Shows::Memory,
        Shows::SetUp,
        Shows::Stalled,
    ] {
        let mut rows = String::new();
        for (number, scenario) in SCENARIOS.iter().enumerate() {
            if scenario.shows == shows {
                rows.push_str(&block(results, number, scenario));
            }
        }
        if !rows.is_empty() {
            let _ = writeln!(text, "{}\n{rows}", head(shows));
        }
    }
    text.trim_end().to_owned() + "\n"
}

/// The command as somebody would type it again.
fn command(arguments: &[&str]) -> String {
    let mut command = "cargo xtask bench".to_owned();
    for argument in arguments {
        let _ = match argument.contains(' ') {
            true => write!(command, " \"{argument}\""),
            false => write!(command, " {argument}"),
        };
    }
    command
}

fn head(shows: Shows) -> &'static str {
    match shows {
        Shows::Cpu => {
            "### Processor time\n\n| | µs a frame | beside HAProxy | beside one recv + one send | KiB a busy session | % of a processor: relay, generator |\n|---|---|---|---|---|---|"
        }
        Shows::Latency => {
            "### Latency\n\n| | added p50 µs | added p99 µs | added p99.9 µs | µs of processor a frame |\n|---|---|---|---|---|"
        }
        Shows::Memory => {
            "### Memory\n\n| | KiB a session | beside HAProxy | MiB with all open | MiB after their end | sessions opened a second |\n|---|---|---|---|---|---|"
        }
        Shows::SetUp => "### Opening a session\n\n| | added p50 µs | added p99 µs |\n|---|---|---|",
        Shows::Stalled => {
            "### Clients that do not read\n\n| | KiB of memory a session | KiB of socket buffers a session, both peers' included | p99 µs of 50 neighbours before | beside them | ended by the relay | in seconds |\n|---|---|---|---|---|---|---|"
        }
    }
}

fn block(results: &Results, number: usize, scenario: &Scenario) -> String {
    let of = |peer: Peer| results.get(&(number, peer)).map(Vec::as_slice);
    let Some(baseline) = of(scenario.baseline) else {
        return String::new();
    };
    let floor = of(Peer::Floor);
    let direct = of(Peer::Direct);
    let columns = match scenario.shows {
        Shows::Cpu => 5,
        Shows::Latency => 4,
        Shows::Memory => 5,
        Shows::SetUp => 2,
        Shows::Stalled => 6,
    };
    let mut rows = format!("| **{}** |{}\n", scenario.title, " |".repeat(columns));
    for &peer in scenario.peers {
        let Some(found) = of(peer) else {
            continue;
        };
        let figure = |what: fn(&Found) -> f64| Spread::of(found.iter().map(what));
        let beside = |other: Option<&[Found]>, what: fn(&Found) -> f64| {
            other.map_or("–".to_owned(), |other| {
                let ratios = found
                    .iter()
                    .zip(other)
                    .map(|(one, other)| what(one) / what(other));
                Spread::of(ratios).ratio()
            })
        };
        let added = |what: fn(&Found) -> f64| {
            direct.map_or("–".to_owned(), |direct| {
                let added = found
                    .iter()
                    .zip(direct)
                    .map(|(one, direct)| what(one) - what(direct));
                Spread::of(added).whole()
            })
        };
        let name = match peer.is_ours() {
            true => format!("**{}**", peer.name()),
            false => peer.name().to_owned(),
        };
        let _ = match scenario.shows {
            Shows::Cpu => writeln!(
                rows,
                "| {name} | {} | {} | {} | {} | {:.0}, {:.0} |",
                figure(Found::cpu_us).tenth(),
                beside(Some(baseline), Found::cpu_us),
                beside(floor, Found::cpu_us),
                match peer {
                    Peer::Floor => "–".to_owned(),
                    _ => figure(busy_kib).tenth(),
                },
                figure(|found| found.shares().0).median,
                figure(|found| found.shares().1).median
            ),
            Shows::Latency if peer == Peer::Direct => writeln!(
                rows,
                "| {name}, not subtracted | {} | {} | {} | – |",
                figure(|found| found.latency.p50).whole(),
                figure(|found| found.latency.p99).whole(),
                figure(|found| found.latency.p999).whole()
            ),
            Shows::Latency => writeln!(
                rows,
                "| {name} | {} | {} | {} | {} |",
                added(|found| found.latency.p50),
                added(|found| found.latency.p99),
                added(|found| found.latency.p999),
                figure(Found::cpu_us).tenth()
            ),
            Shows::Memory if peer == Peer::Floor => Ok(()),
            Shows::Memory => writeln!(
                rows,
                "| {name} | {} | {} | {} | {} | {} |",
                figure(Found::session_kib).tenth(),
                beside(Some(baseline), Found::session_kib),
                figure(|found| found.resident_open_kib as f64 / 1024.0).tenth(),
                figure(|found| found.resident_after_kib as f64 / 1024.0).tenth(),
                figure(|found| found.sessions as f64 / found.set_up_seconds).whole()
            ),
            Shows::SetUp if peer == Peer::Direct => writeln!(
                rows,
                "| {name}, not subtracted | {} | {} |",
                figure(|found| found.set_up.p50).whole(),
                figure(|found| found.set_up.p99).whole()
            ),
            Shows::SetUp => writeln!(
                rows,
                "| {name} | {} | {} |",
                added(|found| found.set_up.p50),
                added(|found| found.set_up.p99)
            ),
            Shows::Stalled => writeln!(
                rows,
                "| {name} | {} | {} | {} | {} | {} | {} |",
                figure(Found::session_kib).tenth(),
                figure(|found| found.socket_kib as f64 / found.sessions as f64).whole(),
                figure(|found| found.quiet.p99).whole(),
                figure(|found| found.latency.p99).whole(),
                figure(|found| found.evicted as f64).whole(),
                match peer.is_ours() {
                    true => figure(|found| found.evicted_seconds).tenth(),
                    false => "–".to_owned(),
                }
            ),
        };
    }
    rows
}

fn busy_kib(found: &Found) -> f64 {
    let added = found
        .resident_busy_kib
        .saturating_sub(found.resident_before_kib);
    added as f64 / found.sessions as f64
}

/// The middle of some figures, and their ends.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Spread {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        let count = figures.len();
        let median = match count {
            0 => f64::NAN,
            _ if count % 2 == 1 => figures[count / 2],
            _ => f64::midpoint(figures[count / 2 - 1], figures[count / 2]),
        };
        Spread {
            median,
            least: figures.first().copied().unwrap_or(f64::NAN),
            greatest: figures.last().copied().unwrap_or(f64::NAN),
        }
    }

    fn ratio(self) -> String {
        format!(
            "{:.2}x ({:.2}–{:.2})",
            self.median, self.least, self.greatest
        )
    }

    fn tenth(self) -> String {
        format!(
            "{:.1} ({:.1}–{:.1})",
            self.median, self.least, self.greatest
        )
    }

    fn whole(self) -> String {
        format!(
            "{:.0} ({:.0}–{:.0})",
            self.median, self.least, self.greatest
        )
    }
}

/// The page with this table in the place of the last one.
///
/// # Errors
/// When the page has no place for it.
pub(crate) fn inserted(page: &str, table: &str) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .context("the page has no mark for the table")?;
    let (_, after) = rest
        .split_once(END)
        .context("the page has no end of the table")?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_figures() {
        let check = |figures: &[f64], expected| {
            assert_eq!(Spread::of(figures.iter().copied()).ratio(), expected);
        };
        check(&[1.0, 0.9, 1.1], "1.00x (0.90–1.10)");
        check(&[2.0, 1.0], "1.50x (1.00–2.00)");
    }

    #[test]
    fn a_command_is_written_as_it_is_typed() {
        let arguments = ["--write", "--peer", "HAProxy tcp"];
        assert_eq!(
            command(&arguments),
            "cargo xtask bench --write --peer \"HAProxy tcp\""
        );
    }

    #[test]
    fn a_table_takes_the_place_of_the_last_one() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = inserted(&page, "| new |\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\n| new |\n\n{END}\nb\n"));
        assert_eq!(inserted(&new, "| new |\n").unwrap(), new);
        assert!(inserted("nothing", "").is_err());
    }
}
