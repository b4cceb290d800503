//! Runs seeds of the simulated cluster, each twice:
//!
//!     mobula-sim --seeds 200 [--from 0]     many, with the end of the trace of each that fails
//!     mobula-sim --seed 17                  one, with its whole trace
//!     mobula-sim --compare 17               one twice: where do the two traces part?
//!
//! A process runs one seed at a time, since two would share tokio's counter of tasks; so many seeds
//! are spread over several processes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};

use mobula_sim::{Failure, Keep, Report, compare, run};

/// What a worker says before each seed, and after one that failed.
const BEGIN: &str = "begin ";
const FAILED: &str = "failed";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)?.parse::<u64>().ok()
    };
    if let Some(seed) = value("--seed") {
        return one(seed);
    }
    if let Some(seed) = value("--compare") {
        let apart = compare(seed);
        println!("{}", apart.as_deref().unwrap_or("the same"));
        return if apart.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let Some(seeds) = value("--seeds") else {
        eprintln!("usage: mobula-sim --seeds N [--from N] | --seed N | --compare N");
        return ExitCode::from(2);
    };
    let from = value("--from").unwrap_or(0);
    match value("--step") {
        Some(step) => work(from, seeds, step),
        None => many(from, seeds),
    }
}

fn one(seed: u64) -> ExitCode {
    match run(seed, Keep::Print) {
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

/// Spreads the seeds over processes, one a core.
fn many(from: u64, seeds: u64) -> ExitCode {
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let failed = std::thread::scope(|scope| {
        let watching: Vec<_> = (0..workers)
            .map(|worker| scope.spawn(move || watch(from + worker, from + seeds, workers)))
            .collect();
        watching.into_iter().map(|watching| watching.join().unwrap_or(1)).sum::<u64>()
    });
    println!("{} passed, {failed} failed", seeds.saturating_sub(failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Watches over a worker for `from`, `from + step` and so on; answers how many seeds failed. A worker
/// that dies takes only the seed in hand with it.
fn watch(mut from: u64, end: u64, step: u64) -> u64 {
    let mut failed = 0;
    while from < end {
        let mut worker = match worker(from, end - from, step) {
            Ok(worker) => worker,
            Err(error) => {
                println!("no worker: {error}");
                return failed + (end - from).div_ceil(step);
            }
        };
        let mut current = from;
        let lines = worker.stdout.take().map(BufReader::new);
        for line in lines.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
            match line.strip_prefix(BEGIN).map(str::parse) {
                Some(Ok(seed)) => current = seed,
                _ if line == FAILED => failed += 1,
                _ => println!("{line}"),
            }
        }
        if worker.wait().is_ok_and(|status| status.success()) {
            break;
        }
        println!("seed {current} FAILED: its process died");
        failed += 1;
        from = current + step;
    }
    failed
}

fn worker(from: u64, seeds: u64, step: u64) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["--from", &from.to_string(), "--seeds", &seeds.to_string(), "--step", &step.to_string()])
        .stdout(Stdio::piped())
        .spawn()
}

fn work(from: u64, seeds: u64, step: u64) -> ExitCode {
    for seed in (from..from + seeds).step_by(step as usize) {
        println!("{BEGIN}{seed}");
        if let Err(failure) = twice(seed) {
            println!("seed {seed} FAILED: {}\n  {}", failure.why, failure.last.join("\n  "));
            println!("{FAILED}");
        }
    }
    ExitCode::SUCCESS
}

/// The same seed leaves the same trace.
fn twice(seed: u64) -> Result<Report, Box<Failure>> {
    let (first, second) = (run(seed, Keep::Last)?, run(seed, Keep::Last)?);
    if first != second {
        let apart = compare(seed).unwrap_or_else(|| "two more did not".into());
        let why = format!("two runs differ: {first:?} and {second:?}: {apart}");
        return Err(Box::new(Failure { seed, why, last: Vec::new() }));
    }
    Ok(first)
}
