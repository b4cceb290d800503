//! Any order of what can happen to a NameNode: changes of names at the same time, calls that fail, kills and power losses, also in
//! the middle of a start, the first one too. What was acknowledged is there afterwards, and a repeated call gets its first answer.
//!
//! `MOBULA_SEED=<seed>` runs one seed, `MOBULA_SEEDS=<count>` so many, from `MOBULA_FROM` on.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use mobula_disk::fake::{CallKind, Crash, CrashDisk};
use mobula_namenode::{NameNode, NamenodeConfig};
use mobula_net::{Entropy, Env};
use mobula_proto::hdfs;
use mobula_rpc::{CallError, CallOptions, RpcClient, RpcClientOptions};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::fixture::*;

const SEEDS: u64 = 40;
/// Runs at the same time.
const AT_ONCE: usize = 8;
const STEPS: u64 = 30;
const PATHS: u64 = 12;

/// A file or directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inode {
    directory: bool,
    /// None as long as nobody was told.
    id: Option<u64>,
    mode: u32,
    open: bool,
}

type At = (u64, Option<Inode>);

#[derive(Clone, Debug)]
enum Change {
    Mkdirs(u64),
    Create(u64),
    Complete(u64),
    Delete(u64),
    Rename(u64, u64),
    Mode(u64, u32),
}

/// A change that was asked for, and what is at its paths if it did not happen, and if it did.
#[derive(Clone, Debug)]
struct Asked {
    change: Change,
    call: i32,
    before: Vec<At>,
    after: Vec<At>,
}

fn path(number: u64) -> String {
    format!("/p{number}")
}

/// Asks; the id of a file that was made.
async fn ask(
    client: &RpcClient,
    change: &Change,
    call: i32,
    retry_count: i32,
) -> Result<Option<u64>, CallError> {
    let options = CallOptions { call_id: Some(call), retry_count };
    match change {
        Change::Mkdirs(at) => {
            let made = client.call_with("mkdirs", &mkdirs(&path(*at)), options).await;
            made.map(|made: hdfs::MkdirsResponseProto| assert!(made.result))?;
        }
        Change::Create(at) => {
            let made = client.call_with("create", &create(&path(*at), "w1"), options).await;
            return made.map(|made: hdfs::CreateResponseProto| made.fs.unwrap().file_id);
        }
        Change::Complete(at) => {
            let done = client.call_with("complete", &complete(&path(*at), "w1", None), options).await;
            done.map(|done: hdfs::CompleteResponseProto| assert!(done.result))?;
        }
        Change::Delete(at) => {
            let done = client.call_with("delete", &delete(&path(*at)), options).await;
            done.map(|done: hdfs::DeleteResponseProto| assert!(done.result))?;
        }
        Change::Rename(from, to) => {
            let done = client.call_with("rename", &rename(&path(*from), &path(*to)), options).await;
            done.map(|done: hdfs::RenameResponseProto| assert!(done.result))?;
        }
        Change::Mode(at, mode) => {
            let request = hdfs::SetPermissionRequestProto { src: path(*at), permission: permission(*mode) };
            let done = client.call_with("setPermission", &request, options).await;
            done.map(|_: hdfs::SetPermissionResponseProto| ())?;
        }
    }
    Ok(None)
}

struct Life {
    seed: u64,
    entropy: Entropy,
    disk: CrashDisk,
    config: NamenodeConfig,
    namenode: Option<NameNode>,
    client: Option<RpcClient>,
    /// What is there beyond doubt.
    there: BTreeMap<u64, Option<Inode>>,
    /// What nobody knows whether it happened; each path in one at most.
    unsure: Vec<Asked>,
    fails: bool,
    log: Vec<String>,
}

impl Life {
    fn one_of<T: Copy>(&self, of: &[T]) -> T {
        of[self.entropy.below(of.len() as u64) as usize]
    }

    /// Whether it serves, which it does unless calls fail.
    async fn start(&mut self) -> bool {
        self.config.sync_commands = self.one_of(&[5, 40, 10_000]);
        self.config.log_segment_bytes = self.one_of(&[1 << 10, 4 << 10, 1 << 20]);
        let started = NameNode::start(Env::real(), self.disk.process(), self.config.clone());
        match timeout(LIMIT, started).await.expect("it starts or says why not") {
            Ok(namenode) => {
                self.config.listen = namenode.rpc_addr();
                let options = RpcClientOptions {
                    address: namenode.rpc_addr().to_string(),
                    user: "hdfs".into(),
                    protocol: CLIENT,
                    connect_limit: LIMIT,
                    call_limit: LIMIT,
                };
                self.client.get_or_insert_with(|| RpcClient::new(&Env::real(), options));
                self.namenode = Some(namenode);
                true
            }
            Err(error) => {
                self.log.push(format!("it does not start: {error}"));
                false
            }
        }
    }

