//! A small status page over HTTP: `/` for people, `/health` and `/notices` as JSON for scripts.
//! Read-only, loopback by default, one request a connection.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mobula_net::{Env, Listener, Stream};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What the page shows.
pub trait StatusSource: Send + Sync + 'static {
    /// Nodes, blocks and whether all is healed.
    fn health(&self) -> Value;
    /// What the AutoHealer noticed and did after notice `since`.
    fn notices(&self, since: u64) -> Value;
}

/// Longest request that is read, bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Requests served at once.
const CONNECTIONS_MAX: usize = 64;
/// Longest a request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Longest answer that [`get`] takes, bytes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// Serves until the task is dropped.
pub async fn serve(listener: Listener, source: Arc<dyn StatusSource>) {
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: they come back when others end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let source = Arc::clone(&source);
        tokio::spawn(async move {
            // A client that breaks off is its own affair.
            let _ended = tokio::time::timeout(REQUEST_LIMIT, answer(stream, &*source)).await;
            drop(place);
        });
    }
}

async fn answer(mut stream: Stream, source: &dyn StatusSource) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > REQUEST_BYTES_MAX || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line = String::from_utf8_lossy(&request);
    let mut words = line.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let (status, kind, body) = match (method, target.split('?').next().unwrap_or("")) {
        ("GET", "/") => ("200 OK", "text/html; charset=utf-8", page(&source.health())),
        ("GET", "/health") => ("200 OK", "application/json", source.health().to_string()),
        ("GET", "/notices") => ("200 OK", "application/json", source.notices(since(target)).to_string()),
        ("GET", _) => ("404 Not Found", "text/plain", "there is /, /health and /notices?since=N\n".into()),
        _ => ("405 Method Not Allowed", "text/plain", "only GET is served\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nX-Frame-Options: SAMEORIGIN\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn since(target: &str) -> u64 {
    target.split_once("since=").and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

fn page(health: &Value) -> String {
    let text = serde_json::to_string_pretty(health).unwrap_or_default();
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!("<!doctype html><title>Mobula</title><h1>Mobula</h1><pre>{text}</pre>\n")
}

/// Fetches JSON from a page such as this one's.
///
/// # Errors
/// No connection, another status than 200, no JSON.
pub async fn get(env: &Env, address: &str, target: &str) -> Result<Value> {
    let mut stream = env.net.connect(address, REQUEST_LIMIT).await?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let text = String::from_utf8(answer).context("the answer is no text")?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no end of headers")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("http://{address}{target}: {}", head.lines().next().unwrap_or(""));
    }
    serde_json::from_str(body).with_context(|| format!("http://{address}{target} gave no JSON"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Fixed;

    impl StatusSource for Fixed {
        fn health(&self) -> Value {
            serde_json::json!({ "healed": true, "note": "<b>" })
        }

        fn notices(&self, since: u64) -> Value {
            serde_json::json!({ "since": since })
        }
    }

    #[tokio::test]
    async fn serves_json_and_refuses_the_rest() {
        let env = Env::real();
        let listener = env.net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(serve(listener, Arc::new(Fixed)));
        assert_eq!(get(&env, &address, "/health").await.unwrap()["healed"], true);
        assert_eq!(get(&env, &address, "/notices?since=7").await.unwrap()["since"], 7);
        assert!(get(&env, &address, "/etc/passwd").await.unwrap_err().to_string().contains("404"));
        server.abort();
    }

    #[test]
    fn the_page_escapes_what_it_shows() {
        assert!(page(&Fixed.health()).contains("&lt;b>"));
    }
}
