//! Counts operations, their latencies and the CPU time that processes spend on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::report::Row;

/// CPU time from a moment on: of the server, of the DataNodes and of this process.
#[derive(Debug)]
pub(super) struct CpuMeter {
    server: Option<(u32, f64)>,
    datanodes: Vec<(u32, f64)>,
    own: f64,
    started: Instant,
}

/// What was used since the meter's start, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) wall_s: f64,
    pub(super) server_s: Option<f64>,
    pub(super) datanodes_s: Option<f64>,
    pub(super) own_s: f64,
}

impl CpuMeter {
    pub(super) fn start(server: Option<u32>, datanodes: &[u32]) -> CpuMeter {
        let at = |pid: u32| (pid, cpu_seconds(&pid.to_string()).unwrap_or(f64::NAN));
        CpuMeter {
            server: server.map(at),
            datanodes: datanodes.iter().copied().map(at).collect(),
            own: cpu_seconds("self").unwrap_or(f64::NAN),
            started: Instant::now(),
        }
    }

    pub(super) fn used(&self) -> Used {
        let since = |(pid, start): &(u32, f64)| cpu_seconds(&pid.to_string()).map(|now| now - start);
        let wall_s = self.started.elapsed().as_secs_f64();
        let datanodes: Option<Vec<f64>> = self.datanodes.iter().map(since).collect();
        Used {
            wall_s,
            server_s: self.server.as_ref().and_then(since),
            datanodes_s: datanodes.filter(|list| !list.is_empty()).map(|list| list.iter().sum()),
            own_s: cpu_seconds("self").unwrap_or(f64::NAN) - self.own,
        }
    }
}

/// User and system time of a process, in seconds, in steps of the kernel's tick (10 ms); `None` if it
/// cannot be read.
fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may hold anything; after it, fields 14 and 15 are utime and stime.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<f64>().ok()? + fields.next()?.parse::<f64>().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Some(ticks / per_second as f64)
}

/// Resident memory of a process in bytes.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Latencies of operations.
#[derive(Debug, Default)]
pub(super) struct Latencies(Vec<u32>);

impl Latencies {
    pub(super) fn add(&mut self, latency: Duration) {
        self.0.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub(super) fn merge(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }

    pub(super) fn sort(&mut self) {
        self.0.sort_unstable();
    }

    /// The latency that `share` of the operations did not exceed, in microseconds. Sorted only.
    pub(super) fn quantile_us(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = ((self.0.len() as f64 * share).ceil() as usize).saturating_sub(1).min(last);
        self.0.get(at).copied().map_or(f64::NAN, f64::from)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Runs `operation` for each number below `count`, `in_flight` of them at any time, and measures.
pub(super) async fn measure<F>(
    name: &str,
    count: usize,
    in_flight: usize,
    cpu: CpuMeter,
    operation: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<Row>
where
    F: Future<Output = Result<()>> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..in_flight.clamp(1, count.max(1)) {
        let (next, operation) = (next.clone(), operation.clone());
        workers.spawn(async move {
            let mut latencies = Latencies::default();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return anyhow::Ok(latencies);
                }
                let started = Instant::now();
                operation(index).await?;
                latencies.add(started.elapsed());
            }
        });
    }
    let mut all = Latencies::default();
    while let Some(worker) = workers.join_next().await {
        let latencies = worker.context("a worker panicked")?;
        all.merge(latencies.with_context(|| format!("in {name}"))?);
    }
    let used = cpu.used();
    all.sort();
    Ok(Row::of_operations(name, &all, used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_latencies() {
        let mut latencies = Latencies::default();
        (1..=1000).rev().for_each(|us| latencies.add(Duration::from_micros(us)));
        latencies.sort();
        assert_eq!(latencies.quantile_us(0.5), 500.0);
        assert_eq!(latencies.quantile_us(0.99), 990.0);
        assert_eq!(latencies.quantile_us(1.0), 1000.0);
        assert!(Latencies::default().quantile_us(0.5).is_nan());
    }

    #[test]
    fn this_process_has_used_some_cpu_and_memory() {
        assert!(cpu_seconds("self").is_some_and(|seconds| seconds >= 0.0));
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(cpu_seconds("0"), None);
    }

    #[tokio::test]
    async fn every_operation_runs_once() {
        let seen = Arc::new(parking_lot::Mutex::new(std::collections::BTreeSet::new()));
        let cpu = CpuMeter::start(None, &[]);
        let copy = seen.clone();
        let operation = move |index| {
            let seen = copy.clone();
            async move {
                anyhow::ensure!(seen.lock().insert(index), "twice");
                Ok(())
            }
        };
        let row = measure("x", 1000, 7, cpu, operation).await.expect("no operation fails");
        assert_eq!((seen.lock().len(), row.operations), (1000, 1000));
    }
}