    fn client(&self) -> RpcClient {
        self.client.clone().unwrap()
    }

    /// A change of that path, of which nothing is unsure, and perhaps of another one.
    fn draw(&self, at: u64, free: &[u64]) -> Asked {
        let now = &self.there[&at];
        let made = |directory| {
            let mode = if directory { 0o755 } else { 0o644 };
            Some(Inode { directory, id: None, mode, open: !directory })
        };
        let absent: Vec<u64> =
            free.iter().copied().filter(|it| *it != at && self.there[it].is_none()).collect();
        let (change, after) = match now {
            None if self.entropy.below(2) == 0 => (Change::Mkdirs(at), vec![(at, made(true))]),
            None => (Change::Create(at), vec![(at, made(false))]),
            Some(inode) if inode.open => {
                (Change::Complete(at), vec![(at, Some(Inode { open: false, ..inode.clone() }))])
            }
            Some(inode) => match self.entropy.below(3) {
                0 => (Change::Delete(at), vec![(at, None)]),
                1 if !absent.is_empty() => {
                    let to = self.one_of(&absent);
                    (Change::Rename(at, to), vec![(at, None), (to, now.clone())])
                }
                _ => {
                    let mode = self.one_of(&[0o700, 0o711, 0o750]);
                    (Change::Mode(at, mode), vec![(at, Some(Inode { mode, ..inode.clone() }))])
                }
            },
        };
        let before = after.iter().map(|(at, _)| (*at, self.there[at].clone())).collect();
        Asked { change, call: self.client().next_call_id(), before, after }
    }

    /// Some changes at the same time.
    async fn change(&mut self) {
        let unsure = |at: &u64| self.unsure.iter().any(|it| it.before.iter().any(|(other, _)| other == at));
        let mut free: Vec<u64> = (0..PATHS).filter(|at| !unsure(at)).collect();
        let mut asked = JoinSet::new();
        for _ in 0..1 + self.entropy.below(6) {
            if free.is_empty() {
                break;
            }
            let at = self.one_of(&free);
            let one = self.draw(at, &free);
            free.retain(|at| one.before.iter().all(|(other, _)| other != at));
            let client = self.client();
            asked.spawn(async move { (ask(&client, &one.change, one.call, 0).await, one) });
        }
        while let Some(done) = asked.join_next().await {
            let (done, one) = done.unwrap();
            self.log.push(format!("{:?}: {done:?}", one.change));
            match done {
                Ok(id) => self.happened(one, id),
                Err(error) => {
                    assert!(self.fails, "{:?}: {error}", one.change);
                    self.unsure.push(one);
                }
            }
        }
    }

    fn happened(&mut self, one: Asked, id: Option<u64>) {
        for (at, mut inode) in one.after {
            if let Some(inode) = &mut inode {
                inode.id = inode.id.or(id);
            }
            self.there.insert(at, inode);
        }
    }

    /// Lets calls fail from now on: one, some, or all that follow.
    fn fail(&mut self) {
        let after = self.entropy.below(60);
        let error = self.one_of(&[ErrorKind::Other, ErrorKind::StorageFull]);
        let count = self.one_of(&[1, 1, 5, u64::MAX]);
        self.log.push(format!("{count} calls fail from {} with {error:?}", self.disk.calls() + after));
        self.fail_calls(after, count, error);
        self.fails = true;
    }

    fn fail_calls(&self, after: u64, count: u64, error: ErrorKind) {
        self.disk.fail_calls(after, count, error, |call| call.kind != CallKind::Look);
    }

    async fn end(&mut self) {
        let how = self.entropy.below(6);
        self.log.push(format!("ends: {how}, call {}", self.disk.calls()));
        if let Some(namenode) = self.namenode.take().filter(|_| how == 0) {
            timeout(LIMIT, namenode.shutdown()).await.expect("it ends");
        }
        // The next one would only hear at its first call that it is closed.
        self.client.iter().for_each(RpcClient::close);
        self.disk.set_fault(None);
        self.disk.crash(if how < 3 { Crash::Kill } else { Crash::PowerLoss });
    }

    /// Starts that are cut short.
    async fn short_lives(&mut self) {
        for _ in 0..self.entropy.below(3) {
            let after = self.entropy.below(80);
            let count = self.one_of(&[1, u64::MAX]);
            self.fail_calls(after, count, ErrorKind::Other);
            let serves = self.start().await;
            self.log.push(format!("a start; it serves: {serves}"));
            self.end().await;
        }
    }

