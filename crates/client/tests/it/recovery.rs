//! Pipelines that lose nodes: at every packet, by dying, hanging, lying and restarting, for each node.

use std::time::Duration;

use mobula_client::{AppendOptions, Client, ClientError, CreateOptions, ReplaceDatanode, ReplacePolicy};
use mobula_proto::hdfs::op_write_block_proto::BlockConstructionStage as Stage;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::fake::Fake;
use crate::fake_node::{Failure, Moment};
use crate::{assert_same, pattern};

const BLOCK: u64 = 256 << 10;
/// Data packets of a block of that size, each of 64,512 bytes but the last.
const PACKETS: usize = 5;
/// A node that says nothing is found out and left within this time.
const HANG_LIMIT: Duration = Duration::from_secs(20);

fn options(replication: u16) -> CreateOptions {
    CreateOptions {
        overwrite: true,
        block_size: Some(BLOCK),
        replication: Some(replication),
        ..CreateOptions::default()
    }
}

/// Where the first block of the first file of a fake of `count` nodes goes.
fn pipeline(count: usize) -> Vec<usize> {
    (1..=3).map(|at| at % count).collect()
}

/// How a file is written while something goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// In one go.
    Whole,
    /// In pieces that end anywhere, each flushed.
    Flushed,
    /// The same, each synced.
    Synced,
    /// The first part was closed before.
    Appended,
}

/// Writes two blocks, and checks after each flush that a new reader sees what was flushed.
async fn write(client: &Client, path: &str, data: &bytes::Bytes, manner: Manner) -> Result<(), ClientError> {
    let mut written = 0;
    let mut writer = match manner {
        Manner::Appended => {
            client.put(path, data.slice(..1_000), options(3)).await?;
            written = 1_000;
            client.append(path, AppendOptions::default()).await?
        }
        _ => client.create(path, options(3)).await?,
    };
    let piece = if matches!(manner, Manner::Flushed | Manner::Synced) { 50_001 } else { data.len() };
    while written < data.len() {
        let length = piece.min(data.len() - written);
        writer.write(data.slice(written..written + length)).await?;
        written += length;
        match manner {
            Manner::Whole | Manner::Appended => continue,
            Manner::Flushed => writer.hflush().await?,
            Manner::Synced => writer.hsync().await?,
        }
        assert_same(&client.get(path).await?, &data[..written]);
    }
    writer.close().await
}

/// A write with one failure, after which everything must be as if there had been none.
async fn survives(nodes: usize, victim: usize, moment: Moment, failure: Failure, manner: Manner) -> Fake {
    let fake = Fake::start(nodes).await;
    let client = fake.client();
    let data = pattern(2 * BLOCK as usize - 1_000);
    let case = format!("node {victim} {failure:?} at {moment:?}, {manner:?}, {nodes} nodes");
    fake.nodes[victim].state.lock().fault = Some((moment, failure));
    if let Err(error) = write(&client, "/f", &data, manner).await {
        panic!("{case}: {error}");
    }
    println!("{case}: {:?}", fake.namenode.check_closed("/f", &data));
    assert_same(&client.get("/f").await.unwrap(), &data);
    fake
}

