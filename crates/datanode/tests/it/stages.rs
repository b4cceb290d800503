//! Every stage of WRITE_BLOCK from every state of a replica: what fits goes on, what does not changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mobula_proto::hdfs as pb;
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use mobula_wire::datatransfer::Op;
use tokio::io::AsyncWriteExt;

use crate::speaker::{Flags, Speaker, base, block_proto, read_block, target, write_block, write_op};
use crate::{Bench, bytes, until};

/// Bytes that every replica of these tests has: one full chunk and a part of one.
const LENGTH: usize = 1000;
/// Its stamp.
const STAMP: u64 = 1001;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Missing,
    /// Its writer is gone.
    Idle,
    /// Its writer is there.
    Written,
    Final,
    Waiting,
    Temporary,
}

const STATES: [State; 6] =
    [State::Missing, State::Idle, State::Written, State::Final, State::Waiting, State::Temporary];

/// A request, with what makes it fit.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    pub stage: Stage,
    pub stamp: u64,
    pub next: u64,
    pub least: u64,
    pub most: u64,
    pub client: &'static str,
}

impl Again {
    pub fn new(stage: Stage) -> Again {
        let length = LENGTH as u64;
        Again { stage, stamp: STAMP, next: STAMP + 1, least: length, most: length, client: "client" }
    }

    pub fn op(&self, id: u64, targets: &[String]) -> pb::OpWriteBlockProto {
        pb::OpWriteBlockProto {
            header: pb::ClientOperationHeaderProto {
                base_header: base(block_proto(id, self.stamp, 1 << 20)),
                client_name: self.client.into(),
            },
            stage: self.stage as i32,
            latest_generation_stamp: self.next,
            min_bytes_rcvd: self.least,
            max_bytes_rcvd: self.most,
            ..write_op(id, self.client, targets)
        }
    }

    /// Sends it; the connection, and whether it was accepted.
    pub async fn ask(&self, addr: &str, id: u64, targets: &[String]) -> (Speaker, bool) {
        let mut speaker = Speaker::connect(addr).await;
        speaker.op(Op::WriteBlock, &self.op(id, targets)).await;
        let accepted = speaker.response().await.is_some_and(|response| response.status == 0);
        (speaker, accepted)
    }
}

/// All files of a block below a folder.
fn files(folder: &Path, id: u64) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if path.is_dir() {
                folders.push(path);
            } else if name == format!("blk_{id}") || name.starts_with(&format!("blk_{id}_")) {
                found.insert(path.clone(), std::fs::read(path).unwrap());
            }
        }
    }
    found
}

/// Brings blocks into their states, and keeps the writers that are to stay.
async fn prepare(bench: &mut Bench, wanted: &BTreeMap<u64, State>) -> Vec<Speaker> {
    let data = bytes(LENGTH);
    let mut writers = Vec::new();
    let open = async |addr: &str, id: u64| {
        let mut speaker = Speaker::open(addr, id, &[]).await;
        speaker.packet(0, 0, &data, Flags::None).await;
        speaker.acked(0, 1).await;
        speaker
    };
    for (id, _) in wanted.iter().filter(|(_, state)| **state == State::Waiting) {
        open(&bench.addr(0), *id).await;
    }
    drop(bench.nodes.pop());
    let node = bench.launch(0, mobula_disk::RealDisk::new(), |_| {}).await;
    bench.nodes.push(node);
    let addr = bench.addr(0);
    for (id, state) in wanted {
        match state {
            State::Missing | State::Waiting => {}
            State::Idle => drop(open(&addr, *id).await),
            State::Written => writers.push(open(&addr, *id).await),
            State::Final => write_block(&addr, *id, &[], &data, 512).await,
            State::Temporary => {
                let mut speaker = Speaker::connect(&addr).await;
                speaker.op(Op::WriteBlock, &write_op(*id, "", &[])).await;
                speaker.packet(0, 0, &data, Flags::None).await;
                let folder = bench.folder.path().join("dn0");
                until(|| files(&folder, *id).values().any(|bytes| bytes.len() == LENGTH)).await;
                writers.push(speaker);
            }
        }
    }
    writers
}

