//! The life of a file, each call of which is asked again after a power loss, as a client does that did not hear
//! the answer: the second answer is the first one, and in the end nothing is there twice, and no orphan.

use mobula_namespace::{
    AddBlock, Append, BlockRecord, CommitBlockSynchronization, Counts, FileBlock, FileStatus, LastBlock,
    Operation, Outcome, Overwrite, RetryKey, Truncate, UpdatePipeline,
};
use mobula_types::{Block, ClientId, GenStamp};

use crate::fixture::{Fixture, create, delete, mkdirs, path, superuser, target};

const BLOCK: u64 = 128 << 20;

/// What a client remembers of the answers so far.
#[derive(Default)]
struct Heard {
    block: Block,
    stamp: GenStamp,
}

type Ask = fn(&Fixture, &Heard) -> Operation;

/// A call, and whether it is one of HDFS's at-most-once ones, which carry a key.
const LIFE: [(&str, bool, Ask); 22] = [
    ("mkdirs", false, |_, _| mkdirs("/d")),
    ("create", true, |_, _| create("/d/f", "c")),
    ("addBlock", false, |_, _| add("/d/f", None)),
    ("addBlock", false, |_, heard| add("/d/f", Some(Block { length: BLOCK, ..heard.block }))),
    ("complete", false, |_, heard| complete("/d/f", heard, 500)),
    ("append", true, |fixture, _| append(fixture, "/d/f")),
    ("updatePipeline", true, |_, heard| {
        let new = Block { stamp: heard.stamp, ..heard.block };
        let (holder, targets) = ("c".into(), vec![target(2)]);
        Operation::UpdatePipeline(UpdatePipeline { holder, old: heard.block, new, targets })
    }),
    ("complete", false, |_, heard| {
        complete("/d/f", &Heard { block: Block { stamp: heard.stamp, ..heard.block }, ..*heard }, 700)
    }),
    ("create", true, |_, _| create("/d/g", "c")),
    ("addBlock", false, |_, _| add("/d/g", None)),
    ("complete", false, |_, heard| complete("/d/g", heard, 10)),
    ("concat", true, |_, _| Operation::Concat { target: path("/d/f"), sources: vec![path("/d/g")] }),
    ("truncate inside", false, |fixture, _| truncate(fixture, BLOCK + 100)),
    ("commitBlockSynchronization", false, |_, heard| {
        Operation::CommitBlockSynchronization(CommitBlockSynchronization {
            block: heard.block,
            stamp: heard.stamp,
            length: 100,
            close: true,
            delete: false,
            targets: vec![target(1)],
        })
    }),
    ("truncate at a border", false, |fixture, _| truncate(fixture, BLOCK)),
    ("rename", true, |_, _| Operation::Rename { source: path("/d/f"), target: path("/d/h") }),
    ("rename2", true, |_, _| Operation::Rename2 {
        source: path("/d/h"),
        target: path("/e"),
        overwrite: Overwrite::No,
        to_trash: false,
    }),
    ("create", true, |_, _| create("/d/i", "c")),
    ("create with", true, |_, _| match create("/d/j", "c") {
        Operation::Create(create) => Operation::CreateWith { create, targets: vec![target(1), target(2)] },
        other => other,
    }),
    ("addBlock", false, |_, _| add("/d/j", None)),
    ("complete as", true, |_, heard| Operation::CompleteAs {
        path: path("/d/j"),
        file: None,
        holder: "c".into(),
        last: Some(Block { length: 10, ..heard.block }),
        target: path("/d/k"),
        overwrite: Overwrite::No,
    }),
    ("delete", true, |_, _| delete("/d")),
];

fn add(name: &str, previous: Option<Block>) -> Operation {
    let (path, holder, targets) = (path(name), "c".into(), vec![target(1), target(2)]);
    Operation::AddBlock(AddBlock { path, file: None, holder, previous, targets })
}

