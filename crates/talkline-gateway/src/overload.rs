//! Notices that the process is about to run out of something, while there is still enough left for those who are
//! being served.
//!
//! Two budgets are not the relay's own: file descriptors (`RLIMIT_NOFILE`) and memory (the limit of its control
//! group, or one that was set). Who comes when one of them is nearly used up is turned away; what is left is for the
//! sessions that there are.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::places::Places;

/// How often the process looks at itself.
const INTERVAL: Duration = Duration::from_millis(500);
/// A budget's share that newcomers do not get.
const RESERVE: u64 = 10;
/// Most descriptors that they do not get: those of sessions are counted one by one, and look-ups of names, requests
/// for tokens and operators take no more than that.
const RESERVED_DESCRIPTORS_MAX: u64 = 100;
/// Descriptors of a session: one socket to each side.
const DESCRIPTORS_PER_SESSION: u64 = 2;

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Budget {
    Descriptors = 1,
    Memory = 2,
}

impl Budget {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Budget::Descriptors => "descriptors",
            Budget::Memory => "memory",
        }
    }
}

/// What the process may use, and what it uses. Zero stands for "not known".
#[derive(Clone, Debug)]
pub(crate) struct Pressure(Arc<State>);

#[derive(Debug)]
struct State {
    process: PathBuf,
    control_groups: PathBuf,
    /// Descriptors that are open beside those of clients' sessions and handshakes.
    other_descriptors: AtomicU64,
    descriptors_max: AtomicU64,
    resident_bytes: AtomicU64,
    group_bytes_max: AtomicU64,
    /// The budget that was exceeded when somebody last asked; 0 for none.
    last: AtomicU8,
}

/// What the process holds at the moment, as its owner knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) sessions: usize,
    /// Connections that are not sessions yet: one descriptor each, and another when they dial.
    pub(crate) handshakes: usize,
    /// The memory budget that is configured; zero for the control group's.
    pub(crate) memory_bytes_max: u64,
}

impl Load {
    fn descriptors(self) -> u64 {
        (self.sessions + self.handshakes) as u64 * DESCRIPTORS_PER_SESSION
    }
}

impl Pressure {
    /// Of this process. Where the system does not tell (it is not Linux), nothing is ever exceeded.
    pub(crate) fn new() -> Self {
        Self::at(Path::new("/proc/self"), Path::new("/sys/fs/cgroup"))
    }

    fn at(process: &Path, control_groups: &Path) -> Self {
        let pressure = Self(Arc::new(State {
            process: process.to_owned(),
            control_groups: control_groups.to_owned(),
            other_descriptors: AtomicU64::default(),
            descriptors_max: AtomicU64::default(),
            resident_bytes: AtomicU64::default(),
            group_bytes_max: AtomicU64::default(),
            last: AtomicU8::default(),
        }));
        pressure.look(|| 0);
        pressure
    }

    /// Looks at the process from time to time, for ever.
    pub(crate) async fn watch(self, sessions: Places, handshakes: Places) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (looker, sessions, handshakes) =
                (self.clone(), sessions.clone(), handshakes.clone());
            let served = move || {
                DESCRIPTORS_PER_SESSION * sessions.taken() as u64 + handshakes.taken() as u64
            };
            // Where the descriptors have to be listed, ten thousand of them take milliseconds.
            let looked = tokio::task::spawn_blocking(move || looker.look(served)).await;
            if let Err(error) = looked {
                warn!(%error, "the process could not look at itself");
            }
        }
    }

    /// Reads what the system says. What cannot be read is not known.
    ///
    /// `served` counts the descriptors of clients: those of sessions, and one of each handshake. It is asked last,
    /// so that who comes meanwhile is not taken for something else that needs descriptors for ever.
    fn look(&self, served: impl FnOnce() -> u64) {
        let state = &self.0;
        let read = |name: &str| fs::read_to_string(state.process.join(name)).unwrap_or_default();
        let open = open_files(&state.process.join("fd")).unwrap_or_default();
        let others = open.saturating_sub(served());
        let store = |to: &AtomicU64, value: Option<u64>| {
            to.store(value.unwrap_or_default(), Ordering::Relaxed);
        };
        store(&state.other_descriptors, Some(others));
        store(&state.descriptors_max, open_files_max(&read("limits")));
        store(&state.resident_bytes, resident_bytes(&read("status")));
        let group_max = group_bytes_max(&state.control_groups, &read("cgroup"));
        store(&state.group_bytes_max, group_max);
    }

    /// The budget that is nearly used up, if there is one. Says so in the log when that changes.
    pub(crate) fn exceeded(&self, load: Load) -> Option<Budget> {
        let exceeded = self.judge(load);
        let now = exceeded.map_or(0, |budget| budget as u8);
        if self.0.last.swap(now, Ordering::Relaxed) != now {
            match exceeded {
                Some(budget) => warn!(
                    budget = budget.as_str(),
                    sessions = load.sessions,
                    "a budget is nearly used up; new sessions are turned away"
                ),
                None => info!(
                    sessions = load.sessions,
                    "there is room again; new sessions are welcome"
                ),
            }
        }
        exceeded
    }

    fn judge(&self, load: Load) -> Option<Budget> {
        let state = &self.0;
        let of = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let descriptors = of(&state.other_descriptors) + load.descriptors();
        let descriptors_max = of(&state.descriptors_max);
        let reserve = (descriptors_max / RESERVE).min(RESERVED_DESCRIPTORS_MAX);
        if is_used_up(descriptors, descriptors_max, reserve) {
            return Some(Budget::Descriptors);
        }
        let memory_max = match load.memory_bytes_max {
            0 => of(&state.group_bytes_max),
            configured => configured,
        };
        let reserve = memory_max / RESERVE;
        is_used_up(of(&state.resident_bytes), memory_max, reserve).then_some(Budget::Memory)
    }
}

