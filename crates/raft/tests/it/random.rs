//! Any order of what can happen to a lone voter: proposals and syncs at the same time, calls that fail, a full disk, kills and
//! power losses, also in the middle of a start. All are answered, and what was applied once is there for good, in its place.
//!
//! `MOBULA_SEED=<seed>` runs one seed, `MOBULA_SEEDS=<count>` so many, from `MOBULA_FROM` on.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use mobula_disk::fake::{CallKind, Crash, CrashDisk};
use mobula_raft::{Leadership, ProposeError, Raft, RaftOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::fixture::{Seen, Toy, run, start};

const SEEDS: u64 = 60;
const STEPS: usize = 40;
/// Numbers in a command: a record shorter and longer than a block of the disk, than a segment, than what is cached.
const SIZES: [u64; 9] = [1, 1, 1, 2, 2, 60, 60, 460, 2_000];
/// Longer, in virtual time, than anything takes that is answered at all.
const LIMIT: Duration = Duration::from_secs(300);

struct Life {
    seed: u64,
    rng: StdRng,
    disk: CrashDisk,
    raft: Option<(Raft<Toy>, Seen)>,
    /// The next number; none comes twice.
    next: u64,
    /// What was applied before, in its order.
    there: Vec<u64>,
    fails: bool,
    log: Vec<String>,
}

impl Life {
    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.random_range(0..of.len())]
    }

    fn command(&mut self) -> Vec<u64> {
        let from = self.next;
        self.next += self.one_of(&SIZES);
        // Each takes nine bytes.
        (from..self.next).map(|number| number | 1 << 62).collect()
    }

    /// Whether it leads, which it does unless calls fail.
    async fn start(&mut self) -> bool {
        let options = RaftOptions {
            segment_bytes: self.one_of(&[1 << 10, 4 << 10, 64 << 10, 1 << 20]),
            cache_bytes: self.one_of(&[0, 1 << 10, 1 << 20]),
            sync_every_bytes: self.one_of(&[1 << 10, 1 << 30]),
            sync_every_commands: self.one_of(&[10, 500, u64::MAX]),
            keep_entries: self.one_of(&[0, 0, 7]),
            ..RaftOptions::alone(1)
        };
        let Ok((raft, seen)) = start(&self.disk.process(), options).await else { return false };
        let (mut stopped, mut leadership) = (raft.stopped(), raft.leadership());
        let led = tokio::select! {
            biased;
            _ = stopped.wait_for(Option::is_some) => false,
            led = tokio::time::timeout(LIMIT, leadership.wait_for(Leadership::is_ready)) => {
                led.expect("it leads or stops").is_ok()
            }
        };
        self.look(&seen);
        self.raft = Some((raft, seen));
        led
    }

    /// What was applied is a continuation of what was applied before.
    fn look(&mut self, seen: &Seen) {
        let all = seen.0.lock();
        // Until a start has replayed the log it may be less.
        let both = all.len().min(self.there.len());
        assert!(all[..both] == self.there[..both], "other numbers than before");
        self.there.extend_from_slice(&all[both..]);
    }

    async fn propose(&mut self) {
        let Some((raft, seen)) = self.raft.clone() else { return };
        let mut asked = Vec::new();
        for _ in 0..self.rng.random_range(1..12) {
            let (raft, command) = (raft.clone(), self.command());
            let compacts = self.rng.random_ratio(1, 10);
            let pause = Duration::from_micros(self.one_of(&[0, 0, 1, 50, 5_000]));
            asked.push(tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                if compacts {
                    let done = tokio::time::timeout(LIMIT, raft.compact_now()).await;
                    let done = done.expect("a sync is answered");
                    return (Vec::new(), done.map(|()| Vec::new()));
                }
                let done = tokio::time::timeout(LIMIT, raft.propose(command.clone())).await;
                (command, done.expect("a proposal is answered"))
            }));
        }
        let (mut acknowledged, mut refused) = (0, 0);
        let mut answers = Vec::new();
        for one in asked {
            answers.push(one.await.unwrap());
        }
        self.look(&seen);
        for (command, done) in answers {
            match done {
                Ok(places) => {
                    acknowledged += 1;
                    for (number, at) in command.iter().zip(places) {
                        assert_eq!(self.there.get(at), Some(number), "it was acknowledged at {at}");
                    }
                }
                Err(ProposeError::Stopped { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
        self.log.push(format!("{acknowledged} acknowledged, {refused} refused, call {}", self.disk.calls()));
        assert!(refused == 0 || self.fails && raft.stopped().borrow().is_some());
    }

    /// Lets calls fail from now on: one, some, or all that follow; or the disk gets full.
    fn fail(&mut self) {
        let after = self.rng.random_range(0..60);
        let error = self.one_of(&[ErrorKind::Other, ErrorKind::StorageFull]);
        let count = self.one_of(&[1, 1, 5, u64::MAX]);
        self.log.push(format!("{count} calls fail from {} with {error:?}", self.disk.calls() + after));
        self.fail_calls(after, count, error);
        self.fails = true;
    }

    fn fail_calls(&self, after: u64, count: u64, error: ErrorKind) {
        self.disk.fail_calls(after, count, error, |call| {
            // The machine of these tests cannot be opened without its folder.
            let opens = matches!(call.kind, CallKind::Open | CallKind::Look | CallKind::Read);
            call.path != Path::new("/toy") && !(opens && call.path.starts_with("/toy"))
        });
    }

    async fn end(&mut self) {
        let how = self.rng.random_range(0..6);
        self.log.push(format!("ends: {how}, call {}, {} are there", self.disk.calls(), self.there.len()));
        if let Some((raft, seen)) = self.raft.take() {
            if how == 0 {
                tokio::time::timeout(LIMIT, raft.shutdown()).await.expect("it ends");
            }
            self.look(&seen);
        }
        self.disk.set_fault(None);
        self.disk.crash(if how < 3 { Crash::Kill } else { Crash::PowerLoss });
    }

    /// Ends it, perhaps again in the middle of its start, and starts it.
    async fn again(&mut self) {
        self.end().await;
        for _ in 0..self.rng.random_range(0..3) {
            if self.rng.random() {
                let after = self.rng.random_range(0..40);
                let count = self.one_of(&[1, u64::MAX]);
                self.fail_calls(after, count, ErrorKind::Other);
            }
            let led = self.start().await;
            self.log.push(format!("a start; it led: {led}"));
            self.end().await;
        }
        assert!(self.start().await, "nothing fails");
        self.fails = false;
        let seen = self.raft.as_ref().unwrap().1.all();
        assert_eq!(seen.len(), self.there.len(), "what was applied before");
    }

    async fn run(&mut self) {
        assert!(self.start().await, "nothing fails");
        for _ in 0..STEPS {
            let stopped = self.raft.as_ref().is_some_and(|(raft, _)| raft.stopped().borrow().is_some());
            match self.rng.random_range(0..12) {
                0 => self.again().await,
                1 => self.fail(),
                _ if stopped => self.again().await,
                _ => self.propose().await,
            }
        }
        self.again().await;
    }
}

/// Says what happened if it fails.
impl Drop for Life {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("MOBULA_SEED={}\n{}", self.seed, self.log.join("\n"));
        }
    }
}

#[test]
fn whatever_happens_what_was_applied_stays() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let from = number("MOBULA_FROM").unwrap_or(0);
    let seeds = match number("MOBULA_SEED") {
        Some(seed) => seed..seed + 1,
        None => from..from + number("MOBULA_SEEDS").unwrap_or(SEEDS),
    };
    let mut applied = 0;
    for seed in seeds {
        run(async {
            let mut life = Life {
                seed,
                rng: StdRng::seed_from_u64(seed),
                disk: CrashDisk::new(seed),
                raft: None,
                next: 0,
                there: Vec::new(),
                fails: false,
                log: Vec::new(),
            };
            life.run().await;
            applied += life.there.len();
        });
    }
    assert!(applied > 0, "nothing was applied");
}