fn complete(name: &str, heard: &Heard, length: u64) -> Operation {
    let last = Some(Block { length, ..heard.block });
    Operation::Complete { path: path(name), file: None, holder: "c".into(), last }
}

fn seen(found: Option<FileBlock>) -> Option<LastBlock> {
    found.map(|found| LastBlock { block: found.block, targets: vec![target(1)] })
}

fn append(fixture: &Fixture, name: &str) -> Operation {
    let last = seen(fixture.namespace.view().last_block_at(&path(name)).unwrap());
    Operation::Append(Append { path: path(name), holder: "c".into(), flags: 4, holder_renewed: None, last })
}

fn truncate(fixture: &Fixture, length: u64) -> Operation {
    let (path, holder) = (path("/d/f"), "c".into());
    let last = seen(fixture.namespace.view().block_cut_at(&path, length).unwrap());
    Operation::Truncate(Truncate { path, holder, length, holder_renewed: None, last })
}

impl Heard {
    fn hear(&mut self, fixture: &mut Fixture, outcome: &Outcome) {
        match outcome {
            Outcome::Allocated(allocated) | Outcome::Begun(_, allocated) => self.block = allocated.block,
            Outcome::Appended(appended) => {
                self.block = appended.block.as_ref().expect("half a block").block;
                let restamp = Operation::UpdateBlockForPipeline { block: self.block, holder: "c".into() };
                match fixture.run(&superuser(), restamp) {
                    Ok(Outcome::Restamped(block)) => self.stamp = block.stamp,
                    other => panic!("restamp: {other:?}"),
                }
            }
            Outcome::Bool(false) => {
                let view = fixture.namespace.view();
                let running = view.recoveries(Default::default(), 1).unwrap().pop().expect("it is cut");
                (self.block, self.stamp) = (running.block, running.recovery.id);
            }
            _ => {}
        }
    }
}

/// All that is there.
type Left = (Counts, Vec<BlockRecord>, Vec<FileStatus>);

/// Asks the calls at `again` a second time, after a power loss.
fn live(again: &[usize]) -> Left {
    let mut fixture = Fixture::new();
    let mut heard = Heard::default();
    for (index, (name, once, ask)) in LIFE.iter().enumerate() {
        let operation = ask(&fixture, &heard);
        let retry = once.then_some(RetryKey { client: ClientId([4; 16]), call: index as i32 });
        let first = fixture.apply(&superuser(), retry, operation.clone());
        let outcome = first.outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        if again.contains(&index) {
            fixture.lose_power();
            let second = fixture.apply(&superuser(), retry, operation);
            // Of a file and its block the file is remembered: the block is what `addBlock` answers next.
            let expected = match &outcome {
                Outcome::Begun(status, _) => &Outcome::Status(status.clone()),
                other => other,
            };
            assert_eq!(second.outcome.as_ref(), Ok(expected), "{name} asked again, {again:?}");
            assert_eq!(second.effects, [], "{name} done again, {again:?}");
        }
        heard.hear(&mut fixture, &outcome);
    }
    let view = fixture.namespace.view();
    let listed = |at| view.listing(&superuser(), &path(at), b"", 9).unwrap();
    let entries = listed("/").map(|listing| listing.entries).unwrap_or_default();
    assert_eq!(listed("/d"), None);
    (view.counts(), view.blocks_from(Default::default(), 99).unwrap(), entries)
}

#[test]
fn each_pair_of_a_files_calls_is_asked_again_after_a_power_loss() {
    let left = live(&[]);
    assert_eq!((left.0.files, left.0.blocks, left.1[0].block.length), (1, 1, BLOCK));
    for (first, (name, ..)) in LIFE.iter().enumerate() {
        for (second, (other, ..)) in LIFE.iter().enumerate().skip(first) {
            assert_eq!(live(&[first, second]), left, "{name} and {other}");
        }
    }
    assert_eq!(live(&(0..LIFE.len()).collect::<Vec<_>>()), left);
}
