//! Files that are gone on with: at a block's end, within a chunk, in a new block; and their readers.

use bytes::Bytes;
use mobula_client::{AppendOptions, Client, CreateOptions, NewBlock, SyncOptions};

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

/// Appends pieces of every kind of length to files of every kind of length, flushing or not in between.
pub async fn everything(client: &Client, folder: &str) {
    let block = BLOCK as usize;
    for (at, had) in [0, 1, 100, 511, 512, 513, 70_000, block - 1, block, block + 1].into_iter().enumerate() {
        for (nth, added) in [1, 411, 412, 413, 512, 5_000, 70_000, block].into_iter().enumerate() {
            let path = format!("{folder}/append-{had}-{added}");
            let data = pattern(had + 2 * added);
            client.put(&path, data.slice(..had), options(3)).await.unwrap();
            let new_block = if (at + nth).is_multiple_of(5) { NewBlock::Always } else { NewBlock::WhenFull };
            let mut writer = client.append(&path, AppendOptions { new_block }).await.unwrap();
            assert_eq!(writer.position(), had as u64);
            writer.write(data.slice(had..had + added)).await.unwrap();
            match nth % 3 {
                0 => writer.hflush().await.unwrap(),
                1 => writer.hsync().await.unwrap(),
                _ => {}
            }
            if nth % 3 != 2 {
                assert_same(&client.get(&path).await.unwrap(), &data[..had + added]);
            }
            writer.write(data.slice(had + added..)).await.unwrap();
            assert_eq!(writer.position(), data.len() as u64);
            writer.close().await.unwrap();
            assert_same(&client.get(&path).await.unwrap(), &data);
        }
    }
}

/// Many small appends, each of which opens and closes the file.
pub async fn bit_by_bit(client: &Client, folder: &str) {
    let path = format!("{folder}/bits");
    let data = pattern(3_000);
    client.put(&path, Bytes::new(), options(3)).await.unwrap();
    let mut written = 0;
    for length in [1, 2, 3, 100, 400, 5, 1, 1_000, 24, 700] {
        let mut writer = client.append(&path, AppendOptions::default()).await.unwrap();
        writer.write(data.slice(written..written + length)).await.unwrap();
        writer.close().await.unwrap();
        written += length;
        assert_same(&client.get(&path).await.unwrap(), &data[..written]);
    }
}

/// One record after the other is flushed, while a reader follows: as a log is written.
pub async fn a_reader_follows(client: &Client, folder: &str) {
    let path = format!("{folder}/log");
    let data = pattern(2 * BLOCK as usize);
    let mut writer = client.create(&path, options(3)).await.unwrap();
    let mut reader = client.open(&path).await.unwrap();
    assert_eq!(reader.length(), 0);
    let (mut written, mut got) = (0, Vec::new());
    while written < data.len() {
        let length = (data.len() - written).min(7_919);
        writer.write(data.slice(written..written + length)).await.unwrap();
        writer.hflush().await.unwrap();
        written += length;
        assert_eq!(reader.refresh().await.unwrap(), written as u64);
        while let Some(piece) = reader.next().await.unwrap() {
            got.extend_from_slice(&piece);
        }
        assert_same(&got, &data[..written]);
    }
    writer.close().await.unwrap();
    assert_eq!(reader.refresh().await.unwrap(), written as u64);
    assert!(reader.next().await.unwrap().is_none());
}

/// What the flags of a sync do.
pub async fn sync_options(client: &Client, folder: &str) {
    let path = format!("{folder}/synced");
    let data = pattern(10_000);
    let mut writer = client.create(&path, options(3)).await.unwrap();
    writer.write(data.slice(..5_000)).await.unwrap();
    writer.hsync_with(SyncOptions { end_block: true, ..SyncOptions::default() }).await.unwrap();
    writer.hsync_with(SyncOptions { end_block: true, ..SyncOptions::default() }).await.unwrap();
    writer.write(data.slice(5_000..)).await.unwrap();
    writer.hsync_with(SyncOptions { update_length: true, ..SyncOptions::default() }).await.unwrap();
    assert_same(&client.get(&path).await.unwrap(), &data);
    writer.close().await.unwrap();
    let request =
        mobula_proto::hdfs::GetBlockLocationsRequestProto { src: path.clone(), offset: 0, length: BLOCK };
    let blocks = client.namenode().get_block_locations(request).await.unwrap().locations.unwrap().blocks;
    assert_eq!(blocks.iter().map(|block| block.b.num_bytes.unwrap()).collect::<Vec<_>>(), [5_000, 5_000]);
    assert_same(&client.get(&path).await.unwrap(), &data);
}

/// Opened for appending and closed again.
pub async fn an_append_without_a_byte(client: &Client, folder: &str) {
    for length in [0, 1_000, BLOCK as usize] {
        let path = format!("{folder}/same-{length}");
        let data = pattern(length);
        client.put(&path, data.clone(), options(3)).await.unwrap();
        let mut writer = client.append(&path, AppendOptions::default()).await.unwrap();
        writer.hflush().await.unwrap();
        writer.close().await.unwrap();
        assert_same(&client.get(&path).await.unwrap(), &data);
    }
}

#[tokio::test]
async fn appends_of_every_length_to_every_length() {
    let fake = Fake::start(4).await;
    everything(&fake.client(), "/t").await;
    bit_by_bit(&fake.client(), "/t").await;
}

#[tokio::test]
async fn a_log_and_its_reader() {
    let fake = Fake::start(4).await;
    a_reader_follows(&fake.client(), "/t").await;
    sync_options(&fake.client(), "/t").await;
}

#[tokio::test]
async fn an_append_without_a_byte_leaves_the_file_as_it_was() {
    let fake = Fake::start(3).await;
    an_append_without_a_byte(&fake.client(), "/t").await;
}

#[tokio::test]
async fn a_block_whose_nodes_the_namenode_does_not_know_yet_is_asked_for_again() {
    let fake = Fake::start(3).await;
    let client = fake.client();
    let data = pattern(2_000);
    client.put("/f", data.slice(..1_000), options(3)).await.unwrap();
    fake.namenode.state.lock().nodes_unknown = 3;
    let mut writer = client.append("/f", AppendOptions::default()).await.unwrap();
    writer.write(data.slice(1_000..)).await.unwrap();
    writer.close().await.unwrap();
    assert_eq!(fake.namenode.check_closed("/f", &data), [3]);
}

#[tokio::test]
async fn a_file_that_somebody_writes_to_is_not_appended_to() {
    let fake = Fake::start(3).await;
    let client = fake.client();
    let _writer = client.create("/f", options(3)).await.unwrap();
    let refused = client.append("/f", AppendOptions::default()).await.unwrap_err();
    assert_eq!(refused.class(), Some(mobula_wire::remote::class::ALREADY_BEING_CREATED));
    let missing = client.append("/none", AppendOptions::default()).await.unwrap_err();
    assert_eq!(missing.class(), Some(mobula_wire::remote::class::FILE_NOT_FOUND));
}
