//! Clients that write, die, come back, rename, replace and delete until the faults are over, and then
//! look whether all that was acknowledged is there.

use std::time::Duration;

use mobula_client::{
    AppendOptions, Client, ClientError, ClientOptions, CreateOptions, FileWriter, NewBlock, ReplaceDatanode,
};
use mobula_net::{Entropy, Env};
use mobula_proto::hdfs;
use tokio::time::Instant;

use crate::oracle::{FileState, Found, Possible};
use crate::reader;
use crate::shared::{Phase, Shared};
use crate::writer::{End, Session};

/// Clients at once that write, and that read.
const WRITERS: u64 = 3;
const READERS: u64 = 2;
/// Block size of their files.
pub const BLOCK: u64 = 24 << 10;
/// Longest pause of a client between two rounds, in milliseconds: what counts is how many things are
/// under way when a fault strikes, not how many came before.
const PAUSE_MS: u64 = 150;
/// One call, or one file, may take this long before it counts as failed.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// A whole cluster answers a look at one path within this time.
const LOOK_LIMIT: Duration = Duration::from_secs(120);
/// A client that wants a dead one's file asks for this long, with pauses.
const TAKE_OVER_LIMIT: Duration = Duration::from_secs(15);
const TAKE_OVER_PAUSE: Duration = Duration::from_millis(300);
/// Files that a writer remembers to change later.
const FILES_MAX: usize = 5;

fn client(env: &Env, namenode: &str) -> Client {
    Client::new(
        env.clone(),
        ClientOptions {
            namenodes: vec![namenode.into()],
            user: "sim".into(),
            replication: Some(3),
            block_size: Some(BLOCK),
            umask: 0o022,
            call_limit: CALL_LIMIT,
            replace_datanode: ReplaceDatanode::default(),
            favored_nodes: Vec::new(),
        },
    )
}

/// Works until the phase of faults is over.
pub async fn work(env: &Env, namenode: &str, shared: &Shared) {
    let mut tasks = Vec::new();
    for number in 0..WRITERS {
        let mut slot = Slot::new(env, namenode, shared, number);
        tasks.push(tokio::spawn(async move {
            while slot.shared.phase() == Phase::Faults {
                slot.round().await;
                tokio::time::sleep(Duration::from_millis(slot.entropy.below(PAUSE_MS))).await;
            }
        }));
    }
    for _ in 0..READERS {
        let (own, entropy) = own(env);
        let (client, shared) = (client(&own, namenode), shared.clone());
        tasks.push(tokio::spawn(async move { reader::follow(&client, &entropy, &shared).await }));
    }
    let mut slot = Slot::new(env, namenode, shared, WRITERS);
    tasks.push(tokio::spawn(async move {
        while slot.shared.phase() == Phase::Faults {
            slot.small_round().await;
            tokio::time::sleep(Duration::from_millis(slot.entropy.below(PAUSE_MS))).await;
        }
    }));
    for task in tasks {
        if let Err(panicked) = task.await {
            shared.fail(format!("a client panicked: {panicked}"));
        }
    }
}

/// A client's own entropy, so that what one draws does not depend on the others.
fn own(env: &Env) -> (Env, Entropy) {
    let entropy = Entropy::seeded(env.entropy.u64());
    (Env { entropy: entropy.clone(), ..env.clone() }, entropy)
}

/// One writer after the other, all in one folder that nobody else writes to.
pub(crate) struct Slot {
    pub(crate) env: Env,
    namenode: String,
    pub(crate) entropy: Entropy,
    pub(crate) shared: Shared,
    number: u64,
    /// The present client; a dead one is replaced.
    pub(crate) client: Client,
    /// Closed files of which all is known.
    files: Vec<String>,
    made: u64,
}

impl Slot {
    pub(crate) fn new(env: &Env, namenode: &str, shared: &Shared, number: u64) -> Slot {
        let (env, entropy) = own(env);
        let client = client(&env, namenode);
        let (namenode, shared) = (namenode.into(), shared.clone());
        Slot { env, namenode, entropy, shared, number, client, files: Vec::new(), made: 0 }
    }

    /// One thing, and what follows from it.
    async fn round(&mut self) {
        let draw = self.entropy.below(16);
        let Some(path) = self.known().filter(|_| draw >= 5) else { return self.new_file().await };
        match draw {
            5..=8 => self.append_to(&path).await,
            9 => self.truncate(&path).await,
            10 => self.concat(&path).await,
            11 | 12 => self.rename(&path).await,
            13 => self.delete(&path).await,
            14 => self.replace(&path).await,
            _ => self.mkdirs().await,
        }
    }

