//! What goes in comes out, whatever the sizes; the same cases against fakes and real clusters.

use bytes::Bytes;
use mobula_client::{ChecksumKind, Client, CreateOptions};
use tokio::task::JoinSet;

use crate::fake::Fake;
use crate::{assert_same, pattern};

/// The fake, and a folder that it does not mind.
async fn fake() -> (Fake, Client, String) {
    let fake = Fake::start(4).await;
    let client = fake.client();
    (fake, client, "/t".into())
}

fn with_block_size(block_size: u64) -> CreateOptions {
    CreateOptions {
        overwrite: true,
        block_size: Some(block_size),
        replication: Some(3),
        ..CreateOptions::default()
    }
}

const BLOCK: u64 = 256 << 10;

/// Lengths around the borders of chunks, packets and blocks.
fn lengths() -> Vec<usize> {
    let packet = 126 * 512;
    let block = BLOCK as usize;
    let borders = [512, 16 << 10, packet, 2 * packet, block, block + packet, 2 * block, 3 * block];
    let around = borders.iter().flat_map(|border| [border - 1, *border, border + 1]);
    [0, 1].into_iter().chain(around).collect()
}

async fn sizes(client: &Client, folder: &str) {
    for length in lengths() {
        let path = format!("{folder}/size-{length}");
        let data = pattern(length);
        client.put(&path, data.clone(), with_block_size(BLOCK)).await.unwrap();
        assert_same(&client.get(&path).await.unwrap(), &data);
    }
}

/// Writes in pieces of every kind of size, which end anywhere in chunks.
async fn pieces(client: &Client, folder: &str) {
    let data = pattern(700_001);
    for piece in [1_000, 511, 4_096, 16_383, 16_384, 100_000, 65_536] {
        let path = format!("{folder}/pieces-{piece}");
        let mut writer = client.create(&path, with_block_size(BLOCK)).await.unwrap();
        let mut rest = data.clone();
        while !rest.is_empty() {
            // Small and large in turn.
            let length = if rest.len().is_multiple_of(3) { 7 } else { piece };
            writer.write(rest.split_to(length.min(rest.len()))).await.unwrap();
        }
        assert_eq!(writer.position(), data.len() as u64);
        writer.close().await.unwrap();
        assert_same(&client.get(&path).await.unwrap(), &data);
    }
}

async fn ranges(client: &Client, folder: &str) {
    let path = format!("{folder}/ranges");
    let data = pattern(3 * BLOCK as usize + 12_345);
    client.put(&path, data.clone(), with_block_size(BLOCK)).await.unwrap();
    let mut reader = client.open(&path).await.unwrap();
    assert_eq!(reader.length(), data.len() as u64);
    let block = BLOCK as usize;
    for (offset, length) in
        [(0, 1), (511, 2), (512, 512), (1_000, 100_000), (block - 1, 2), (block - 70_000, 2 * block)]
    {
        let got = reader.read_at(offset as u64, length).await.unwrap();
        assert_same(&got, &data[offset..offset + length]);
    }
    assert!(reader.read_at(data.len() as u64, 10).await.unwrap().is_empty());
    assert!(reader.read_at(u64::MAX, 10).await.unwrap().is_empty());
    let tail = reader.read_at(data.len() as u64 - 5, 10).await.unwrap();
    assert_same(&tail, &data[data.len() - 5..]);
    for start in [0, 1, block - 1, block, 2 * block + 777, data.len()] {
        reader.seek(start as u64);
        let mut got = Vec::new();
        while let Some(piece) = reader.next().await.unwrap() {
            got.extend_from_slice(&piece);
        }
        assert_same(&got, &data[start..]);
    }
}

async fn overwrite(client: &Client, folder: &str) {
    let path = format!("{folder}/overwritten");
    client.put(&path, pattern(100_000), with_block_size(BLOCK)).await.unwrap();
    let refused = client.put(&path, pattern(1), CreateOptions::default()).await.unwrap_err();
    assert_eq!(refused.class(), Some("org.apache.hadoop.fs.FileAlreadyExistsException"), "{refused}");
    client.put(&path, pattern(5), with_block_size(BLOCK)).await.unwrap();
    assert_same(&client.get(&path).await.unwrap(), &pattern(5));
}