fn fits(stage: Stage, client: bool, newer: bool, state: State) -> bool {
    use State::{Final, Idle, Missing, Temporary, Written};
    match stage {
        Stage::PipelineSetupCreate if client => state == Missing,
        Stage::PipelineSetupCreate => {
            state == Missing || newer && matches!(state, Idle | Written | Temporary)
        }
        Stage::TransferRbw | Stage::TransferFinalized => state == Missing || newer,
        Stage::PipelineSetupAppend => state == Final,
        Stage::PipelineSetupAppendRecovery | Stage::PipelineCloseRecovery => {
            matches!(state, Idle | Written | Final)
        }
        Stage::PipelineSetupStreamingRecovery => matches!(state, Idle | Written),
        Stage::DataStreaming | Stage::PipelineClose => false,
    }
}

#[tokio::test]
async fn every_stage_from_every_state() {
    let mut cases = Vec::new();
    for number in 0..9 {
        let stage = Stage::try_from(number).unwrap();
        cases.push(Again::new(stage));
        match stage {
            Stage::PipelineSetupCreate => {
                cases.push(Again { next: 0, ..Again::new(stage) });
                cases.push(Again { client: "", ..Again::new(stage) });
                cases.push(Again { client: "", stamp: STAMP + 1, ..Again::new(stage) });
            }
            Stage::TransferRbw | Stage::TransferFinalized => {
                cases.push(Again { stamp: STAMP + 1, ..Again::new(stage) });
            }
            _ => {}
        }
    }
    let mut bench = Bench::real(1).await;
    let mut wanted = BTreeMap::new();
    for (at, _) in cases.iter().enumerate() {
        for (with, state) in STATES.iter().enumerate() {
            wanted.insert(1000 + (at * STATES.len() + with) as u64, *state);
        }
    }
    let _writers = prepare(&mut bench, &wanted).await;
    let (addr, folder) = (bench.addr(0), bench.folder.path().join("dn0"));
    let data = bytes(LENGTH + 100);
    for (id, state) in wanted {
        let case = cases[(id as usize - 1000) / STATES.len()];
        let what = format!("{case:?} from {state:?}");
        let before = files(&folder, id);
        let by_client = !case.client.is_empty();
        let copies = !by_client || matches!(case.stage, Stage::TransferRbw | Stage::TransferFinalized);
        let expected = fits(case.stage, by_client, case.stamp > STAMP, state);
        if copies {
            // Nothing is answered at the beginning: the packets come at once.
            let mut speaker = Speaker::connect(&addr).await;
            let mut op = case.op(id, &[]);
            op.header.base_header.block.num_bytes = Some(LENGTH as u64);
            speaker.op(Op::WriteBlock, &op).await;
            speaker.packet(0, 0, &data[..LENGTH], Flags::None).await;
            speaker.packet(1, LENGTH, &[], Flags::Last).await;
            let mut answer = Vec::new();
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut speaker.stream, &mut answer).await;
            assert_eq!(!answer.is_empty(), expected && by_client, "{what}: {answer:?}");
        } else {
            let (mut speaker, accepted) = case.ask(&addr, id, &[]).await;
            assert_eq!(accepted, expected, "{what}");
            if accepted && case.stage == Stage::PipelineCloseRecovery {
                assert!(speaker.closed().await, "{what}");
            } else if accepted {
                let from = if state == State::Missing { 0 } else { LENGTH };
                let next = if from == 0 { LENGTH } else { LENGTH + 24 };
                speaker.packet(7, from, &data[from..next], Flags::None).await;
                speaker.acked(7, 1).await;
                speaker.packet(8, next, &[], Flags::Last).await;
                speaker.acked(8, 1).await;
            }
        }
        let after = files(&folder, id);
        if expected {
            let stamp = if copies { case.stamp } else { case.next.max(STAMP) };
            let meta = format!("blk_{id}_{stamp}.meta");
            let length = after.iter().find(|(path, _)| path.ends_with(format!("blk_{id}"))).unwrap().1.len();
            assert!(
                after.keys().any(|path| path.ends_with(&meta)) && after.len() == 2,
                "{what}: {:?}",
                after.keys()
            );
            let kept = case.stage == Stage::TransferRbw;
            assert_eq!(after.keys().all(|path| path.to_str().unwrap().contains("/rbw/")), kept, "{what}");
            assert_eq!(read_block(&addr, id, 0, length as u64).await.unwrap(), &data[..length], "{what}");
        } else {
            assert_eq!(before, after, "{what}");
        }
    }
}