    /// A small file, new or over another one; or one of those is renamed or deleted.
    async fn small_round(&mut self) {
        let draw = self.entropy.below(8);
        let known = self.known();
        match (draw, known) {
            (0, Some(path)) => self.rename(&path).await,
            (1, Some(path)) => self.delete(&path).await,
            (draw, known) => {
                let over = known.filter(|_| draw < 4);
                let temporary = self.next_path("t");
                let target = over.clone().unwrap_or_else(|| self.next_path("s"));
                if !self.small(&temporary, &target, over.is_some()).await {
                    // As one who comes after a driver that died; and the cluster may be down.
                    let own = Env { entropy: Entropy::seeded(self.env.entropy.u64()), ..self.env.clone() };
                    self.client = client(&own, &self.namenode);
                    tokio::time::sleep(Duration::from_millis(100 + self.entropy.below(400))).await;
                }
            }
        }
    }

    fn known(&self) -> Option<String> {
        let count = self.files.len() as u64;
        (count > 0).then(|| self.files[self.entropy.below(count) as usize].clone())
    }

    pub(crate) fn forget(&mut self, path: &str) {
        self.files.retain(|known| known != path);
    }

    pub(crate) fn remember(&mut self, path: &str) {
        self.forget(path);
        self.files.push(path.into());
        if self.files.len() > FILES_MAX {
            self.files.remove(0);
        }
    }

    fn next_path(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("/w{}/{kind}{}", self.number, self.made)
    }

    pub(crate) fn present(&self, path: &str) -> FileState {
        self.shared.oracle().file(path).cloned().unwrap_or_default()
    }

    async fn new_file(&mut self) {
        let path = self.next_path("f");
        self.create(&path, Possible::Absent).await;
    }

    async fn replace(&mut self, path: &str) {
        let was = Possible::File(self.present(path));
        self.create(path, was).await;
    }

