//! A formatted namespace in memory, and storage that forgets what was not synced.

use std::io;
use std::sync::{Arc, Mutex};

use mobula_namespace::{
    AddBlock, Applied, Batch, Caller, Command, Create, Entry, Format, LogPosition, Namespace, NamespaceError,
    Operation, Outcome, Parents, RetryKey, Rules,
};
use mobula_types::{Block, BlockId, GenStamp, HdfsPath, InodeId, Millis, StorageType, Target};

pub const START: u64 = 1_700_000_000_000;

/// Storage whose writes can be lost: live is what a process sees, durable what a power loss leaves.
#[derive(Clone, Debug, Default)]
pub struct Storage {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    live: Vec<u8>,
    durable: Vec<u8>,
}

impl Storage {
    /// What is left after a power loss.
    pub fn crash(&self) -> Storage {
        let durable = self.inner.lock().unwrap().durable.clone();
        Storage { inner: Arc::new(Mutex::new(Inner { live: durable.clone(), durable })) }
    }
}

impl redb::StorageBackend for Storage {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.inner.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let inner = self.inner.lock().unwrap();
        let at = offset as usize;
        let bytes = inner.live.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.inner.lock().unwrap().live.resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        let mut inner = self.inner.lock().unwrap();
        let Inner { live, durable } = &mut *inner;
        durable.clone_from(live);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        let at = offset as usize;
        self.inner.lock().unwrap().live[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

pub fn path(text: &str) -> HdfsPath {
    HdfsPath::parse(text).unwrap()
}

pub fn user(name: &str, groups: &[&str]) -> Caller {
    Caller {
        user: name.into(),
        groups: groups.iter().map(|group| (*group).into()).collect(),
        superuser: false,
        machine: "10.0.0.1".into(),
    }
}

pub fn superuser() -> Caller {
    Caller { superuser: true, ..user("hdfs", &["supergroup"]) }
}

pub fn target(number: u32) -> Target {
    Target {
        datanode: format!("dn{number}").into(),
        storage: format!("DS-{number}").into(),
        kind: StorageType::Disk,
    }
}

pub fn format() -> Format {
    Format {
        cluster_id: "CID-test".into(),
        namespace_id: 7,
        pool: "BP-1-10.0.0.1-1".into(),
        created: Millis(0),
        next_block: BlockId::FIRST,
        next_stamp: GenStamp::FIRST,
        next_inode: InodeId(InodeId::ROOT.0 + 1),
        owner: "hdfs".into(),
        rules: Rules::default(),
    }
}

pub struct Fixture {
    pub namespace: Namespace,
    pub storage: Storage,
    pub now: u64,
    pub index: u64,
}

impl Fixture {
    pub fn new() -> Fixture {
        Fixture::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Format)) -> Fixture {
        let mut format = format();
        change(&mut format);
        let mut fixture = Fixture::unformatted();
        fixture.run(&superuser(), Operation::Format(format)).unwrap();
        fixture
    }

    pub fn unformatted() -> Fixture {
        let storage = Storage::default();
        let namespace = Namespace::open(storage.clone(), 64 << 20).unwrap();
        Fixture { namespace, storage, now: START, index: 0 }
    }

    /// Syncs, loses power and opens what is left.
    pub fn lose_power(&mut self) {
        self.namespace.sync().unwrap();
        self.storage = self.storage.crash();
        self.namespace = Namespace::open(self.storage.clone(), 16 << 20).unwrap();
    }

    /// Goes on with a copy of the namespace that a snapshot made.
    pub fn copy(&mut self) {
        let mut bytes = Vec::new();
        self.namespace.write_snapshot(&mut bytes).unwrap();
        self.storage = Storage::default();
        let mut copy = Namespace::open(self.storage.clone(), 16 << 20).unwrap();
        copy.restore(&mut bytes.as_slice()).unwrap();
        assert_eq!(copy.state_hash().unwrap(), self.namespace.state_hash().unwrap());
        self.namespace = copy;
    }

    pub fn position(&mut self) -> LogPosition {
        self.index += 1;
        LogPosition { term: 1, index: self.index }
    }

    pub fn batch(&mut self, commands: Vec<Command>) -> Vec<Applied> {
        let position = self.position();
        let batch = Entry::Batch(Batch { time: Millis(self.now), commands });
        self.namespace.apply_all(&[(position, batch)]).unwrap().pop().unwrap()
    }

    pub fn apply(&mut self, caller: &Caller, retry: Option<RetryKey>, operation: Operation) -> Applied {
        let command = Command { caller: caller.clone(), retry, operation };
        self.batch(vec![command]).pop().unwrap()
    }

    pub fn run(&mut self, caller: &Caller, operation: Operation) -> Result<Outcome, NamespaceError> {
        self.apply(caller, None, operation).outcome
    }

    /// A closed file of one block of `length` bytes.
    pub fn write(&mut self, name: &str, length: u64) -> (InodeId, Block) {
        let inode = self.create(name, "writer");
        let block = self.add(inode, "writer", None);
        let last = Block { length, ..block };
        let complete = Operation::Complete {
            path: path(name),
            file: Some(inode),
            holder: "writer".into(),
            last: Some(last),
        };
        assert_eq!(self.run(&superuser(), complete), Ok(Outcome::Bool(true)));
        (inode, last)
    }

    pub fn create(&mut self, name: &str, holder: &str) -> InodeId {
        match self.run(&superuser(), create(name, holder)) {
            Ok(Outcome::Status(status)) => status.inode,
            other => panic!("create {name}: {other:?}"),
        }
    }

    pub fn add(&mut self, file: InodeId, holder: &str, previous: Option<Block>) -> Block {
        let add = AddBlock {
            path: path("/by-id"),
            file: Some(file),
            holder: holder.into(),
            previous,
            targets: vec![target(1), target(2)],
        };
        match self.run(&superuser(), Operation::AddBlock(add)) {
            Ok(Outcome::Allocated(allocated)) => allocated.block,
            other => panic!("add block to {file}: {other:?}"),
        }
    }
}

pub fn create(name: &str, holder: &str) -> Operation {
    Operation::Create(Create {
        path: path(name),
        mode: 0o644,
        holder: holder.into(),
        flags: 1,
        parents: Parents::Create,
        replication: 3,
        block_size: 128 << 20,
        holder_renewed: None,
    })
}

pub fn mkdirs(name: &str) -> Operation {
    Operation::Mkdirs { path: path(name), mode: 0o755, parents: Parents::Create }
}

pub fn delete(name: &str) -> Operation {
    Operation::Delete { path: path(name), recursive: true }
}
