//! The tasks that nobody asks for: the fleet's ticks, leases that ran out, trees to be reaped,
//! access times. Each gives way to the others after a bounded piece of work.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mobula_namespace::Operation;
use mobula_raft::Leadership;
use mobula_types::Millis;
use tokio::sync::watch;

use crate::leases::Leases;
use crate::service::Service;

/// How often leases are looked at (HDFS: `NAMENODE_LEASE_RECHECK_INTERVAL_MS`).
const LEASE_CHECK_MS: u64 = 2_000;
/// How often the log's time is looked at.
const TIME_CHECK_MS: u64 = 3_600_000;
/// A log whose time is older is told the time.
const TIME_AGE_MAX: Millis = Millis(12 * 3_600_000);
/// Inodes that one command reaps: some milliseconds of the applying thread.
const REAP_INODES: u32 = 2_000;
/// Access times in one command.
const TOUCHES_PER_COMMAND: usize = 4_096;

/// Ticks the fleet, for as long as the NameNode lives.
pub async fn heal(service: Arc<Service>) {
    let mut tick = interval(service.config.tick);
    loop {
        tick.tick().await;
        service.roster.tell(|fleet, now, table| fleet.tick(now, table));
    }
}

fn interval(period: std::time::Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    interval
}

/// Goes into safe mode when the log's disk is low on room, and out of it when it is no more (HDFS:
/// `NameNodeResourceMonitor`).
pub async fn watch_room(service: Arc<Service>) {
    let mut check = interval(service.config.room_check);
    loop {
        check.tick().await;
        service.check_room().await;
    }
}

/// Keeps the log's time near the clock while nobody asks for anything: it takes a jump of a day at most.
pub async fn keep_time(service: Arc<Service>) {
    let mut check = interval(std::time::Duration::from_millis(TIME_CHECK_MS));
    loop {
        check.tick().await;
        if service.check_leads().is_err() {
            continue;
        }
        let now = service.time();
        if now.since(service.view.load().log_time()) < TIME_AGE_MAX {
            continue;
        }
        let empty = mobula_namespace::Batch { time: now, commands: Vec::new() };
        if let Err(error) = service.raft.propose(empty).await {
            tracing::warn!(%error, "the time could not be logged");
        }
    }
}

/// Follows the log's leadership: a new leader starts every lease's clock again and orders nothing
/// before full reports have come (D12, D15).
pub async fn follow_leadership(service: Arc<Service>, mut leadership: watch::Receiver<Leadership>) {
    // It led before it served.
    resume(&service);
    loop {
        let leads = leadership.borrow_and_update().is_ready();
        if service.leads.swap(leads, Ordering::AcqRel) != leads {
            tracing::info!(leads, "leadership changed");
            if leads {
                *service.leases.lock() = Leases::new(service.monotonic());
            }
            service.roster.tell(|fleet, now, _| if leads { fleet.lead(now) } else { fleet.follow() });
            if leads {
                resume(&service);
            }
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

fn resume(service: &Service) {
    match service.resume_recoveries() {
        Ok(0) => {}
        Ok(recoveries) => tracing::info!(recoveries, "block recoveries go on"),
        Err(refusal) => tracing::warn!(%refusal, "running recoveries could not be read"),
    }
}

/// Takes the leases of files whose writer has been silent beyond the hard limit.
pub async fn expire_leases(service: Arc<Service>) {
    let mut check = interval(std::time::Duration::from_millis(LEASE_CHECK_MS));
    loop {
        check.tick().await;
        if service.check_leads().is_err() || service.in_safe_mode() {
            continue;
        }
        if let Err(refusal) = service.expire_leases().await {
            tracing::warn!(%refusal, "leases that ran out could not be released");
        }
    }
}

/// Repeats block recoveries that came to nothing.
pub async fn recover(service: Arc<Service>) {
    let mut tick = interval(service.config.tick);
    loop {
        tick.tick().await;
        if service.check_leads().is_ok() && !service.in_safe_mode() {
            service.retry_recoveries().await;
        }
    }
}

/// Removes deleted trees piece by piece, and writes access times. Commands of users get in between:
/// the next piece is only asked for when the last one is done.
pub async fn reap(service: Arc<Service>) {
    let mut tick = interval(service.config.tick);
    loop {
        tick.tick().await;
        if service.check_leads().is_err() || service.in_safe_mode() {
            continue;
        }
        while service.view.load().counts().pending_reap > 0 {
            if let Err(refusal) = service.execute_own(Operation::Reap { inodes: REAP_INODES }).await {
                tracing::warn!(%refusal, "a deleted tree could not be reaped");
                break;
            }
            tokio::task::yield_now().await;
        }
        let accesses = service.access_times.take(TOUCHES_PER_COMMAND);
        if !accesses.is_empty() {
            // Lost with a crash or a refusal, as in HDFS, which does not sync them either.
            _ = service.execute_own(Operation::Touch { accesses }).await;
        }
    }
}