    async fn create(&mut self, path: &str, was: Possible) {
        self.forget(path);
        self.shared.oracle().begin(path);
        let options = CreateOptions { overwrite: was != Possible::Absent, ..CreateOptions::default() };
        let made = bounded(self.client.create(path, options)).await;
        let empty = Possible::File(FileState::default());
        let possible = if made.is_ok() { vec![empty] } else { vec![was, empty] };
        self.shared.oracle().set(path, possible);
        self.answered(&format!("create {path}"), &made);
        match made {
            Ok(writer) => self.write(path.into(), writer).await,
            // The cluster may be down: no use in asking as fast as we can.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100 + self.entropy.below(400))).await;
            }
        }
    }

    /// A session with an open file, and those of the clients that come after one that died.
    async fn write(&mut self, path: String, mut writer: FileWriter) {
        loop {
            let session = Session {
                shared: &self.shared,
                entropy: &self.entropy,
                path: &path,
                seed: self.env.entropy.u64(),
            };
            let left = match session.run(writer).await {
                End::Closed => return self.remember(&path),
                End::Left(left) => left.map(|writer| *writer),
            };
            match self.after_death(&path, left).await {
                Some(next) => writer = next,
                None => return,
            }
        }
    }

    /// A client has died, or is taken for dead. Perhaps another one goes on with its file.
    async fn after_death(&mut self, path: &str, left: Option<FileWriter>) -> Option<FileWriter> {
        let draw = self.entropy.below(8);
        // A ghost is a client that lives on and does not know that it was given up.
        let ghost = left.filter(|_| draw >= 5 && self.entropy.below(2) == 0);
        let own = Env { entropy: Entropy::seeded(self.env.entropy.u64()), ..self.env.clone() };
        self.client = client(&own, &self.namenode);
        match draw {
            // The NameNode closes it, some time.
            0 | 1 => None,
            2 => {
                self.rename(path).await;
                None
            }
            3 => {
                self.delete(path).await;
                None
            }
            // As soon as its lease has run out.
            4 => self.let_in(path).await,
            _ => {
                self.recover_lease(path).await;
                let writer = self.let_in(path).await?;
                if let Some(ghost) = ghost {
                    self.haunt(path, ghost).await;
                }
                Some(writer)
            }
        }
    }

    /// A client whose lease was taken writes on, and must not be told that it went well.
    async fn haunt(&self, path: &str, mut ghost: FileWriter) {
        let haunting = async {
            ghost.write(bytes::Bytes::from_static(b"not a byte of this may ever be seen")).await?;
            ghost.hflush().await
        };
        match bounded(haunting).await {
            Ok(()) => self.shared.fail(format!("{path}: a flush without a lease was acknowledged")),
            Err(why) => self.shared.trace(&format!("a ghost of {path} is refused: {why}")),
        }
    }

    async fn recover_lease(&self, path: &str) {
        let deadline = Instant::now() + TAKE_OVER_LIMIT;
        while Instant::now() < deadline && self.shared.phase() == Phase::Faults {
            let done = bounded(self.client.recover_lease(path)).await;
            self.shared.trace(&format!("recover lease of {path}: {done:?}"));
            if done.is_ok_and(|closed| closed) {
                return;
            }
            tokio::time::sleep(TAKE_OVER_PAUSE).await;
        }
    }

    /// Opens a file to append to it, as soon as that is possible.
    async fn let_in(&self, path: &str) -> Option<FileWriter> {
        let deadline = Instant::now() + TAKE_OVER_LIMIT;
        while Instant::now() < deadline && self.shared.phase() == Phase::Faults {
            if let Some(writer) = self.append(path).await {
                return Some(writer);
            }
            tokio::time::sleep(TAKE_OVER_PAUSE).await;
        }
        None
    }

    /// Where it may go on, all is settled: no less than was promised, no more than was written.
    pub(crate) async fn append(&self, path: &str) -> Option<FileWriter> {
        let new_block = if self.entropy.below(4) == 0 { NewBlock::Always } else { NewBlock::WhenFull };
        let opened = bounded(self.client.append(path, AppendOptions { new_block })).await;
        let position = opened.as_ref().map(FileWriter::position).unwrap_or_default();
        self.answered(&format!("append to {path} at {position}"), &opened);
        let writer = opened.ok()?;
        let mut oracle = self.shared.oracle();
        let now_ms = oracle.now_ms;
        let (floor, most) = {
            let file = oracle.file(path)?;
            (file.floor(&oracle.mishaps, now_ms), file.content.length())
        };
        if !(floor..=most).contains(&position) {
            let file = oracle.file(path).cloned();
            drop(oracle);
            self.shared.fail(format!(
                "{path} is opened to append at {position}; {floor} were promised and {most} written: {file:?}"
            ));
            return None;
        }
        oracle.file_mut(path)?.settled(position);
        Some(writer)
    }

    async fn append_to(&mut self, path: &str) {
        self.forget(path);
        if let Some(writer) = self.let_in(path).await {
            self.write(path.into(), writer).await;
        }
    }

    async fn truncate(&mut self, path: &str) {
        let length = self.entropy.below(self.present(path).content.length() + 1);
        self.truncate_to(path, length).await;
    }

    pub(crate) async fn truncate_to(&mut self, path: &str, length: u64) {
        self.forget(path);
        let was = self.present(path);
        self.shared.oracle().begin(path);
        let done = bounded(self.client.truncate(path, length)).await;
        self.answered(&format!("truncate {path} to {length}"), &done);
        let mut now = was;
        match &done {
            Ok(_) => now.settled(length),
            Err(_) => now.maybe_cut(length),
        }
        // While a recovery cuts the last block, readers may see it either way.
        let closed = match done.is_ok_and(|done| !done) {
            true => self.closed(path).await,
            false => true,
        };
        let exact = now.exact().is_some();
        let mut oracle = self.shared.oracle();
        oracle.set(path, vec![Possible::File(now)]);
        if !closed {
            oracle.begin(path);
        }
        drop(oracle);
        if closed && exact {
            self.remember(path);
        }
    }

    async fn closed(&self, path: &str) -> bool {
        let deadline = Instant::now() + TAKE_OVER_LIMIT;
        while Instant::now() < deadline && self.shared.phase() == Phase::Faults {
            if bounded(self.client.is_closed(path)).await.is_ok_and(|closed| closed) {
                return true;
            }
            tokio::time::sleep(TAKE_OVER_PAUSE).await;
        }
        false
    }

    async fn concat(&mut self, path: &str) {
        let Some(source) = self.files.iter().find(|other| *other != path).cloned() else { return };
        let length = |path: &str| self.present(path).content.length();
        if length(path) > 0 && length(&source) > 0 {
            self.concat_to(path, &source).await;
        }
    }

    pub(crate) async fn concat_to(&mut self, path: &str, source: &str) {
        let (to, from) = (self.present(path), self.present(source));
        self.forget(path);
        self.forget(source);
        self.shared.oracle().begin(path);
        self.shared.oracle().begin(source);
        let done = bounded(self.client.concat(path, &[source])).await;
        self.answered(&format!("concat {source} behind {path}"), &done);
        let mut joined = to.content.clone();
        joined.join(&from.content);
        let joined = Possible::File(FileState::closed(joined));
        let (to, from) = match &done {
            Ok(_) => (vec![joined], vec![Possible::Absent]),
            Err(_) => (vec![joined, Possible::File(to)], vec![Possible::Absent, Possible::File(from)]),
        };
        self.shared.oracle().set(path, to);
        self.shared.oracle().set(source, from);
        if done.is_ok() {
            self.remember(path);
        }
    }

    /// To a new name, or over another file.
    async fn rename(&mut self, path: &str) {
        let over = self.known().filter(|other| other != path && self.entropy.below(2) == 0);
        match over {
            Some(over) => self.rename_to(path, &over, true).await,
            None => {
                let target = self.next_path("r");
                self.rename_to(path, &target, false).await;
            }
        }
    }

    pub(crate) async fn rename_to(&mut self, path: &str, target: &str, over: bool) {
        let was = Possible::File(self.present(path));
        let replaced = if over { Possible::File(self.present(target)) } else { Possible::Absent };
        let known = self.present(path).exact().is_some();
        self.forget(path);
        self.forget(target);
        self.shared.oracle().begin(path);
        self.shared.oracle().begin(target);
        let request = hdfs::Rename2RequestProto {
            src: path.into(),
            dst: target.into(),
            overwrite_dest: over,
            move_to_trash: None,
        };
        let done = bounded(self.client.namenode().rename2(request)).await;
        self.answered(&format!("rename {path} to {target}"), &done);
        let mut oracle = self.shared.oracle();
        if done.is_ok() {
            oracle.set(path, vec![Possible::Absent]);
            oracle.set(target, vec![was]);
        } else {
            if !over {
                oracle.either(path, target);
            }
            oracle.set(path, vec![was.clone(), Possible::Absent]);
            oracle.set(target, vec![was, replaced]);
        }
        drop(oracle);
        if done.is_ok() && known {
            self.remember(target);
        }
    }

    pub(crate) async fn delete(&mut self, path: &str) {
        self.forget(path);
        let was = Possible::File(self.present(path));
        self.shared.oracle().begin(path);
        let request = hdfs::DeleteRequestProto { src: path.into(), recursive: false };
        let done = match bounded(self.client.namenode().delete(request)).await {
            Ok(answer) if !answer.result => Err("it was not there".to_string()),
            other => other,
        };
        self.answered(&format!("delete {path}"), &done);
        let possible = if done.is_ok() { vec![Possible::Absent] } else { vec![was, Possible::Absent] };
        self.shared.oracle().set(path, possible);
    }

    async fn mkdirs(&mut self) {
        let path = format!("{}/below", self.next_path("d"));
        self.shared.oracle().begin(&path);
        let request = hdfs::MkdirsRequestProto {
            src: path.clone(),
            masked: hdfs::FsPermissionProto { perm: 0o755 },
            create_parent: true,
            unmasked: None,
        };
        let done = bounded(self.client.namenode().mkdirs(request)).await;
        self.answered(&format!("mkdirs {path}"), &done);
        let mut possible = vec![Possible::Directory];
        if done.is_err() {
            possible.push(Possible::Absent);
        }
        self.shared.oracle().set(&path, possible);
    }

    pub(crate) fn answered<T>(&self, what: &str, done: &Result<T, String>) {
        self.shared.oracle().count(done.is_ok());
        match done {
            Ok(_) => self.shared.trace(what),
            Err(why) => self.shared.trace(&format!("{what} failed: {why}")),
        }
    }
}

