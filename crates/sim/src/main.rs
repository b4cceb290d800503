//! Runs seeds of the simulated cluster, each twice:
//!
//!     mobula-sim --seeds 200 [--from 0]     many, with the end of the trace of each that fails
//!     mobula-sim --seed 17                  one, with its whole trace
//!     mobula-sim --once --seeds 200         many, each once: to look for failures in half the time
//!     mobula-sim --compare 17               one twice: where do the two traces part?
//!     mobula-sim --pairs                    every pair of the messages of small pieces of work broken off
//!
//! A process runs one seed at a time, since two would share tokio's counter of tasks; so many seeds
//! are spread over several processes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};

use mobula_sim::{Failure, Keep, Piece, Report, compare, pairs, run, run_piece};

/// A run allocates much: the system's allocator took an eighth of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    let given = |name: &str| args.iter().any(|arg| arg == name);
    if given("--pairs") {
        return match (value("--part"), value("--parts")) {
            (Some(part), Some(parts)) => break_pairs(part as usize, parts as usize),
            _ => break_all_pairs(),
        };
    }
    let Some(seeds) = value("--seeds") else {
        eprintln!("usage: mobula-sim [--once] --seeds N [--from N] | --seed N | --compare N | --pairs");
        return ExitCode::from(2);
    };
    let from = value("--from").unwrap_or(0);
    let times = if given("--once") { Times::Once } else { Times::Twice };
    match value("--step") {
        Some(step) => work(from, seeds, step, times),
        None => many(from, seeds, times),
    }
}

/// How often each seed is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    /// The same seed leaves the same trace.
    Twice,
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

/// Spreads the pairs over processes, one a core.
fn break_all_pairs() -> ExitCode {
    let parts = cores();
    let workers: Vec<_> = (0..parts)
        .map(|part| {
            let args = ["--pairs", "--part", &part.to_string(), "--parts", &parts.to_string()];
            Command::new(std::env::current_exe()?).args(args).spawn()
        })
        .collect();
    let ended = workers.into_iter().map(|worker| worker.and_then(|mut worker| worker.wait()));
    let well: Vec<bool> = ended.map(|ended| ended.is_ok_and(|status| status.success())).collect();
    if well.into_iter().all(|well| well) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One of so many parts of all pairs.
fn break_pairs(part: usize, parts: usize) -> ExitCode {
    let mut failed = 0;
    for piece in Piece::ALL {
        let clean = match run_piece(piece, &[], Keep::Lines) {
            Ok((messages, true)) => messages,
            Ok((_, false)) => {
                println!("{piece}: FAILED without a fault: not all was acknowledged");
                return ExitCode::FAILURE;
            }
            Err(failure) => {
                println!("{piece}: FAILED without a fault: {}\n  {}", failure.why, failure.last.join("\n  "));
                return ExitCode::FAILURE;
            }
        };
        let all = pairs(&clean);
        let (mut runs, mut whole) = (0, 0);
        for victims in all.iter().skip(part).step_by(parts) {
            runs += 1;
            match run_piece(piece, victims, Keep::Lines) {
                Ok((_, acknowledged)) => whole += usize::from(acknowledged),
                Err(failure) => {
                    failed += 1;
                    let named: Vec<_> = victims.iter().map(ToString::to_string).collect();
                    println!("{piece} without {}: FAILED: {}", named.join(" and "), failure.why);
                }
            }
        }
        println!(
            "{piece}: {} messages, {runs} of {} pairs and singles broken off, all acknowledged in {whole}",
            clean.len(),
            all.len()
        );
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
fn many(from: u64, seeds: u64, times: Times) -> ExitCode {
    let workers = cores();
    let failed = std::thread::scope(|scope| {
        let watching: Vec<_> = (0..workers)
            .map(|worker| scope.spawn(move || watch(from + worker, from + seeds, workers, times)))
            .collect();
        watching.into_iter().map(|watching| watching.join().unwrap_or(1)).sum::<u64>()
    });
    println!("{} passed, {failed} failed", seeds.saturating_sub(failed));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Watches over a worker for `from`, `from + step` and so on; answers how many seeds failed. A worker
/// that dies takes only the seed in hand with it.
fn watch(mut from: u64, end: u64, step: u64, times: Times) -> u64 {
    let mut failed = 0;
    while from < end {
        let mut worker = match worker(from, end - from, step, times) {
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

fn worker(from: u64, seeds: u64, step: u64, times: Times) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["--from", &from.to_string(), "--seeds", &seeds.to_string(), "--step", &step.to_string()])
        .args((times == Times::Once).then_some("--once"))
        .stdout(Stdio::piped())
        .spawn()
}

fn work(from: u64, seeds: u64, step: u64, times: Times) -> ExitCode {
    for seed in (from..from + seeds).step_by(step as usize) {
        println!("{BEGIN}{seed}");
        let done = if times == Times::Once { run(seed, Keep::Lines) } else { twice(seed) };
        if let Err(failure) = done {
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