/// Every moment of a block's write.
fn moments() -> Vec<Moment> {
    let packets = 0..=PACKETS;
    let before = packets.clone().map(Moment::Packet);
    before.chain(packets.map(Moment::Ack)).chain([Moment::SetUp, Moment::End]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_die_at_any_moment() {
    for manner in [Manner::Whole, Manner::Flushed, Manner::Synced, Manner::Appended] {
        for moment in moments() {
            for victim in pipeline(5) {
                let fake = survives(5, victim, moment, Failure::Dies, manner).await;
                let abandoned = fake.namenode.state.lock().abandoned.len();
                let flushes = matches!(manner, Manner::Flushed | Manner::Synced);
                let in_setup = moment == Moment::SetUp;
                assert!(!flushes || in_setup || abandoned == 0, "what was flushed is not given up");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_die_when_there_is_no_other() {
    for manner in [Manner::Whole, Manner::Flushed, Manner::Appended] {
        for moment in [Moment::Packet(0), Moment::Packet(3), Moment::Ack(2), Moment::End] {
            for victim in pipeline(3) {
                survives(3, victim, moment, Failure::Dies, manner).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_lie() {
    for failure in [Failure::AcksTheFuture, Failure::AcksForOneOnly] {
        for moment in [Moment::Ack(0), Moment::Ack(3), Moment::End] {
            for victim in pipeline(5).into_iter().take(2) {
                survives(5, victim, moment, failure, Manner::Whole).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_may_hang() {
    let mut cases = JoinSet::new();
    for moment in [Moment::SetUp, Moment::Packet(0), Moment::Packet(3), Moment::Ack(2), Moment::End] {
        for victim in pipeline(5) {
            cases.spawn(async move {
                let started = Instant::now();
                survives(5, victim, moment, Failure::Hangs, Manner::Whole).await;
                assert!(started.elapsed() < HANG_LIMIT, "{moment:?} took {:?}", started.elapsed());
            });
        }
    }
    while let Some(case) = cases.join_next().await {
        case.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_restart_in_order() {
    for victim in pipeline(5) {
        let started = Instant::now();
        survives(5, victim, Moment::Packet(3), Failure::Restarts(1_000), Manner::Flushed).await;
        assert!(started.elapsed() < Duration::from_secs(5), "others go on meanwhile");
    }
}

#[tokio::test]
async fn the_only_node_is_waited_for_when_it_restarts_in_order() {
    for flushed in [0, 100_000] {
        let fake = Fake::start(1).await;
        let client = fake.client();
        let data = pattern(200_000);
        fake.nodes[0].state.lock().fault = Some((Moment::Packet(2), Failure::Restarts(4_000)));
        let mut writer = client.create("/f", options(1)).await.unwrap();
        writer.write(data.slice(..flushed)).await.unwrap();
        writer.hflush().await.unwrap();
        writer.write(data.slice(flushed..)).await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(fake.namenode.check_closed("/f", &data), [1]);
        assert_eq!(fake.namenode.state.lock().abandoned.is_empty(), flushed > 0, "what was flushed stays");
    }
}

#[tokio::test]
async fn two_of_three_nodes_may_die_and_their_places_are_taken() {
    let fake = Fake::start(5).await;
    let client = fake.client();
    let data = pattern(200_000);
    let mut writer = client.create("/f", options(3)).await.unwrap();
    writer.write(data.slice(..70_000)).await.unwrap();
    writer.hflush().await.unwrap();
    let nodes = pipeline(5);
    for (victim, until) in [(nodes[0], 100_000), (nodes[2], 150_000)] {
        fake.nodes[victim].state.lock().dead = true;
        writer.write(data.slice(writer.position() as usize..until)).await.unwrap();
        writer.hflush().await.unwrap();
        assert_same(&client.get("/f").await.unwrap(), &data[..until]);
    }
    writer.write(data.slice(150_000..)).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(fake.namenode.check_closed("/f", &data), [3]);
    assert_eq!(fake.nodes.iter().map(|node| node.state.lock().copies).sum::<usize>(), 2);
}

#[tokio::test]
async fn policies_say_when_a_lost_node_is_replaced() {
    let cases = [
        // An unflushed new block has two of three nodes left: HDFS's default goes on with them.
        (ReplacePolicy::Default, false, 2),
        (ReplacePolicy::Default, true, 3),
        (ReplacePolicy::Always, false, 3),
        (ReplacePolicy::Never, true, 2),
    ];
    for (policy, flushed, expected) in cases {
        let fake = Fake::start(5).await;
        let replace = ReplaceDatanode { policy, best_effort: false };
        let client = fake.client_with(vec![fake.address()], replace);
        let data = pattern(200_000);
        let mut writer = client.create("/f", options(3)).await.unwrap();
        writer.write(data.slice(..130_000)).await.unwrap();
        if flushed {
            writer.hflush().await.unwrap();
        }
        fake.nodes[pipeline(5)[1]].state.lock().dead = true;
        writer.write(data.slice(130_000..)).await.unwrap();
        writer.hflush().await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(fake.namenode.check_closed("/f", &data), [expected], "{policy:?}, flushed {flushed}");
    }
}

#[tokio::test]
async fn without_a_replacement_best_effort_goes_on_and_else_the_write_fails() {
    for best_effort in [true, false] {
        let fake = Fake::start(3).await;
        let replace = ReplaceDatanode { policy: ReplacePolicy::Always, best_effort };
        let client = fake.client_with(vec![fake.address()], replace);
        let data = pattern(200_000);
        let mut writer = client.create("/f", options(3)).await.unwrap();
        writer.write(data.slice(..130_000)).await.unwrap();
        writer.hflush().await.unwrap();
        fake.nodes[pipeline(3)[1]].state.lock().dead = true;
        writer.write(data.slice(130_000..)).await.unwrap();
        let flushed = writer.hflush().await;
        if best_effort {
            flushed.unwrap();
            writer.close().await.unwrap();
            assert_eq!(fake.namenode.check_closed("/f", &data), [2]);
        } else {
            let failed = flushed.unwrap_err().to_string();
            assert!(failed.contains("Failed to replace a bad datanode"), "{failed}");
        }
    }
}

#[tokio::test]
async fn a_copy_that_does_not_arrive_costs_one_more_round() {
    let fake = Fake::start(5).await;
    let client = fake.client();
    let data = pattern(200_000);
    let mut writer = client.create("/f", options(3)).await.unwrap();
    writer.write(data.slice(..130_000)).await.unwrap();
    writer.hflush().await.unwrap();
    // The fake offers node 0 first, which says that all is well and has nothing.
    fake.nodes[0].state.lock().refuses_copies = true;
    fake.nodes[pipeline(5)[1]].state.lock().dead = true;
    writer.write(data.slice(130_000..)).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(fake.namenode.check_closed("/f", &data), [3]);
}

#[tokio::test]
async fn all_nodes_of_a_new_block_may_die_while_its_bytes_are_here() {
    let fake = Fake::start(6).await;
    let client = fake.client();
    let data = pattern(200_000);
    let mut writer = client.create("/f", options(3)).await.unwrap();
    writer.write(data.slice(..130_000)).await.unwrap();
    for victim in pipeline(6) {
        fake.nodes[victim].state.lock().dead = true;
    }
    writer.write(data.slice(130_000..)).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(fake.namenode.check_closed("/f", &data), [3]);
    assert!(!fake.namenode.state.lock().abandoned.is_empty());
}

#[tokio::test]
async fn a_flushed_block_without_nodes_fails_the_write() {
    let fake = Fake::start(6).await;
    let client = fake.client();
    let data = pattern(200_000);
    let mut writer = client.create("/f", options(3)).await.unwrap();
    writer.write(data.slice(..130_000)).await.unwrap();
    writer.hflush().await.unwrap();
    for node in &fake.nodes {
        node.state.lock().dead = true;
    }
    let failed = async {
        writer.write(data.slice(130_000..)).await?;
        writer.hflush().await
    };
    let failed = failed.await.unwrap_err().to_string();
    assert!(failed.contains("are bad. Aborting"), "{failed}");
    assert_eq!(fake.namenode.state.lock().abandoned, [], "what was flushed stays at the NameNode");
    let again = writer.write(data.slice(..1)).await.unwrap_err().to_string();
    assert!(again.contains("failed before"), "{again}");
}

#[tokio::test]
async fn recoveries_without_an_ack_between_are_bounded() {
    let fake = Fake::start(1).await;
    let client = fake.client();
    let mut writer = client.create("/f", options(1)).await.unwrap();
    writer.write(pattern(1_000)).await.unwrap();
    writer.hflush().await.unwrap();
    // It comes back at once each time, takes the set-up, and goes again.
    let node = fake.nodes[0].clone();
    let plan = tokio::spawn(async move {
        loop {
            {
                let mut state = node.state.lock();
                let at = state.packets;
                state.fault.get_or_insert((Moment::Packet(at), Failure::Restarts(0)));
            }
            tokio::task::yield_now().await;
        }
    });
    writer.write(pattern(1_000)).await.unwrap();
    let failed = writer.hflush().await.unwrap_err().to_string();
    plan.abort();
    assert!(failed.contains("Tried pipeline recovery 5 times"), "{failed}");
}

#[tokio::test]
async fn a_slow_node_is_left_unless_all_are() {
    for slow in [1, 3] {
        let fake = Fake::start(4).await;
        let client = fake.client();
        let nodes = pipeline(4);
        for victim in &nodes[..slow] {
            fake.nodes[*victim].state.lock().slow = true;
        }
        let data = pattern(50_000);
        let mut writer = client.create("/f", options(3)).await.unwrap();
        for at in (0..data.len()).step_by(2_000) {
            writer.write(data.slice(at..at + 2_000)).await.unwrap();
            writer.hflush().await.unwrap();
        }
        writer.close().await.unwrap();
        let left = !fake.namenode.blocks_of("/f")[0].nodes.contains(&nodes[0]);
        assert_eq!(left, slow == 1);
        assert_eq!(fake.namenode.check_closed("/f", &data), [3]);
    }
}

#[tokio::test]
async fn the_end_is_sent_again_with_a_sync_when_it_was_not_heard() {
    let fake = Fake::start(3).await;
    let client = fake.client();
    let data = pattern(100_000);
    let nodes = pipeline(3);
    let mut writer = client.create("/f", options(3)).await.unwrap();
    writer.write(data.clone()).await.unwrap();
    writer.hflush().await.unwrap();
    fake.nodes[nodes[0]].state.lock().fault = Some((Moment::End, Failure::Dies));
    writer.close().await.unwrap();
    assert_eq!(fake.namenode.check_closed("/f", &data), [2]);
    let stages = fake.nodes[nodes[1]].state.lock().stages.clone();
    assert_eq!(stages, [Stage::PipelineSetupCreate, Stage::PipelineSetupAppendRecovery]);
}

/// Writers that write, flush and sync as a seed says, while nodes die, lie, restart and come back, one at
/// a time. `SEED=n` replays one, `SEEDS=n` says how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_writes_with_random_failures() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("SEED").unwrap_or(0);
    let count = number("SEEDS").unwrap_or(if number("SEED").is_some() { 1 } else { 60 });
    for seed in first..first + count {
        let run = tokio::spawn(random_run(seed));
        let ended = timeout(Duration::from_secs(60), run).await;
        assert!(matches!(ended, Ok(Ok(()))), "{ended:?}; replay with SEED={seed}");
    }
}

async fn random_run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let fake = Fake::start(6).await;
    let client = fake.client();
    let data = pattern(4 * BLOCK as usize);
    let mut writer = client.create("/f", options(3)).await.unwrap();
    let mut victim: Option<usize> = None;
    let mut written = 0;
    let hurried = random.random_bool(0.5);
    while written < data.len() {
        let length = [1, 100, 511, 512, 4_000, 17_000, 70_000, 150_000][random.random_range(0..8)];
        let length = length.min(data.len() - written);
        // A caller without patience, whose calls are dropped at any moment, and made again.
        while hurried && (writer.position() as usize) < written + length && random.random_bool(0.7) {
            let at = writer.position() as usize;
            let limit = Duration::from_micros(random.random_range(0..3_000));
            if let Ok(ended) = timeout(limit, writer.write(data.slice(at..written + length))).await {
                ended.unwrap();
            }
        }
        let at = writer.position() as usize;
        writer.write(data.slice(at..written + length)).await.unwrap();
        written += length;
        while hurried && random.random_bool(0.7) {
            let limit = Duration::from_micros(random.random_range(0..3_000));
            if let Ok(ended) = timeout(limit, writer.hflush()).await {
                ended.unwrap();
            }
        }
        match random.random_range(0..10) {
            0..3 => writer.hflush().await.unwrap(),
            3 => writer.hsync().await.unwrap(),
            4 => {
                writer.close().await.unwrap();
                writer = client.append("/f", AppendOptions::default()).await.unwrap();
            }
            _ => continue,
        }
        assert_same(&client.get("/f").await.unwrap(), &data[..written]);
        // All that was written is on all nodes of the pipeline: one may fail now.
        if let Some(old) = victim.take() {
            let dead = {
                let mut state = fake.nodes[old].state.lock();
                state.fault = None;
                state.dead
            };
            if dead {
                fake.nodes[old].come_back();
            }
        }
        let node = random.random_range(0..fake.nodes.len());
        let mut state = fake.nodes[node].state.lock();
        let soon = state.packets + random.random_range(0..4);
        let moment = match random.random_range(0..4) {
            0 => Moment::SetUp,
            1 => Moment::Packet(soon),
            2 => Moment::Ack(soon),
            _ => Moment::End,
        };
        let failure = match random.random_range(0..5) {
            0..3 => Failure::Dies,
            3 => Failure::Restarts(50),
            _ => Failure::AcksTheFuture,
        };
        state.fault = Some((moment, failure));
        drop(state);
        victim = Some(node);
    }
    writer.close().await.unwrap();
    fake.namenode.check_closed("/f", &data);
    assert_same(&client.get("/f").await.unwrap(), &data);
}

/// After which a caller drops a call that cannot end.
const PATIENCE: Duration = Duration::from_millis(50);

/// Lets `call` run until `node` waits where it is held, and then drops it.
async fn drop_at_hold<T>(fake: &Fake, node: usize, call: impl Future<Output = T>) {
    let waits = async {
        while !fake.nodes[node].state.lock().waits {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = call => panic!("node {node} does not hold it up"),
        () = waits => {}
    }
}

/// A call that is dropped at its first wait; callers do it when their time is up.
async fn drop_at_once<T>(call: impl Future<Output = T>) {
    let mut call = std::pin::pin!(call);
    std::future::poll_fn(|context| {
        let _ = call.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
}

/// No node was asked for anything twice.
#[track_caller]
fn assert_undisturbed(fake: &Fake) {
    let state = fake.namenode.state.lock();
    assert_eq!((state.abandoned.len(), state.pipelines_updated), (0, 0));
    for node in &fake.nodes {
        let stages = node.state.lock().stages.clone();
        assert!(stages.iter().all(|stage| *stage == Stage::PipelineSetupCreate), "{stages:?}");
    }
}

#[tokio::test]
async fn calls_dropped_while_they_send_are_no_failures_of_the_pipeline() {
    let fake = Fake::start(3).await;
    let client = fake.client();
    // More than the window holds.
    let data = pattern(8 << 20);
    let big = CreateOptions { block_size: Some(64 << 20), ..options(3) };
    let mut writer = client.create("/f", big).await.unwrap();
    let first = fake.nodes[1].clone();
    first.state.lock().held = Some(Moment::Packet(0));
    drop_at_hold(&fake, 1, writer.write(data.clone())).await;
    for _ in 0..10 {
        let written = writer.position() as usize;
        timeout(PATIENCE, writer.write(data.slice(written..))).await.unwrap_err();
        timeout(PATIENCE, writer.hflush()).await.unwrap_err();
    }
    first.state.lock().held = None;
    let written = writer.position() as usize;
    writer.write(data.slice(written..)).await.unwrap();
    writer.hflush().await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(fake.namenode.check_closed("/f", &data), [3]);
    assert_undisturbed(&fake);
}

#[tokio::test]
async fn what_a_dropped_call_left_goes_out_although_nobody_calls() {
    let fake = Fake::start(1).await;
    let client = fake.client();
    // Fewer packets than the window takes, more than the sockets' buffers.
    let data = pattern(5_000_000);
    let big = CreateOptions { block_size: Some(64 << 20), ..options(1) };
    let mut writer = client.create("/f", big).await.unwrap();
    let node = fake.nodes[0].clone();
    node.state.lock().held = Some(Moment::Packet(0));
    let _ = timeout(PATIENCE, writer.write(data.clone())).await;
    let written = writer.position() as usize / 512 * 512;
    node.state.lock().held = None;
    let started = Instant::now();
    while node.state.lock().replicas.values().next().unwrap().data.len() < written {
        assert!(started.elapsed() < Duration::from_secs(20), "it still waits for a call");
        tokio::task::yield_now().await;
    }
    writer.write(data.slice(writer.position() as usize..)).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(fake.namenode.check_closed("/f", &data), [1]);
}

#[tokio::test]
async fn a_call_dropped_during_a_set_up_blames_no_node() {
    for held in pipeline(4) {
        let fake = Fake::start(4).await;
        let client = fake.client();
        let data = pattern(100_000);
        let mut writer = client.create("/f", options(3)).await.unwrap();
        fake.nodes[held].state.lock().held = Some(Moment::SetUp);
        drop_at_hold(&fake, held, writer.write(data.clone())).await;
        for _ in 0..10 {
            drop_at_once(writer.hflush()).await;
        }
        fake.nodes[held].state.lock().held = None;
        writer.hflush().await.unwrap();
        assert_eq!(fake.namenode.blocks_of("/f")[0].nodes, pipeline(4));
        writer.close().await.unwrap();
        assert_eq!(fake.namenode.check_closed("/f", &data), [3]);
        assert_undisturbed(&fake);
    }
}

#[tokio::test]
async fn a_call_dropped_during_a_recovery_blames_no_node() {
    // The survivors of the pipeline that a lost node leaves, at the set-up and while one copies.
    for (held, moment) in [(1, Moment::SetUp), (3, Moment::SetUp), (3, Moment::Copy)] {
        let fake = Fake::start(6).await;
        let client = fake.client();
        let data = pattern(200_000);
        let mut writer = client.create("/f", options(3)).await.unwrap();
        writer.write(data.slice(..70_000)).await.unwrap();
        writer.hflush().await.unwrap();
        fake.nodes[2].state.lock().dead = true;
        fake.nodes[held].state.lock().held = Some(moment);
        let call = async {
            writer.write(data.slice(70_000..)).await.unwrap();
            writer.hflush().await
        };
        drop_at_hold(&fake, held, call).await;
        for _ in 0..10 {
            drop_at_once(writer.hflush()).await;
        }
        fake.nodes[held].state.lock().held = None;
        let written = writer.position() as usize;
        writer.write(data.slice(written..)).await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(fake.namenode.check_closed("/f", &data), [3]);
        assert_eq!(fake.namenode.state.lock().pipelines_updated, 1, "one recovery, {held} at {moment:?}");
        assert_eq!(fake.namenode.blocks_of("/f")[0].nodes, [1, 3, 0], "one other node");
    }
}