/// Whether a budget is used up but for the reserve; one that is not known is endless.
fn is_used_up(used: u64, max: u64, reserve: u64) -> bool {
    max > 0 && used >= (max - reserve).max(1)
}

/// How many entries `/proc/<pid>/fd` has.
fn open_files(folder: &Path) -> io::Result<u64> {
    // Since Linux 6.2 its size says so (proc_pid_fd(5)). Before, its size is zero; other file systems mean
    // something else by it.
    #[cfg(target_os = "linux")]
    if let size @ 1.. = fs::metadata(folder)?.len()
        && rustix::fs::statfs(folder)?.f_type == rustix::fs::PROC_SUPER_MAGIC
    {
        return Ok(size);
    }
    Ok(fs::read_dir(folder)?.count() as u64)
}

/// The soft limit in `/proc/<pid>/limits` (proc_pid_limits(5)).
fn open_files_max(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `VmRSS` in `/proc/<pid>/status` (proc_pid_status(5)), which is in kB.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// The least limit on the way from the process's control group to the root: `memory.max` of version 2,
/// `memory.limit_in_bytes` of version 1 (cgroups(7)).
fn group_bytes_max(root: &Path, membership: &str) -> Option<u64> {
    let limits = membership.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (root, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|each| each == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        let ancestors = group.ancestors().filter(|it| it.starts_with(&root));
        // Within a container the path is often the host's, and only the root is there.
        let limits = ancestors.filter_map(|it| fs::read_to_string(it.join(file)).ok());
        limits.filter_map(|text| text.trim().parse().ok()).min()
    });
    // Version 1 says "no limit" by a number close to 2^63.
    limits.min().filter(|&bytes: &u64| bytes < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that the tests write.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new(open: usize, files_max: &str, resident_kb: u64) -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(fake.process().join("fd")).unwrap();
            for number in 0..open {
                fs::write(fake.process().join("fd").join(number.to_string()), "").unwrap();
            }
            fake.write(
                "proc/limits",
                &format!(
                    "Limit  Soft Limit  Hard Limit  Units\nMax open files            {files_max}   99999  files\n"
                ),
            );
            fake.write(
                "proc/status",
                &format!("Name:\ttalkline\nVmRSS:\t  {resident_kb} kB\n"),
            );
            fake
        }

        fn process(&self) -> PathBuf {
            self.0.path().join("proc")
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn pressure(&self) -> Pressure {
            Pressure::at(&self.process(), &self.0.path().join("cgroup"))
        }
    }

    fn load(sessions: usize, handshakes: usize) -> Load {
        Load {
            sessions,
            handshakes,
            memory_bytes_max: 0,
        }
    }

    #[test]
    fn descriptors_are_counted_between_looks() {
        let fake = Fake::new(20, "100", 0);
        let pressure = fake.pressure();
        assert_eq!(pressure.exceeded(load(30, 4)), None);
        assert_eq!(pressure.exceeded(load(30, 5)), Some(Budget::Descriptors));
        assert_eq!(pressure.exceeded(load(35, 0)), Some(Budget::Descriptors));
        assert_eq!(pressure.exceeded(load(34, 0)), None);
        // Ten of the twenty belong to five sessions, which must not count twice.
        pressure.look(|| 10);
        assert_eq!(pressure.exceeded(load(39, 0)), None);
        assert_eq!(pressure.exceeded(load(40, 0)), Some(Budget::Descriptors));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_coming_in_is_counted_once() {
        let fake = Fake::new(20, "100", 0);
        let pressure = fake.pressure();
        let (sessions, handshakes) = (Places::default(), Places::default());
        let watching = pressure.clone().watch(sessions.clone(), handshakes.clone());
        let mut held = Vec::new();
        // They come after the watch has begun. Four descriptors belong to others.
        held.extend((0..6).filter_map(|_| sessions.take(usize::MAX)));
        held.extend((0..4).filter_map(|_| handshakes.take(usize::MAX)));
        let _ = tokio::time::timeout(INTERVAL * 3, watching).await;
        assert_eq!(pressure.0.other_descriptors.load(Ordering::Relaxed), 4);
        assert_eq!(pressure.exceeded(load(38, 4)), None);
        assert_eq!(pressure.exceeded(load(38, 5)), Some(Budget::Descriptors));
    }

    #[test]
    fn of_many_descriptors_a_hundred_are_kept() {
        let fake = Fake::new(0, "20000", 0);
        let pressure = fake.pressure();
        assert_eq!(pressure.exceeded(load(9_940, 9)), None);
        assert_eq!(
            pressure.exceeded(load(9_940, 10)),
            Some(Budget::Descriptors)
        );
    }

    #[test]
    fn the_size_of_the_folder_is_the_number_of_descriptors() {
        let folder = Path::new("/proc/self/fd");
        // Other tests of this process open files meanwhile.
        let agrees = (0..1000).any(|_| {
            let listed = fs::read_dir(folder).unwrap().count() as u64;
            // The listing holds one of its own.
            open_files(folder).unwrap().abs_diff(listed) <= 1
        });
        assert!(agrees);
    }

    #[test]
    fn memory_is_the_groups_unless_it_is_set() {
        const MIB: u64 = 1 << 20;
        let fake = Fake::new(3, "unlimited", 95 * 1024);
        let check = |groups: &[(&str, &str)], membership: &str, configured: u64, expected| {
            for (name, limit) in groups {
                fake.write(&format!("cgroup/{name}"), limit);
            }
            fake.write("proc/cgroup", membership);
            let load = Load {
                memory_bytes_max: configured,
                ..load(1, 1)
            };
            assert_eq!(
                fake.pressure().exceeded(load),
                expected,
                "{groups:?} {membership} {configured}"
            );
            let _ = fs::remove_dir_all(fake.0.path().join("cgroup"));
        };
        let v2 = "0::/kubepods/pod7\n";
        let hundred = "104857600\n";
        check(&[], "", 0, None);
        check(&[("kubepods/pod7/memory.max", "max\n")], v2, 0, None);
        check(
            &[("kubepods/pod7/memory.max", hundred)],
            v2,
            0,
            Some(Budget::Memory),
        );
        check(
            &[
                ("kubepods/pod7/memory.max", "max\n"),
                ("kubepods/memory.max", hundred),
            ],
            v2,
            0,
            Some(Budget::Memory),
        );
        check(&[("memory.max", hundred)], v2, 0, Some(Budget::Memory));
        check(&[("memory.max", hundred)], v2, 200 * MIB, None);
        check(&[], v2, 100 * MIB, Some(Budget::Memory));
        check(&[], v2, 110 * MIB, None);
        let v1 = "12:cpu,cpuacct:/\n9:memory:/docker/1\n";
        check(
            &[("memory/docker/1/memory.limit_in_bytes", hundred)],
            v1,
            0,
            Some(Budget::Memory),
        );
        let unlimited = "9223372036854771712\n";
        check(&[("memory/memory.limit_in_bytes", unlimited)], v1, 0, None);
    }

    #[test]
    fn a_system_that_tells_nothing_has_endless_budgets() {
        let nowhere = Path::new("/nonexistent");
        let pressure = Pressure::at(nowhere, nowhere);
        assert_eq!(pressure.exceeded(load(1_000_000, 0)), None);
    }

    #[test]
    fn this_process_has_descriptors_and_memory() {
        let pressure = Pressure::new();
        assert!(pressure.0.other_descriptors.load(Ordering::Relaxed) > 0);
        assert!(pressure.0.resident_bytes.load(Ordering::Relaxed) > 1 << 20);
    }
}