/// What a call came to; one that takes too long may or may not have been carried out.
pub(crate) async fn bounded<T>(call: impl Future<Output = Result<T, ClientError>>) -> Result<T, String> {
    match tokio::time::timeout(CALL_LIMIT, call).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

/// Looks at every path that was ever touched; reports the first that is not as it must be.
pub async fn verify(env: &Env, namenode: &str, shared: &Shared, when: &str) {
    let client = client(env, namenode);
    let paths = shared.oracle().paths();
    for path in &paths {
        let found = match tokio::time::timeout(LOOK_LIMIT, look(&client, path)).await {
            Ok(found) => found,
            Err(_) => Err(format!("no answer within {LOOK_LIMIT:?}")),
        };
        let settled = found.and_then(|found| shared.oracle().settle(path, &found));
        if let Err(why) = settled {
            shared.fail(format!("{when}: {path}: {why}"));
            return;
        }
    }
    if let Err(why) = shared.oracle().settle_renames() {
        shared.fail(format!("{when}: {why}"));
    }
    shared.trace(&format!("{when}: {} paths are as they must be", paths.len()));
}

async fn look(client: &Client, path: &str) -> Result<Found, String> {
    let text = |error: ClientError| error.to_string();
    let Some(status) = client.status(path).await.map_err(text)? else { return Ok(Found::Absent) };
    if status.file_type() == hdfs::hdfs_file_status_proto::FileType::IsDir {
        return Ok(Found::Directory);
    }
    let bytes = client.get(path).await.map_err(text)?;
    if bytes.len() as u64 != status.length {
        return Err(format!("its status says {} bytes, {} can be read", status.length, bytes.len()));
    }
    Ok(Found::File(bytes.into()))
}