#[tokio::test]
async fn stamps_and_lengths_that_do_not_fit() {
    let mut bench = Bench::real(1).await;
    let length = LENGTH as u64;
    let stages = [
        Stage::PipelineSetupAppend,
        Stage::PipelineSetupAppendRecovery,
        Stage::PipelineSetupStreamingRecovery,
        Stage::PipelineCloseRecovery,
    ];
    // (stamp, new stamp, least, most, whether it fits)
    let cases = [
        (STAMP, STAMP, length, length, true),
        (STAMP, STAMP + 5, length, length, true),
        (STAMP - 1, STAMP + 1, length, length, true),
        (STAMP + 1, STAMP + 2, length, length, false),
        (STAMP - 1, STAMP - 1, length, length, false),
        (STAMP, STAMP - 1, length, length, false),
        (STAMP, u64::MAX, length + 1, length + 1, false),
        (STAMP, STAMP + 1, length - 1, length, false),
        (STAMP, STAMP + 1, 0, length - 1, false),
    ];
    let mut wanted = BTreeMap::new();
    for at in 0..stages.len() * cases.len() {
        let state = if at < cases.len() { State::Final } else { State::Written };
        wanted.insert(1000 + at as u64, state);
    }
    let mut writers = prepare(&mut bench, &wanted).await.into_iter();
    let (addr, folder) = (bench.addr(0), bench.folder.path().join("dn0"));
    for (id, state) in wanted {
        let at = id as usize - 1000;
        let stage = stages[at / cases.len()];
        let (stamp, next, least, most, fits) = cases[at % cases.len()];
        let fits = match stage {
            // An append names the very version.
            Stage::PipelineSetupAppend => fits && stamp == STAMP,
            // It is cut to what was acknowledged, which may be more than its client knows.
            Stage::PipelineSetupStreamingRecovery => fits || (least == length - 1 && next == STAMP + 1),
            _ => fits,
        };
        let case = Again { stage, stamp, next, least, most, client: "client" };
        let before = files(&folder, id);
        let (_speaker, accepted) = case.ask(&addr, id, &[]).await;
        assert_eq!(accepted, fits, "{case:?} from {state:?}");
        if !fits {
            assert_eq!(files(&folder, id), before, "{case:?} from {state:?}");
        }
        if state == State::Written && !(STAMP..=next).contains(&STAMP) {
            // An old request does not stop a newer writer.
            let mut writer = writers.next().unwrap();
            writer.packet(1, LENGTH, b"more", Flags::None).await;
            writer.acked(1, 1).await;
        } else if state == State::Written {
            writers.next().unwrap();
        }
    }
}

/// A next node that takes everything and acknowledges nothing.
pub async fn deaf() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(&[4, 8, 0, 18, 0]).await.unwrap();
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    });
    (addr, task)
}

/// What only some nodes have is cut off, the checksum of the last chunk with it, and comes again.
#[tokio::test]
async fn a_recovery_cuts_to_what_all_have_acknowledged() {
    let bench = Bench::real(1).await;
    let (addr, data) = (bench.addr(0), bytes(5000));
    for (id, acked, sent) in [(1, 0, 300), (2, 700, 900), (3, 512, 4000), (4, 1000, 1000), (5, 700, 4999)] {
        let mut speaker = Speaker::open(&addr, id, &[]).await;
        if acked > 0 {
            speaker.packet(0, 0, &data[..acked], Flags::Sync).await;
            speaker.acked(0, 1).await;
        }
        drop(speaker);
        let length = acked as u64;
        let first = Again {
            next: STAMP + 1,
            least: length,
            most: length,
            ..Again::new(Stage::PipelineSetupStreamingRecovery)
        };
        let (deaf, task) = deaf().await;
        let (mut speaker, accepted) = first.ask(&addr, id, &[deaf]).await;
        assert!(accepted);
        let from = acked / 512 * 512;
        speaker.packet(1, from, &data[from..sent], Flags::None).await;
        let has = async || read_block(&addr, id, 0, sent as u64).await;
        assert_eq!(has().await.unwrap(), &data[..sent]);
        let second = Again { stamp: STAMP + 1, next: STAMP + 2, most: sent as u64, ..first };
        let (mut other, accepted) = second.ask(&addr, id, &[]).await;
        assert!(accepted, "{acked} of {sent}");
        assert!(speaker.closed().await, "the first writer is stopped");
        assert_eq!(read_block(&addr, id, 0, length).await.unwrap(), &data[..acked]);
        let folder = bench.folder.path().join("dn0");
        assert!(
            files(&folder, id)
                .iter()
                .any(|(path, bytes)| path.ends_with(format!("blk_{id}")) && bytes.len() == acked)
        );
        other.packet(9, from, &data[from..], Flags::None).await;
        other.acked(9, 1).await;
        other.packet(10, data.len(), &[], Flags::Last).await;
        other.acked(10, 1).await;
        assert_eq!(read_block(&addr, id, 0, 5000).await.unwrap(), data);
        task.abort();
    }
}