    /// Ends it, perhaps again in the middle of its start, starts it, and looks at everything.
    async fn again(&mut self) {
        self.end().await;
        self.short_lives().await;
        assert!(self.start().await, "nothing fails");
        self.fails = false;
        self.log.push("it serves".into());
        for one in std::mem::take(&mut self.unsure) {
            self.settle(one).await;
        }
        self.look().await;
    }

    /// What was not answered happened or not; asked again, it has happened.
    async fn settle(&mut self, one: Asked) {
        if self.entropy.below(2) == 0 {
            let done = ask(&self.client(), &one.change, one.call, 1).await;
            let id = done.unwrap_or_else(|error| panic!("{:?}, repeated: {error}", one.change));
            self.happened(one, id);
            return;
        }
        let mut found = Vec::new();
        for (at, _) in &one.before {
            found.push((*at, self.inode(*at).await));
        }
        let like = |all: &[At]| all.iter().zip(&found).all(|((_, a), (_, b))| alike(a, b));
        assert!(like(&one.before) || like(&one.after), "{one:?}: {found:?}");
        self.there.extend(found);
    }

    async fn look(&mut self) {
        for at in 0..PATHS {
            let found = self.inode(at).await;
            assert!(alike(&self.there[&at], &found), "{at}: {:?} is {found:?}", self.there[&at]);
            self.there.insert(at, found);
        }
        let counts = self.namenode.as_ref().unwrap().service().view().counts();
        let inodes = || self.there.values().flatten();
        let directories = inodes().filter(|inode| inode.directory).count() + 1;
        let open = inodes().filter(|inode| inode.open).count();
        let expected = [inodes().count() + 1, directories, open].map(|count| count as u64);
        assert_eq!([counts.files + counts.directories, counts.directories, counts.open_files], expected);
    }

    async fn inode(&self, at: u64) -> Option<Inode> {
        let request = hdfs::GetFileInfoRequestProto { src: path(at) };
        let answer = self.client().call("getFileInfo", &request).await;
        let status = answer.map(|answer: hdfs::GetFileInfoResponseProto| answer.fs).unwrap()?;
        let directory = status.file_type == hdfs::hdfs_file_status_proto::FileType::IsDir as i32;
        let request = hdfs::IsFileClosedRequestProto { src: path(at) };
        let open = !directory && {
            let closed: hdfs::IsFileClosedResponseProto =
                self.client().call("isFileClosed", &request).await.unwrap();
            !closed.result
        };
        Some(Inode { directory, id: status.file_id, mode: status.permission.perm, open })
    }

    async fn run(&mut self) {
        self.short_lives().await;
        assert!(self.start().await, "nothing fails");
        for _ in 0..STEPS {
            match self.entropy.below(10) {
                0 => self.again().await,
                1 => self.fail(),
                // Once something has failed, a few more are asked, and then nobody waits for it.
                _ if self.unsure.len() > 3 => self.again().await,
                _ => self.change().await,
            }
        }
        self.again().await;
    }
}

fn alike(one: &Option<Inode>, other: &Option<Inode>) -> bool {
    match (one, other) {
        (Some(a), Some(b)) => a.id.is_none_or(|id| Some(id) == b.id) && Inode { id: b.id, ..a.clone() } == *b,
        (None, None) => true,
        _ => false,
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

async fn run(seed: u64) {
    let mut config = config();
    // An address of its own: nobody takes its port while it is down.
    let [.., a, b] = seed.to_be_bytes();
    config.listen = ([127, 77, a, b], 0).into();
    let mut life = Life {
        seed,
        entropy: Entropy::seeded(seed),
        disk: CrashDisk::new(seed),
        config,
        namenode: None,
        client: None,
        there: (0..PATHS).map(|at| (at, None)).collect(),
        unsure: Vec::new(),
        fails: false,
        log: Vec::new(),
    };
    life.run().await;
}

#[tokio::test]
async fn whatever_happens_what_was_acknowledged_is_there() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let from = number("MOBULA_FROM").unwrap_or(0);
    let seeds = match number("MOBULA_SEED") {
        Some(seed) => seed..seed + 1,
        None => from..from + number("MOBULA_SEEDS").unwrap_or(SEEDS),
    };
    let mut runs = JoinSet::new();
    for seed in seeds {
        runs.spawn(run(seed));
        if runs.len() == AT_ONCE {
            runs.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = runs.join_next().await {
        done.unwrap();
    }
}
