//! CPU per operation: `cargo run --release -p mobula-namespace --example measure [FILES [TABLES]]`. Batches of
//! 64, as the NameNode applies them, on storage in memory or in the file TABLES; prints microseconds per
//! command, and with a file its size and the memory in use.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use mobula_namespace::{
    AddBlock, Batch, Caller, Command, Create, Entry, Format, LogPosition, Namespace, Operation, Outcome,
    Parents, RetryKey, Rules,
};
use mobula_types::{Block, BlockId, ClientId, GenStamp, HdfsPath, InodeId, Millis, StorageType, Target};
use redb::backends::{FileBackend, InMemoryBackend};

const BATCH: usize = 64;
const CACHE_BYTES: usize = 128 << 20;
const FILES_A_DIRECTORY: usize = 1000;

struct Bench {
    namespace: Namespace,
    index: u64,
    caller: Caller,
}

impl Bench {
    /// Applies in batches and prints what one command took; keeps of each answer what `keep` says.
    fn run<T>(
        &mut self,
        what: &str,
        operations: impl Iterator<Item = (bool, Operation)>,
        keep: impl Fn(Outcome) -> T,
    ) -> Vec<T> {
        let (mut kept, mut spent, mut call) = (Vec::new(), Duration::ZERO, 0);
        let mut operations = operations.peekable();
        while operations.peek().is_some() {
            self.index += 1;
            let commands = operations.by_ref().take(BATCH).map(|(at_most_once, operation)| {
                call += 1;
                let key = RetryKey { client: ClientId([what.as_bytes()[0]; 16]), call };
                Command { caller: self.caller.clone(), retry: at_most_once.then_some(key), operation }
            });
            let batch = Batch { time: Millis(1_700_000_000_000 + self.index), commands: commands.collect() };
            let entry = (LogPosition { term: 1, index: self.index }, Entry::Batch(batch));
            let start = on_cpu();
            let applied = self.namespace.apply_all(std::slice::from_ref(&entry)).unwrap();
            if self.index % 500 == 499 {
                self.namespace.sync().unwrap();
            }
            spent += on_cpu() - start;
            kept.extend(applied.into_iter().flatten().map(|applied| keep(applied.outcome.unwrap())));
        }
        println!("{what:24} {:7.2} us", spent.as_secs_f64() * 1e6 / kept.len() as f64);
        kept
    }
}

/// Time that this thread was on a CPU: the machine may be busy with others.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

fn path(text: &str) -> HdfsPath {
    HdfsPath::parse(text).unwrap()
}

fn name(index: usize) -> HdfsPath {
    path(&format!("/bench/dir{}/file{index}", index / FILES_A_DIRECTORY))
}

fn create(index: usize) -> Operation {
    Operation::Create(Create {
        path: name(index),
        mode: 0o644,
        holder: format!("DFSClient_NONMAPREDUCE_{}_1", index % 16),
        flags: 1,
        parents: Parents::Create,
        replication: 3,
        block_size: 128 << 20,
        holder_renewed: None,
    })
}

fn main() {
    let files: usize = std::env::args().nth(1).map_or(100_000, |text| text.parse().unwrap());
    let tables = std::env::args().nth(2);
    let open = |name: &str| {
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(name);
        Namespace::open(FileBackend::new(file.unwrap()).unwrap(), CACHE_BYTES).unwrap()
    };
    let namespace = match &tables {
        Some(name) => open(name),
        None => Namespace::open(InMemoryBackend::new(), CACHE_BYTES).unwrap(),
    };
    let caller = Caller {
        user: "alice".into(),
        groups: vec!["users".into()],
        superuser: false,
        machine: "10.0.0.1".into(),
    };
    let mut bench = Bench { namespace, index: 0, caller };
    let format = Format {
        cluster_id: "CID".into(),
        namespace_id: 1,
        pool: "BP-1".into(),
        created: Millis(0),
        next_block: BlockId::FIRST,
        next_stamp: GenStamp::FIRST,
        next_inode: InodeId(InodeId::ROOT.0 + 1),
        owner: "alice".into(),
        rules: Rules::default(),
    };
    bench.run("format", std::iter::once((false, Operation::Format(format))), drop);
    let targets: Vec<Target> = (0..3)
        .map(|n| Target {
            datanode: format!("3b2c3a3e-0000-4000-8000-00000000000{n}").into(),
            storage: format!("DS-3b2c3a3e-0000-4000-8000-00000000000{n}").into(),
            kind: StorageType::Disk,
        })
        .collect();
    let holder = |index: usize| format!("DFSClient_NONMAPREDUCE_{}_1", index % 16);
    let created = |outcome| if let Outcome::Status(status) = outcome { status.inode } else { unreachable!() };
    let ids: Vec<InodeId> = bench.run("create", (0..files).map(|index| (true, create(index))), created);
    let added = bench.run(
        "addBlock",
        (0..files).map(|index| {
            let add = AddBlock {
                path: name(index),
                file: Some(ids[index]),
                holder: holder(index),
                previous: None,
                targets: targets.clone(),
            };
            (false, Operation::AddBlock(add))
        }),
        |outcome| if let Outcome::Allocated(allocated) = outcome { allocated.block } else { unreachable!() },
    );
    bench.run(
        "complete",
        (0..files).map(|index| {
            let last = Some(Block { length: 1000, ..added[index] });
            (
                false,
                Operation::Complete {
                    path: name(index),
                    file: Some(ids[index]),
                    holder: holder(index),
                    last,
                },
            )
        }),
        drop,
    );
    if let Some(name) = &tables {
        bench.namespace.sync().unwrap();
        drop((ids, added));
        println!("{} MiB of tables", std::fs::metadata(name).unwrap().len() >> 20);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        println!("{}", status.lines().find(|line| line.starts_with("VmRSS")).unwrap());
        return;
    }
    let mkdirs = |index: usize| {
        let path = path(&format!("/bench/made{}/d{index}", index / FILES_A_DIRECTORY));
        (false, Operation::Mkdirs { path, mode: 0o755, parents: Parents::Create })
    };
    bench.run("mkdirs", (0..files).map(mkdirs), drop);
    reads(&bench, files);
    let renamed = |index: usize| path(&format!("{}.r", name(index).as_str()));
    bench.run(
        "rename",
        (0..files).map(|index| (true, Operation::Rename { source: name(index), target: renamed(index) })),
        drop,
    );
    bench.run(
        "delete",
        (0..files).map(|index| (true, Operation::Delete { path: renamed(index), recursive: false })),
        drop,
    );
}

fn reads(bench: &Bench, files: usize) {
    let view = bench.namespace.view();
    let paths: Vec<HdfsPath> = (0..files).map(|index| name(index * 7919 % files)).collect();
    let timed = |what: &str, count: usize, run: &mut dyn FnMut(usize)| {
        let start = on_cpu();
        (0..count).for_each(run);
        println!("{what:24} {:7.2} us", (on_cpu() - start).as_secs_f64() * 1e6 / count as f64);
    };
    timed("stat", files, &mut |index| {
        view.status(&bench.caller, &paths[index]).unwrap().unwrap();
    });
    timed("open", files, &mut |index| {
        view.file_blocks(&bench.caller, &paths[index], 0, 1 << 20, Millis(0)).unwrap();
    });
    timed("list of 100", 1000, &mut |index| {
        let directory = path(&format!("/bench/dir{}", index % (files / FILES_A_DIRECTORY).max(1)));
        view.listing(&bench.caller, &directory, b"file", 100).unwrap().unwrap();
    });
}
