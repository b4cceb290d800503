//! DataNodes die, lie and hang; the reader and the writer go on.

use mobula_client::{Client, ClientError, CreateOptions};

use crate::fake::Fake;
use crate::{assert_same, pattern};

const BLOCK: u64 = 256 << 10;

fn options(replication: u16) -> CreateOptions {
    CreateOptions {
        overwrite: true,
        block_size: Some(BLOCK),
        replication: Some(replication),
        ..CreateOptions::default()
    }
}

/// A file of several blocks on a cluster of four nodes.
async fn stored(length: usize) -> (Fake, Client, bytes::Bytes) {
    let fake = Fake::start(4).await;
    let client = fake.client();
    let data = pattern(length);
    client.put("/f", data.clone(), options(3)).await.unwrap();
    (fake, client, data)
}

/// The first node of each block's list, where readers go first.
fn first_node(fake: &Fake, block: usize) -> usize {
    fake.namenode.blocks_of("/f")[block].nodes[0]
}

#[tokio::test]
async fn a_corrupt_replica_is_skipped_and_reported() {
    let (fake, client, data) = stored(700_000).await;
    let block = fake.namenode.blocks_of("/f")[1].clone();
    let bad = block.nodes[0];
    fake.nodes[bad].state.lock().replicas.get_mut(&block.id).unwrap().data[200_000] ^= 1;
    assert_same(&client.get("/f").await.unwrap(), &data);
    let reported = fake.namenode.state.lock().bad.clone();
    assert_eq!(reported, [(block.id, fake.nodes[bad].uuid())]);
    // The node's other replicas are still read.
    let reads = fake.nodes[bad].state.lock().reads;
    client.get("/f").await.unwrap();
    assert!(fake.nodes[bad].state.lock().reads > reads);
}

#[tokio::test]
async fn the_only_replica_is_reported_and_never_handed_out() {
    let fake = Fake::start(1).await;
    let client = fake.client();
    client.put("/f", pattern(1_000), options(1)).await.unwrap();
    let block = fake.namenode.blocks_of("/f")[0].clone();
    fake.nodes[0].state.lock().replicas.get_mut(&block.id).unwrap().data[999] ^= 0x80;
    let failed = client.get("/f").await.unwrap_err();
    assert!(matches!(failed, ClientError::DataNodes(_)), "{failed}");
    assert_eq!(fake.namenode.state.lock().bad, [(block.id, fake.nodes[0].uuid())]);
}

#[tokio::test]
async fn if_all_replicas_seem_corrupt_it_may_be_us() {
    let (fake, client, _) = stored(1_000).await;
    let block = fake.namenode.blocks_of("/f")[0].clone();
    for node in &block.nodes {
        fake.nodes[*node].state.lock().replicas.get_mut(&block.id).unwrap().data[0] ^= 1;
    }
    client.get("/f").await.unwrap_err();
    assert_eq!(fake.namenode.state.lock().bad, []);
}

#[tokio::test]
async fn a_node_that_dies_while_it_is_read_costs_nothing() {
    let (fake, client, data) = stored(700_000).await;
    fake.nodes[first_node(&fake, 1)].state.lock().dies_after_bytes_read = Some(100_000);
    assert_same(&client.get("/f").await.unwrap(), &data);
    assert!(fake.nodes.iter().any(|node| node.state.lock().dead), "one died");
}

#[tokio::test]
async fn a_dead_node_and_a_missing_replica_are_passed_over() {
    let (fake, client, data) = stored(700_000).await;
    let blocks = fake.namenode.blocks_of("/f");
    fake.nodes[blocks[0].nodes[0]].state.lock().dead = true;
    fake.nodes[blocks[1].nodes[0]].state.lock().replicas.remove(&blocks[1].id);
    assert_same(&client.get("/f").await.unwrap(), &data);
}

#[tokio::test]
async fn a_node_that_hangs_is_left() {
    let (fake, client, data) = stored(1_000).await;
    fake.nodes[first_node(&fake, 0)].state.lock().stalls_reads = true;
    assert_same(&client.get("/f").await.unwrap(), &data);
}