/// A pipeline loses a node and gets another one: the survivor copies what is visible, all of them take the new stamp.
#[tokio::test]
async fn a_pipeline_with_a_new_node() {
    let bench = Bench::real(3).await;
    let data = bytes(200_000);
    let mut speaker = Speaker::open(&bench.addr(0), 1, &[bench.addr(1)]).await;
    let half = 100_100;
    for (seqno, (from, to)) in [(0, 50_000), (49_664, 100_000), (99_840, half)].into_iter().enumerate() {
        speaker.packet(seqno as i64, from, &data[from..to], Flags::None).await;
        speaker.acked(seqno as i64, 2).await;
    }
    let mut transfer = Speaker::connect(&bench.addr(0)).await;
    let request = pb::OpTransferBlockProto {
        header: pb::ClientOperationHeaderProto {
            base_header: base(block_proto(1, STAMP, half as u64)),
            client_name: "client".into(),
        },
        targets: vec![target(&bench.addr(2))],
        target_storage_types: vec![1],
        target_storage_ids: vec![],
    };
    transfer.op(Op::TransferBlock, &request).await;
    assert_eq!(transfer.response().await.unwrap().status, 0);
    assert!(transfer.closed().await);
    let again =
        Again { least: half as u64, most: half as u64, ..Again::new(Stage::PipelineSetupStreamingRecovery) };
    let (mut speaker, accepted) = again.ask(&bench.addr(0), 1, &[bench.addr(2)]).await;
    assert!(accepted);
    let from = half / 512 * 512;
    speaker.packet(9, from, &data[from..], Flags::Sync).await;
    speaker.acked(9, 2).await;
    speaker.packet(10, data.len(), &[], Flags::Last).await;
    speaker.acked(10, 2).await;
    for at in [0, 2] {
        assert_eq!(read_block(&bench.addr(at), 1, 0, 200_000).await.unwrap(), data);
    }
    // The node that was left out has the old stamp: it goes on in no pipeline of the new one.
    let stale = Again { stamp: STAMP + 1, next: STAMP + 2, ..again };
    assert!(!stale.ask(&bench.addr(1), 1, &[]).await.1);
    // A final replica is copied as one, without a report: the append that follows makes one.
    let mut transfer = Speaker::connect(&bench.addr(0)).await;
    let mut request = request;
    request.header.base_header.block.generation_stamp = STAMP + 1;
    request.targets = vec![target(&bench.addr(1))];
    transfer.op(Op::TransferBlock, &request).await;
    assert_eq!(transfer.response().await.unwrap().status, 0);
    assert_eq!(read_block(&bench.addr(1), 1, 0, 200_000).await.unwrap(), data);
}

/// An append within a chunk: packets with checksums of their own bytes, flushed and sent again longer.
#[tokio::test]
async fn appends_within_a_chunk() {
    let bench = Bench::real(2).await;
    let data = bytes(3000);
    let targets = [bench.addr(1)];
    write_block(&bench.addr(0), 1, &targets, &data[..700], 512).await;
    let again = Again { least: 700, most: 700, ..Again::new(Stage::PipelineSetupAppend) };
    let (mut speaker, accepted) = again.ask(&bench.addr(0), 1, &targets).await;
    assert!(accepted);
    let packets = [(700, 750), (700, 800), (700, 1024), (1024, 1500), (1024, 2900)];
    for (seqno, (from, to)) in packets.into_iter().enumerate() {
        speaker.packet(seqno as i64, from, &data[from..to], Flags::None).await;
        speaker.acked(seqno as i64, 2).await;
        for addr in [&bench.addr(0), &targets[0]] {
            assert_eq!(read_block(addr, 1, 0, to as u64).await.unwrap(), &data[..to]);
        }
    }
    speaker.packet(9, 2900, &[], Flags::Last).await;
    speaker.acked(9, 2).await;
    for addr in [&bench.addr(0), &targets[0]] {
        assert_eq!(read_block(addr, 1, 0, 2900).await.unwrap(), &data[..2900]);
    }
    // One that crosses the chunk's border is refused, and so is one that leaves a gap.
    let again = Again { stamp: STAMP + 1, next: STAMP + 2, least: 2900, most: 2900, ..again };
    for (from, to) in [(2900, 3100), (2950, 2960)] {
        let (mut speaker, accepted) =
            Again { stage: Stage::PipelineSetupAppendRecovery, ..again }.ask(&targets[0], 1, &[]).await;
        assert!(accepted);
        speaker.packet(0, from, &bytes(4000)[from..to], Flags::None).await;
        assert!(speaker.closed().await);
        assert_eq!(read_block(&targets[0], 1, 0, 2900).await.unwrap(), &data[..2900]);
    }
}

