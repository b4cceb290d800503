//! Runs seeds of the simulated cluster, each twice:
//!
//!     mobula-sim --seeds 200 [--from 0]     many, a line for each failure
//!     mobula-sim --seed 17                  one, with its whole trace

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use mobula_sim::{Failure, Report, run};

/// Seeds at once: each needs a thread of its own and no more.
const THREADS: usize = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = value("--seed") {
        return one(seed);
    }
    let Some(seeds) = value("--seeds") else {
        eprintln!("usage: mobula-sim --seeds N [--from N] | --seed N");
        return ExitCode::from(2);
    };
    many(value("--from").unwrap_or(0), seeds)
}

fn one(seed: u64) -> ExitCode {
    match run(seed, true) {
        Ok(report) => {
            println!("seed {seed}: {report:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("seed {seed}: {}", failure.why);
            ExitCode::FAILURE
        }
    }
}

fn many(from: u64, seeds: u64) -> ExitCode {
    let (next, failed) = (AtomicU64::new(from), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    if let Err(failure) = twice(seed) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("seed {seed} FAILED: {}\n  {}", failure.why, failure.last.join("\n  "));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{} passed, {failed} failed", seeds - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same seed leaves the same trace.
fn twice(seed: u64) -> Result<Report, Box<Failure>> {
    let (first, second) = (run(seed, false)?, run(seed, false)?);
    if first != second {
        let why = format!("two runs differ: {first:?} and {second:?}");
        return Err(Box::new(Failure { seed, why, last: Vec::new() }));
    }
    Ok(first)
}