async fn many_at_once(client: &Client, folder: &str) {
    let mut tasks = JoinSet::new();
    for index in 0..40_usize {
        let (client, path) = (client.clone(), format!("{folder}/many-{index}"));
        tasks.spawn(async move {
            let data = pattern(index * 7_919);
            client.put(&path, data.clone(), with_block_size(BLOCK)).await.unwrap();
            assert_same(&client.get(&path).await.unwrap(), &data);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Bytes are visible to new readers once hflush or hsync returned, at any place in a chunk.
async fn flushes(client: &Client, folder: &str) {
    let path = format!("{folder}/flushed");
    let data = pattern(2 * BLOCK as usize);
    let mut writer = client.create(&path, with_block_size(BLOCK)).await.unwrap();
    let mut written = 0;
    let mut sync = false;
    for length in [100, 1, 411, 1, 512, 1_000, 70_000, 3, 16_384, BLOCK as usize - 80_000, 513, 9_000] {
        writer.write(data.slice(written..written + length)).await.unwrap();
        written += length;
        if sync {
            writer.hsync().await.unwrap()
        } else {
            writer.hflush().await.unwrap()
        }
        sync = !sync;
        let reader = client.open(&path).await.unwrap();
        assert_eq!(reader.length(), written as u64, "after a flush at {written}");
        assert_same(&reader.read_at(0, written).await.unwrap(), &data[..written]);
    }
    // Flushing again, with nothing new, is harmless.
    writer.hflush().await.unwrap();
    writer.hsync().await.unwrap();
    writer.write(data.slice(written..written + 1)).await.unwrap();
    writer.close().await.unwrap();
    assert_same(&client.get(&path).await.unwrap(), &data[..=written]);
}

async fn checksums(client: &Client, folder: &str) {
    let path = format!("{folder}/summed");
    client.put(&path, Bytes::new(), with_block_size(BLOCK)).await.unwrap();
    let (name, bytes) = client.checksum(&path, ChecksumKind::Md5).await.unwrap();
    assert_eq!(name, "MD5-of-0MD5-of-0CRC32");
    assert_eq!(hex(&bytes), "00000000000000000000000070bc8f4b72a86921468bf8e8441dce51");
    // Known from HDFS (interop smoke: hello.txt).
    client.put(&path, Bytes::from_static(b"Hello again\n"), with_block_size(BLOCK)).await.unwrap();
    let (name, bytes) = client.checksum(&path, ChecksumKind::Md5).await.unwrap();
    assert_eq!(name, "MD5-of-0MD5-of-512CRC32C");
    assert_eq!(hex(&bytes), "0000020000000000000000008c37cd53fc46d009afa9fe2267d41eec");
    // The composite one does not depend on the blocks.
    let data = pattern(600_000);
    let mut composites = Vec::new();
    for block_size in [BLOCK, BLOCK / 2, 1 << 20] {
        client.put(&path, data.clone(), with_block_size(block_size)).await.unwrap();
        composites.push(client.checksum(&path, ChecksumKind::Composite).await.unwrap());
        let (name, bytes) = client.checksum(&path, ChecksumKind::Md5).await.unwrap();
        let per_block = if block_size == 1 << 20 { 0 } else { block_size / 512 };
        assert_eq!(name, format!("MD5-of-{per_block}MD5-of-512CRC32C"));
        assert_eq!(bytes.len(), 28);
    }
    composites.dedup();
    let crc = mobula_wire::checksum::ChecksumKind::Crc32c.crc(&data);
    assert_eq!(composites, [("COMPOSITE-CRC32C".to_string(), crc.to_be_bytes().to_vec())]);
}

/// All of the above, for a cluster that keeps what it gets.
pub async fn everything(client: &Client, folder: &str) {
    sizes(client, folder).await;
    pieces(client, folder).await;
    ranges(client, folder).await;
    overwrite(client, folder).await;
    many_at_once(client, folder).await;
    flushes(client, folder).await;
    checksums(client, folder).await;
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn sizes_around_every_border() {
    let (_fake, client, folder) = fake().await;
    sizes(&client, &folder).await;
}

#[tokio::test]
async fn pieces_of_every_size() {
    let (_fake, client, folder) = fake().await;
    pieces(&client, &folder).await;
}

#[tokio::test]
async fn reads_of_ranges_and_from_anywhere() {
    let (_fake, client, folder) = fake().await;
    ranges(&client, &folder).await;
}

#[tokio::test]
async fn a_file_is_replaced_only_when_asked() {
    let (_fake, client, folder) = fake().await;
    overwrite(&client, &folder).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_files_at_once() {
    let (_fake, client, folder) = fake().await;
    many_at_once(&client, &folder).await;
}

#[tokio::test]
async fn what_was_flushed_is_visible() {
    let (fake, client, folder) = fake().await;
    flushes(&client, &folder).await;
    assert!(fake.namenode.state.lock().fsyncs >= 2, "the NameNode hears of every flushed block once");
    assert!(fake.nodes.iter().all(|node| node.state.lock().syncs > 0), "hsync reached every node");
}

#[tokio::test]
async fn file_checksums_are_those_of_hdfs() {
    let (_fake, client, folder) = fake().await;
    checksums(&client, &folder).await;
}

#[tokio::test]
async fn connections_are_used_again() {
    let (fake, client, folder) = fake().await;
    let path = format!("{folder}/again");
    client.put(&path, pattern(1_000), with_block_size(BLOCK)).await.unwrap();
    let connections = || fake.nodes.iter().map(|node| node.state.lock().connections).sum::<usize>();
    client.get(&path).await.unwrap();
    let before = connections();
    for _ in 0..20 {
        client.get(&path).await.unwrap();
    }
    assert_eq!(connections(), before, "all of them went over the first one's connection");
    let ok = mobula_proto::hdfs::Status::ChecksumOk as i32;
    assert!(fake.nodes.iter().all(|node| node.state.lock().statuses.iter().all(|status| *status == ok)));
}
