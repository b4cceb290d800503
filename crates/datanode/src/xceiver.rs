//! Data transfer connections: accepts them, reads the operation, hands it to its room
//! (HDFS: `DataXceiverServer`, `DataXceiver`).
//!
//! Invariant: whatever a connection sends, only that connection ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use mobula_net::{Listener, Stream};
use mobula_proto::hdfs::{ReleaseShortCircuitAccessResponseProto, ShortCircuitShmResponseProto, Status};
use mobula_wire::datatransfer::{OpDecoder, Request, encode_response, response_failure};
use mobula_wire::encode_delimited;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::framed::{Framed, write_all};
use crate::node::{Counted, KEEPALIVE_LIMIT, Node, POOL_LIMIT, READ_LIMIT, WRITE_LIMIT};
use crate::{checksum_op, receive, send, transfer};

/// Pause after the system refused a connection (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until it is dropped; then all of them end.
pub(crate) async fn serve(node: Arc<Node>, listener: Listener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    if connections.len() >= node.config.xceivers_max || node.ending.load(Ordering::Acquire) {
                        tracing::warn!(%peer, open = connections.len(), "too many connections: closed");
                        continue;
                    }
                    let node = node.clone();
                    connections.spawn(async move { connection(&node, stream).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Serves one connection, operation by operation.
async fn connection(node: &Arc<Node>, stream: Stream) {
    let Ok(peer) = stream.peer_addr() else { return };
    let (read, write) = stream.into_split();
    let mut framed = Framed::new(read, READ_LIMIT);
    let mut write = Some(write);
    loop {
        // Silence and hanging up between two operations are normal.
        let request = match framed.next(|input| OpDecoder.next(input)).await {
            Ok(request) => request,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                tracing::info!(%peer, %error, "not an operation: closed");
                return;
            }
            Err(_) => return,
        };
        if !wait_for_pool(node).await {
            tracing::warn!(%peer, "no NameNode has said which pool is ours: closed");
            return;
        }
        let op = request.op();
        let _counted = Counted::new(&node.xceivers);
        match dispatch(node, request, framed, &mut write).await {
            Ok(Some(kept)) => framed = kept,
            Ok(None) => return,
            Err(error) => {
                tracing::info!(%peer, ?op, %error, "an operation failed: closed");
                return;
            }
        }
        framed.set_limit(KEEPALIVE_LIMIT);
    }
}

async fn wait_for_pool(node: &Node) -> bool {
    let told = node.pool_known.notified();
    node.store.pool().is_some() || timeout(POOL_LIMIT, told).await.is_ok()
}

type Kept = Option<Framed<mobula_net::ReadHalf>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Carries out one operation; gives the connection back if it takes another.
async fn dispatch(
    node: &Arc<Node>,
    request: Request,
    mut framed: Framed<mobula_net::ReadHalf>,
    slot: &mut Option<mobula_net::WriteHalf>,
) -> Result<Kept, Failure> {
    let mut write = slot.take().expect("it is put back before the next operation");
    match request {
        Request::WriteBlock(request) => {
            let (read, rest) = framed.into_parts();
            let Some(kept) = receive::write_block(node, read, write, rest, request).await? else {
                return Ok(None);
            };
            *slot = Some(kept.write);
            return Ok(Some(Framed::with_rest(kept.read, kept.rest, KEEPALIVE_LIMIT)));
        }
        Request::ReadBlock(request) => {
            send::read_block(node, &mut framed, &mut write, request).await?;
            *slot = Some(write);
            return Ok(Some(framed));
        }
        Request::CopyBlock(request) => send::copy_block(node, &mut write, request).await?,
        Request::BlockChecksum(request) => checksum_op::block_checksum(node, &mut write, request).await?,
        Request::TransferBlock(request) => transfer::for_client(node, &mut write, request).await?,
        Request::ReplaceBlock(_) => {
            decline(&mut write, Status::Error, "REPLACE_BLOCK is not supported yet").await?
        }
        Request::BlockGroupChecksum(_) => return Ok(None),
        Request::RequestShortCircuitFds(_) => {
            // Without a version: the client uses TCP for this path from now on.
            decline(&mut write, Status::ErrorUnsupported, "short-circuit reads are not supported yet")
                .await?;
            *slot = Some(write);
            return Ok(Some(framed));
        }
        Request::ReleaseShortCircuitFds(_) => {
            let answer = ReleaseShortCircuitAccessResponseProto {
                status: Status::ErrorUnsupported as i32,
                error: Some("short-circuit reads are not supported yet".into()),
            };
            let mut out = BytesMut::new();
            encode_delimited(&answer, &mut out);
            write_all(&mut write, &out, WRITE_LIMIT).await?;
            *slot = Some(write);
            return Ok(Some(framed));
        }
        Request::RequestShortCircuitShm(_) => {
            let answer = ShortCircuitShmResponseProto {
                status: Status::ErrorUnsupported as i32,
                error: Some("short-circuit reads are not supported yet".into()),
                id: None,
            };
            let mut out = BytesMut::new();
            encode_delimited(&answer, &mut out);
            write_all(&mut write, &out, WRITE_LIMIT).await?;
            *slot = Some(write);
            return Ok(Some(framed));
        }
    }
    Ok(None)
}

async fn decline(write: &mut mobula_net::WriteHalf, status: Status, message: &str) -> std::io::Result<()> {
    let mut out = BytesMut::new();
    encode_response(&response_failure(status, "", message), &mut out);
    write_all(write, &out, WRITE_LIMIT).await
}