#[tokio::test]
async fn locations_are_asked_for_again_when_all_replicas_fail() {
    let (fake, client, data) = stored(1_000).await;
    for node in &fake.nodes {
        node.state.lock().dead = true;
    }
    let asked = |fake: &Fake| {
        let state = fake.namenode.state.lock();
        state.calls.iter().filter(|(method, ..)| method == "getBlockLocations").count()
    };
    let read = tokio::spawn(async move { client.get("/f").await });
    while asked(&fake) < 2 {
        tokio::task::yield_now().await;
    }
    for node in &fake.nodes {
        node.state.lock().dead = false;
    }
    assert_same(&read.await.unwrap().unwrap(), &data);
}

/// Another file takes the path, and the blocks of the old one are deleted: half of each is neither.
#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_read() {
    for known in [true, false] {
        let (fake, client, data) = stored(3 * BLOCK as usize).await;
        let old = fake.namenode.blocks_of("/f");
        let mut reader = client.open("/f").await.unwrap();
        let head = reader.next().await.unwrap().unwrap();
        assert_eq!(head, data[..head.len()]);
        let other: Vec<u8> = data.iter().map(|byte| !byte).collect();
        client.put("/f", other.clone().into(), options(3)).await.unwrap();
        for node in &fake.nodes {
            for block in &old[1..] {
                node.state.lock().replicas.remove(&block.id);
            }
        }
        if known {
            let failed = reader.refresh().await.unwrap_err().to_string();
            assert!(failed.contains("Blocklist for /f has changed"), "{failed}");
        }
        let failed = loop {
            let at = reader.position() as usize;
            match reader.next().await {
                Ok(piece) => assert_eq!(piece.unwrap(), data[at..reader.position() as usize]),
                Err(failed) => break failed.to_string(),
            }
        };
        assert!(failed.contains("Blocklist for /f has changed"), "{failed}");
        assert_same(&client.get("/f").await.unwrap(), &other);
    }
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_excluded() {
    let fake = Fake::start(4).await;
    let client = fake.client();
    for dead in [1, 2, 3] {
        fake.nodes[dead].state.lock().dead = true;
        let data = pattern(1_000);
        client.put("/f", data.clone(), options(3)).await.unwrap();
        assert_same(&client.get("/f").await.unwrap(), &data);
    }
}

#[tokio::test]
async fn a_write_with_no_node_left_says_so() {
    let fake = Fake::start(2).await;
    let client = fake.client();
    for node in &fake.nodes {
        node.state.lock().dead = true;
    }
    let failed = client.put("/f", pattern(1_000), options(2)).await.unwrap_err();
    assert!(failed.to_string().contains("after 6 tries"), "{failed}");
}

#[tokio::test]
async fn a_node_that_calls_the_bytes_wrong_is_replaced() {
    let fake = Fake::start(4).await;
    let client = fake.client();
    fake.nodes[2].state.lock().claims_bad_checksum = true;
    let data = pattern(10_000);
    client.put("/f", data.clone(), options(3)).await.unwrap();
    assert_same(&client.get("/f").await.unwrap(), &data);
    assert!(!fake.namenode.blocks_of("/f")[0].nodes.contains(&2), "the bad node is excluded");
}

#[tokio::test]
async fn a_write_that_was_dropped_half_way_does_not_spoil_the_file() {
    let fake = Fake::start(3).await;
    let client = fake.client();
    let data = pattern(40 << 20);
    let big = CreateOptions { block_size: Some(64 << 20), ..options(3) };
    let mut writer = client.create("/f", big).await.unwrap();
    // Dropped at the first wait, most likely with half a packet sent.
    let cut = tokio::time::timeout(std::time::Duration::from_millis(5), writer.write(data.clone())).await;
    let written = writer.position();
    assert!(cut.is_err() || written == data.len() as u64);
    writer.write(data.slice(written as usize..)).await.unwrap();
    writer.close().await.unwrap();
    assert_same(&client.get("/f").await.unwrap(), &data);
}
