//! What a proposal costs with one voter, on real files: latency one by one, then throughput, CPU and
//! syncs with many in flight.
//!
//!     cargo run --release -p mobula-raft --example propose [FOLDER]
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mobula_disk::RealDisk;
use mobula_net::Env;
use mobula_raft::{Committed, Leadership, Machine, MachineError, Payload, Position, Raft, RaftOptions};

/// Does nothing but remember where it is.
struct Nothing(Option<Position>);

impl Machine for Nothing {
    type Command = Vec<u8>;
    type Outcome = usize;

    fn applied(&self) -> (Option<Position>, Option<Vec<u8>>) {
        (None, None)
    }

    fn apply(&mut self, entries: Vec<Committed<Vec<u8>>>) -> Result<Vec<Option<usize>>, MachineError> {
        self.0 = entries.last().map(|entry| entry.position);
        let outcome = |entry: Committed<Vec<u8>>| match entry.payload {
            Payload::Command(bytes) => Some(bytes.len()),
            _ => None,
        };
        Ok(entries.into_iter().map(outcome).collect())
    }

    fn sync(&mut self) -> Result<Option<Position>, MachineError> {
        Ok(self.0)
    }

    fn write_snapshot(&self, _: &mut dyn Write) -> Result<(), MachineError> {
        Ok(())
    }

    fn restore(&mut self, _: &mut dyn Read, _: Position, _: Option<Vec<u8>>) -> Result<(), MachineError> {
        Ok(())
    }
}

/// CPU time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

async fn flood(raft: &Raft<Nothing>, tasks: usize, each: usize, bytes: usize) {
    let (before, start) = (cpu(), Instant::now());
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let raft = raft.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    raft.propose(vec![7; bytes]).await.unwrap();
                }
            })
        })
        .collect();
    let count = (tasks.len() * each) as u32;
    let width = tasks.len();
    for task in tasks {
        task.await.unwrap();
    }
    let took = start.elapsed();
    println!(
        "{width:4} in flight, {bytes:5} bytes: {:8.0}/s, {:7.1} us each, {:6.2} us CPU each",
        f64::from(count) / took.as_secs_f64(),
        took.as_secs_f64() * 1e6 * width as f64 / f64::from(count),
        (cpu() - before).as_secs_f64() * 1e6 / f64::from(count),
    );
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("mobula-propose-{}", std::process::id()));
    let start = Instant::now();
    let disk = RealDisk::new();
    let raft =
        Raft::start(&Env::real(), disk, folder.clone(), RaftOptions::alone(1), Nothing(None)).await.unwrap();
    raft.leadership().wait_for(Leadership::is_ready).await.unwrap();
    println!("ready after {:?}", start.elapsed());
    flood(&raft, 1, 2000, 200).await;
    flood(&raft, 8, 2000, 200).await;
    flood(&raft, 64, 2000, 200).await;
    flood(&raft, 512, 500, 200).await;
    flood(&raft, 8, 1000, 10_000).await;
    let before = cpu();
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("idle for 5 s: {:?} CPU", cpu() - before);
    raft.shutdown().await;
    std::fs::remove_dir_all(folder).unwrap();
}
