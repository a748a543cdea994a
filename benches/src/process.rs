//! What `/proc` says of the relay: processor time, memory, descriptors, of it and its children.

use std::fs;

/// A process and those that it started, in order.
#[must_use]
pub fn family(pid: u32) -> Vec<u32> {
    let mut pids = vec![pid];
    let mut at = 0;
    while let Some(&parent) = pids.get(at) {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.unwrap_or_default();
        pids.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        at += 1;
    }
    pids
}

/// Processor time in nanoseconds, as the scheduler counts it.
#[must_use]
pub fn cpu_nanoseconds(pids: &[u32]) -> u64 {
    pids.iter()
        .flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten())
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|line| line.split(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// User and system time, in the kernel's ticks of 10 ms.
#[must_use]
pub fn cpu_ticks(pids: &[u32]) -> (u64, u64) {
    let mut sum = (0, 0);
    for pid in pids {
        let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name may hold spaces; the fields after it do not.
        let fields: Vec<&str> = line.rsplit(')').next().unwrap_or_default().split(' ').collect();
        let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
        sum.0 += field(12).unwrap_or(0);
        sum.1 += field(13).unwrap_or(0);
    }
    sum
}

/// Resident memory in KiB.
#[must_use]
pub fn resident_kib(pids: &[u32]) -> u64 {
    pids.iter()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .filter_map(|status| {
            let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

/// Kernel memory of all TCP sockets of this network namespace, in KiB.
#[must_use]
pub fn socket_kib() -> u64 {
    let text = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("TCP:"));
    let pages = line.and_then(|line| line.split_whitespace().last()?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let own = [std::process::id()];
        assert!(family(own[0]).contains(&own[0]));
        assert!(resident_kib(&own) > 100);
        assert!(cpu_nanoseconds(&own) > 0);
        let (user, system) = cpu_ticks(&own);
        assert!(user + system < 100_000);
    }
}