/// The last chunk of a final replica is bad: nothing is appended to it, and the NameNode hears of it.
#[tokio::test]
async fn an_append_to_a_bad_last_chunk() {
    let bench = Bench::real(1).await;
    let addr = bench.addr(0);
    write_block(&addr, 1, &[], &bytes(LENGTH), 512).await;
    let folder = bench.folder.path().join("dn0");
    let path = files(&folder, 1).into_keys().find(|path| path.ends_with("blk_1")).unwrap();
    let mut stored = std::fs::read(&path).unwrap();
    stored[900] ^= 1;
    std::fs::write(&path, &stored).unwrap();
    let before = files(&folder, 1);
    assert!(!Again::new(Stage::PipelineSetupAppend).ask(&addr, 1, &[]).await.1);
    assert_eq!(files(&folder, 1), before);
    until(|| bench.namenode.notes.lock().bad.iter().any(|bad| bad.b.block_id == 1)).await;
}

/// What an upgrade or a snapshot has kept by a second name does not change.
#[tokio::test]
async fn an_append_to_a_file_with_two_names() {
    let bench = Bench::real(1).await;
    let addr = bench.addr(0);
    let data = bytes(LENGTH + 10);
    write_block(&addr, 1, &[], &data[..LENGTH], 512).await;
    let folder = bench.folder.path().join("dn0");
    for (at, path) in files(&folder, 1).into_keys().enumerate() {
        std::fs::hard_link(path, bench.folder.path().join(format!("kept{at}"))).unwrap();
    }
    let kept = || [0, 1].map(|at| std::fs::read(bench.folder.path().join(format!("kept{at}"))).unwrap());
    let before = kept();
    let (mut speaker, accepted) = Again::new(Stage::PipelineSetupAppend).ask(&addr, 1, &[]).await;
    assert!(accepted);
    speaker.packet(0, LENGTH, &data[LENGTH..], Flags::None).await;
    speaker.acked(0, 1).await;
    speaker.packet(1, data.len(), &[], Flags::Last).await;
    speaker.acked(1, 1).await;
    assert_eq!(read_block(&addr, 1, 0, data.len() as u64).await.unwrap(), data);
    assert_eq!(kept(), before);
}

/// What the NameNode hears of each stage: that a replica is written again, that it is whole, or nothing.
#[tokio::test]
async fn what_the_namenode_hears() {
    let mut bench = Bench::real(1).await;
    let stages = [
        (Stage::PipelineSetupAppend, State::Final, Some(1)),
        (Stage::PipelineSetupAppendRecovery, State::Final, Some(1)),
        (Stage::PipelineSetupAppendRecovery, State::Idle, Some(1)),
        (Stage::PipelineSetupStreamingRecovery, State::Idle, None),
        (Stage::PipelineCloseRecovery, State::Idle, Some(2)),
        (Stage::PipelineCloseRecovery, State::Final, Some(2)),
    ];
    let wanted: BTreeMap<u64, State> =
        stages.iter().zip(1..).map(|((_, state, _), id)| (id, *state)).collect();
    let _writers = prepare(&mut bench, &wanted).await;
    let addr = bench.addr(0);
    for ((stage, _, expected), id) in stages.into_iter().zip(1..) {
        let (_speaker, accepted) = Again::new(stage).ask(&addr, id, &[]).await;
        assert!(accepted);
        // Behind it comes what is told of another block: until then all of this one was told.
        write_block(&addr, 100 + id, &[], b"abc", 512).await;
        until(|| bench.namenode.received(100 + id) == 1).await;
        if expected.is_some() {
            let told = || {
                let notes = bench.namenode.notes.lock();
                notes.changes.iter().any(|(_, block, _)| block.block_id == id && block.gen_stamp == STAMP + 1)
            };
            until(told).await;
        }
        let notes = bench.namenode.notes.lock();
        let heard: Vec<_> = notes
            .changes
            .iter()
            .filter(|(_, block, _)| block.block_id == id && block.gen_stamp == STAMP + 1)
            .map(|(_, block, status)| (*status, block.num_bytes.unwrap()))
            .collect();
        assert_eq!(
            heard,
            expected.map(|status| (status, LENGTH as u64)).into_iter().collect::<Vec<_>>(),
            "{stage:?}"
        );
    }
}
