//! CPU per operation: `cargo run --release -p mobula-namespace --example measure [FILES]`. Batches of 64 on
//! storage in memory, as the NameNode applies them; prints microseconds per command.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use mobula_namespace::{
    AddBlock, Batch, Caller, Command, Create, Entry, Format, LogPosition, Namespace, Operation, Outcome,
    Parents, RetryKey, Rules,
};
use mobula_types::{Block, BlockId, ClientId, GenStamp, HdfsPath, InodeId, Millis, StorageType, Target};
use redb::backends::InMemoryBackend;

const BATCH: usize = 64;
const FILES_A_DIRECTORY: usize = 1000;

struct Bench {
    namespace: Namespace,
    index: u64,
    caller: Caller,
    answered: Vec<Outcome>,
}

impl Bench {
    /// Applies in batches and prints what one took.
    fn run(&mut self, what: &str, operations: impl Iterator<Item = (bool, Operation)>) -> Vec<Outcome> {
        let commands: Vec<Command> = operations
            .enumerate()
            .map(|(call, (at_most_once, operation))| {
                let key = RetryKey { client: ClientId([self.index as u8; 16]), call: call as i32 };
                Command { caller: self.caller.clone(), retry: at_most_once.then_some(key), operation }
            })
            .collect();
        let count = commands.len();
        let batches: Vec<Entry> = commands
            .chunks(BATCH)
            .map(|commands| {
                Entry::Batch(Batch { time: Millis(1_700_000_000_000), commands: commands.to_vec() })
            })
            .collect();
        self.answered.clear();
        let mut outcomes = Vec::with_capacity(count);
        let start = on_cpu();
        for (nth, batch) in batches.into_iter().enumerate() {
            self.index += 1;
            let position = LogPosition { term: 1, index: self.index };
            let applied = self.namespace.apply_all(&[(position, batch)]).unwrap();
            outcomes.extend(applied.into_iter().flatten().map(|applied| applied.outcome.unwrap()));
            if nth % 500 == 499 {
                self.namespace.sync().unwrap();
            }
        }
        println!("{what:24} {:7.2} us", (on_cpu() - start).as_secs_f64() * 1e6 / count as f64);
        outcomes
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
    let namespace = Namespace::open(InMemoryBackend::new(), 256 << 20).unwrap();
    let caller = Caller {
        user: "alice".into(),
        groups: vec!["users".into()],
        superuser: false,
        machine: "10.0.0.1".into(),
    };
    let mut bench = Bench { namespace, index: 0, caller, answered: Vec::new() };
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
    bench.run("format", std::iter::once((false, Operation::Format(format))));
    let targets: Vec<Target> = (0..3)
        .map(|n| Target {
            datanode: format!("3b2c3a3e-0000-4000-8000-00000000000{n}").into(),
            storage: format!("DS-3b2c3a3e-0000-4000-8000-00000000000{n}").into(),
            kind: StorageType::Disk,
        })
        .collect();
    let holder = |index: usize| format!("DFSClient_NONMAPREDUCE_{}_1", index % 16);
    let created = bench.run("create", (0..files).map(|index| (true, create(index))));
    let ids: Vec<InodeId> = created
        .iter()
        .map(|outcome| if let Outcome::Status(status) = outcome { status.inode } else { unreachable!() })
        .collect();
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
    );
    bench.run(
        "complete",
        (0..files).map(|index| {
            let Outcome::Allocated(allocated) = &added[index] else { unreachable!() };
            let last = Some(Block { length: 1000, ..allocated.block });
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
    );
    let mkdirs = |index: usize| {
        let path = path(&format!("/bench/made{}/d{index}", index / FILES_A_DIRECTORY));
        (false, Operation::Mkdirs { path, mode: 0o755, parents: Parents::Create })
    };
    bench.run("mkdirs", (0..files).map(mkdirs));
    reads(&bench, files);
    let renamed = |index: usize| path(&format!("{}.r", name(index).as_str()));
    bench.run(
        "rename",
        (0..files).map(|index| (true, Operation::Rename { source: name(index), target: renamed(index) })),
    );
    bench.run(
        "delete",
        (0..files).map(|index| (true, Operation::Delete { path: renamed(index), recursive: false })),
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
