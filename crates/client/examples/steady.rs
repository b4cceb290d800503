//! Writes a file steadily, flushing, and says how long its writer was held up at most; then reads it and
//! compares every byte. Meanwhile whoever wants may kill and pause DataNodes of any cluster:
//!
//!     cargo run -p mobula-client --example steady -- 127.0.0.1:9000 /steady 256 3
//!
//! Arguments: NameNode, path, MiB, replicas. Tells of each flush that lasted longer than 500 ms, and of each
//! change of the pipeline. Exits with 1 if a byte is wrong.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mobula_client::{Client, ClientError, ClientOptions, CreateOptions, ReplaceDatanode};
use mobula_net::Env;

const PIECE: usize = 100_000;
const PIECES_PER_FLUSH: usize = 5;

/// What stands at `offset`: a function of it with a long period.
fn piece(offset: usize, length: usize) -> Bytes {
    (offset..offset + length).map(|i| (i % 251) as u8 ^ (i / 65_521) as u8).collect::<Vec<u8>>().into()
}

#[tokio::main]
async fn main() -> Result<(), ClientError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [namenode, path, mebibytes, replicas] = &args[..] else {
        return Err(ClientError::Usage("NAMENODE PATH MIB REPLICAS".into()));
    };
    let number =
        |text: &str| text.parse::<usize>().map_err(|_| ClientError::Usage(format!("{text} is no number")));
    let (length, replicas) = (number(mebibytes)? << 20, number(replicas)?);
    let options = ClientOptions {
        namenodes: vec![namenode.clone()],
        user: std::env::var("USER").unwrap_or_else(|_| "root".into()),
        replication: Some(replicas as u16),
        block_size: Some(64 << 20),
        umask: 0o022,
        call_limit: Duration::from_secs(60),
        replace_datanode: ReplaceDatanode::default(),
        favored_nodes: Vec::new(),
    };
    let client = Client::new(Env::real(), options);
    let create = CreateOptions { overwrite: true, ..CreateOptions::default() };
    let mut writer = client.create(path, create).await?;
    let (started, mut longest, mut at) = (Instant::now(), Duration::ZERO, 0);
    let mut nodes = Vec::new();
    while at < length {
        let flush = Instant::now();
        for _ in 0..PIECES_PER_FLUSH {
            let size = PIECE.min(length - at);
            writer.write(piece(at, size)).await?;
            at += size;
        }
        writer.hflush().await?;
        if flush.elapsed() > Duration::from_millis(500) {
            println!(
                "{:.1} s: {at} bytes flushed after {:?}",
                started.elapsed().as_secs_f64(),
                flush.elapsed()
            );
        }
        longest = longest.max(flush.elapsed());
        let now: Vec<u32> = writer.pipeline().iter().map(|node| node.id.xfer_port).collect();
        if now != nodes {
            println!("{:.1} s: {at} bytes, nodes by port {now:?}", started.elapsed().as_secs_f64());
            nodes = now;
        }
    }
    let close = Instant::now();
    writer.close().await?;
    println!(
        "{at} bytes in {:.1} s, longest flush {longest:?}, close {:?}",
        started.elapsed().as_secs_f64(),
        close.elapsed()
    );
    let mut reader = client.open(path).await?;
    let mut read = 0;
    while let Some(got) = reader.next().await? {
        if got != piece(read, got.len()) {
            return Err(ClientError::DataNodes(format!("wrong bytes after {read}")));
        }
        read += got.len();
    }
    if read != length {
        return Err(ClientError::DataNodes(format!("{read} bytes instead of {length}")));
    }
    println!("all {read} bytes are right");
    Ok(())
}
