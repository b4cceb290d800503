//! A machine that remembers every command, and what tests start it with.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mobula_disk::fake::CrashDisk;
use mobula_disk::{DiskRef, read_file, write_file_durably};
use mobula_net::{Clock, Entropy, Env, Net};
use mobula_raft::{
    Committed, Leadership, Machine, MachineError, Payload, Position, Raft, RaftError, RaftOptions,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// What a test sees of a machine from outside.
#[derive(Clone, Debug, Default)]
pub struct Seen(pub Arc<Mutex<Vec<u64>>>);

impl Seen {
    pub fn all(&self) -> Vec<u64> {
        self.0.lock().clone()
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Tables {
    applied: Option<Position>,
    membership: Option<Vec<u8>>,
    commands: Vec<u64>,
}

/// Remembers all numbers it was given; durable only when synced.
pub struct Toy {
    disk: DiskRef,
    path: PathBuf,
    tables: Tables,
    seen: Seen,
    fail_at: Option<u64>,
}

impl Toy {
    pub fn open(disk: &DiskRef, folder: &Path) -> (Toy, Seen) {
        disk.create_folder(folder).unwrap();
        let path = folder.join("tables");
        let tables: Tables = match disk.look(&path).unwrap() {
            None => Tables::default(),
            Some(_) => postcard::from_bytes(&read_file(&**disk, &path, 1 << 30).unwrap()).unwrap(),
        };
        let seen = Seen(Arc::new(Mutex::new(tables.commands.clone())));
        let toy = Toy { disk: disk.clone(), path, tables, seen: seen.clone(), fail_at: None };
        (toy, seen)
    }

    pub fn failing_at(mut self, number: u64) -> Toy {
        self.fail_at = Some(number);
        self
    }
}

impl Machine for Toy {
    type Command = Vec<u64>;
    type Outcome = Vec<usize>;

    fn applied(&self) -> (Option<Position>, Option<Vec<u8>>) {
        (self.tables.applied, self.tables.membership.clone())
    }

    fn apply(&mut self, entries: Vec<Committed<Vec<u64>>>) -> Result<Vec<Option<Vec<usize>>>, MachineError> {
        let mut outcomes = Vec::new();
        for entry in entries {
            outcomes.push(match entry.payload {
                Payload::Blank => None,
                Payload::Membership(membership) => {
                    self.tables.membership = Some(membership);
                    None
                }
                Payload::Command(numbers) => {
                    let mut at = Vec::new();
                    for number in numbers {
                        if self.fail_at == Some(number) {
                            return Err(MachineError(format!("cannot stand {number}")));
                        }
                        at.push(self.tables.commands.len());
                        self.tables.commands.push(number);
                    }
                    Some(at)
                }
            });
            self.tables.applied = Some(entry.position);
        }
        self.seen.0.lock().clone_from(&self.tables.commands);
        Ok(outcomes)
    }

    fn sync(&mut self) -> Result<Option<Position>, MachineError> {
        write_file_durably(&*self.disk, &self.path, &postcard::to_allocvec(&self.tables).unwrap())?;
        Ok(self.tables.applied)
    }

    fn write_snapshot(&self, out: &mut dyn Write) -> Result<(), MachineError> {
        Ok(out.write_all(&postcard::to_allocvec(&self.tables.commands).unwrap())?)
    }

    fn restore(
        &mut self,
        from: &mut dyn Read,
        at: Position,
        membership: Option<Vec<u8>>,
    ) -> Result<(), MachineError> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes)?;
        let commands = postcard::from_bytes(&bytes).unwrap();
        self.tables = Tables { applied: Some(at), membership, commands };
        self.seen.0.lock().clone_from(&self.tables.commands);
        self.sync().map(drop)
    }

    fn commands_in(command: &Vec<u64>) -> u64 {
        command.len() as u64
    }
}

pub fn env(seed: u64) -> Env {
    Env { net: Net::real(), clock: Clock::virtual_from(0), entropy: Entropy::seeded(seed) }
}

/// Small files, so that segments are begun and cut often.
pub fn small(node: u64) -> RaftOptions {
    RaftOptions { segment_bytes: 4096, cache_bytes: 1024, ..RaftOptions::alone(node) }
}

pub const FOLDER: &str = "/raft";

pub async fn start(disk: &DiskRef, options: RaftOptions) -> Result<(Raft<Toy>, Seen), RaftError> {
    let (toy, seen) = Toy::open(disk, Path::new("/toy"));
    let raft = Raft::start(&env(options.node), disk.clone(), FOLDER.into(), options, toy).await?;
    Ok((raft, seen))
}

pub async fn start_ready(disk: &CrashDisk) -> (Raft<Toy>, Seen) {
    let (raft, seen) = start(&disk.process(), small(1)).await.unwrap();
    ready(&raft).await;
    (raft, seen)
}

/// Waits until the node leads and knows everything.
pub async fn ready(raft: &Raft<Toy>) -> Leadership {
    let mut leadership = raft.leadership();
    let ready = leadership.wait_for(Leadership::is_ready);
    *tokio::time::timeout(Duration::from_secs(60), ready).await.expect("leads in time").unwrap()
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs a test on a runtime of its own, in virtual time.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap().block_on(test)
}
