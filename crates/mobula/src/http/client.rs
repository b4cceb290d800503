//! Asks a NameNode's HTTP port, ours or Apache's.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use mobula_net::{Env, Stream};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Longest wait for a connection, and for the next bytes of an answer (`dfs.client.fsck.read.timeout`).
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Longest answer that [`get`] takes, bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Longest head of an answer, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Longest line of an answer, bytes: those of a block with hundreds of replicas fit.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes that are handed on at once, about.
const PIECE_BYTES: usize = 16 << 10;

/// Fetches JSON.
///
/// # Errors
/// No connection, another status than 200, no JSON.
pub async fn get(env: &Env, address: &str, target: &str) -> Result<Value> {
    let mut answer = Vec::new();
    let (stream, rest) = begin(env, address, target).await?;
    answer.extend(rest);
    timeout(ANSWER_LIMIT, stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)).await??;
    serde_json::from_slice(&answer).with_context(|| format!("http://{address}{target} gave no JSON"))
}

/// Fetches a text of any length, and hands it to `take` line by line, without their ends, as it comes.
///
/// # Errors
/// No connection, another status than 200, no more bytes for a minute; what `take` says.
pub async fn lines(
    env: &Env,
    address: &str,
    target: &str,
    mut take: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let (mut stream, mut text) = begin(env, address, target).await?;
    loop {
        let mut begin = 0;
        while let Some(end) = text[begin..].iter().position(|byte| *byte == b'\n') {
            take(&String::from_utf8_lossy(&text[begin..begin + end]))?;
            begin += end + 1;
        }
        text.drain(..begin);
        if text.len() > LINE_BYTES_MAX {
            bail!("http://{address}: a line of more than {LINE_BYTES_MAX} bytes");
        }
        text.reserve(PIECE_BYTES);
        let read = timeout(ANSWER_LIMIT, stream.read_buf(&mut text)).await;
        let read = read.with_context(|| format!("http://{address}: nothing for {ANSWER_LIMIT:?}"))??;
        if read == 0 {
            return if text.is_empty() { Ok(()) } else { take(&String::from_utf8_lossy(&text)) };
        }
    }
}

/// Sends a request, and reads the head of its answer; what came of the body with it is handed back, too.
async fn begin(env: &Env, address: &str, target: &str) -> Result<(Stream, Vec<u8>)> {
    let mut stream = env.net.connect(address, ANSWER_LIMIT).await?;
    // Of HTTP/1.0, so that the body is all that follows.
    let request = format!("GET {target} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..end]);
            let line = head.lines().next().unwrap_or("");
            if line.split(' ').nth(1) != Some("200") {
                bail!("http://{address}{target}: {line}");
            }
            answer.drain(..end + 4);
            return Ok((stream, answer));
        }
        let read = timeout(ANSWER_LIMIT, stream.read_buf(&mut answer)).await;
        let read = read.with_context(|| format!("http://{address}: no answer for {ANSWER_LIMIT:?}"))??;
        if read == 0 || answer.len() > HEAD_BYTES_MAX {
            bail!("http://{address}{target}: the answer has no end of headers");
        }
    }
}
