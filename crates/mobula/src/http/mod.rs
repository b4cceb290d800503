//! The NameNode's HTTP port: `/` for people, `/health` and `/notices` as JSON for scripts, `/fsck` for HDFS's `hdfs fsck`,
//! `/webhdfs/v1` for WebHDFS's clients.
//! Loopback by default, one request a connection.
//!
//! What comes in is taken for hostile: heads, parameters, connections and times have bounds. What takes a path or
//! changes something asks the NameNode's service as the user that the request names (DESIGN D8).

pub mod client;
mod own_names;
mod places;
pub mod query;
mod request;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mobula_namenode::{Fsck, FsckRequest, Service};
use mobula_net::{Listener, Stream};
use mobula_rpc::may_not_impersonate;
use mobula_types::Millis;
use mobula_wire::rpc::check_user_name;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

pub use client::get;
pub use own_names::OwnNames;
use places::Places;
use query::{Blank, Parameters, decode};
use request::{BadHead, Request};

use crate::webhdfs::{self, ListingParts};

/// What the page shows.
pub trait StatusSource: Send + Sync + 'static {
    /// Nodes, blocks and whether all is healed.
    fn health(&self) -> Value;
    /// What the AutoHealer noticed and did after notice `since`.
    fn notices(&self, since: u64) -> Value;
}

/// Requests served at once. Where so many are, who has asked nothing yet gives way to who comes.
const CONNECTIONS_MAX: usize = 64;
/// Of these, checks: each reads a whole tree.
const CHECKS_MAX: usize = 4;
/// Longest that the head of a request may take to come, and a short answer to go.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// Longest that an answer may take to be made: the sums of a large tree take their time.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Longest that a part of a long answer may take to go.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// Longest that all parts of an answer may be waited for to go, however steadily they do: 300 MB, a directory of a million
/// names, at 512 KiB a second. What they take to be made does not count.
const READ_LIMIT: Duration = Duration::from_secs(600);
/// Longest that an answer is made for a client that has closed its side of the connection.
const HALF_CLOSED_LIMIT: Duration = Duration::from_secs(5);
/// What a refused client still sends is read for so long, so that it sees why.
const LINGER_LIMIT: Duration = Duration::from_secs(1);
/// See [`LINGER_LIMIT`]; bytes.
const LINGER_BYTES_MAX: u64 = 1 << 20;
/// Who asks without a name (`hadoop.http.staticuser.user`).
pub(crate) const NOBODY: &str = "dr.who";

/// What is served.
pub struct Site {
    status: Arc<dyn StatusSource>,
    namenode: Option<Arc<Service>>,
    own_names: OwnNames,
    checks: Arc<Semaphore>,
}

impl Site {
    /// The status page alone.
    pub fn of_status(status: Arc<dyn StatusSource>) -> Site {
        let checks = Arc::new(Semaphore::new(CHECKS_MAX));
        Site { status, namenode: None, own_names: OwnNames::default(), checks }
    }

    /// The status page, and what asks the NameNode.
    pub fn of_namenode(status: Arc<dyn StatusSource>, namenode: Arc<Service>, own_names: OwnNames) -> Site {
        Site { namenode: Some(namenode), own_names, ..Site::of_status(status) }
    }
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: &'static str,
    pub(crate) kind: &'static str,
    /// The methods that are served, where that is said.
    pub(crate) allow: Option<&'static str>,
    pub(crate) body: Body,
}

/// What follows the head.
pub(crate) enum Body {
    /// All of it.
    Text(String),
    /// A check, made as it is read, in its place among those that run.
    Check { check: Box<Fsck>, _place: OwnedSemaphorePermit },
    /// A directory, listed as it is read.
    Listing(Box<ListingParts>),
}

impl Body {
    /// The next part; none at the end.
    async fn next(&mut self) -> std::io::Result<Option<String>> {
        match self {
            Body::Text(text) => Ok(Some(std::mem::take(text)).filter(|text| !text.is_empty())),
            Body::Check { check, .. } => Ok(check.next().await),
            Body::Listing(parts) => parts.next_part(),
        }
    }
}

/// What the pages for people and scripts are asked with.
const METHODS: &str = "GET, HEAD, OPTIONS";
/// What WebHDFS is asked with. HEAD is GET without the body, as in Apache's (JAX-RS).
const WEBHDFS_METHODS: &str = "GET, HEAD, PUT, POST, DELETE, OPTIONS";
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl Answer {
    fn plain(status: &'static str, words: &str) -> Answer {
        Answer { status, kind: TEXT, allow: None, body: Body::Text(format!("{words}\n")) }
    }

    pub(crate) fn json(value: &Value) -> Answer {
        Answer { status: "200 OK", kind: JSON, allow: None, body: Body::Text(value.to_string()) }
    }

    /// It is done, and there is nothing to say.
    pub(crate) fn empty() -> Answer {
        Answer { kind: "application/octet-stream", body: Body::Text(String::new()), ..Answer::of_ok() }
    }

    fn of_ok() -> Answer {
        Answer { status: "200 OK", kind: TEXT, allow: None, body: Body::Text(String::new()) }
    }

    /// What is asked with `method` where these are served: which they are, to who asks that (`OPTIONS`).
    fn of_other_method(method: &str, served: &'static str) -> Answer {
        let answer = match method {
            "OPTIONS" => Answer::of_ok(),
            _ => Answer::plain("405 Method Not Allowed", &format!("{served} are served")),
        };
        Answer { allow: Some(served), ..answer }
    }
}

/// Serves until the task is dropped.
pub async fn serve(listener: Listener, site: Arc<Site>) {
    let places = Arc::new(Places::new(CONNECTIONS_MAX));
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of file descriptors: they come back when others end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let place = places.take().await;
        let (site, places) = (Arc::clone(&site), Arc::clone(&places));
        tokio::spawn(async move {
            // A client that breaks off, or is too slow, is its own affair.
            let _ended = converse(stream, peer, &site, &places).await;
            drop(place);
        });
    }
}

async fn converse(mut stream: Stream, peer: SocketAddr, site: &Site, places: &Places) -> std::io::Result<()> {
    let read = timeout(REQUEST_LIMIT, request::read(&mut stream));
    let Some(read) = places.idle(read).await else { return Ok(()) };
    let Some(request) = read?? else { return Ok(()) };
    let takes_chunks = request.as_ref().is_ok_and(|request| request.takes_chunks);
    let head_only = request.as_ref().is_ok_and(|request| request.method == "HEAD");
    let answer = match request {
        Ok(request) => {
            let answer = timeout(ANSWER_LIMIT, site.answer(&request, peer));
            let Some(answer) = unless_gone(&mut stream, answer).await else { return Ok(()) };
            answer?
        }
        Err(BadHead(status, words)) => Answer::plain(status, words),
    };
    let head = head(&answer, takes_chunks);
    match answer.body {
        Body::Text(text) => {
            let all = head + if head_only { "" } else { &text };
            timeout(REQUEST_LIMIT, stream.write_all(all.as_bytes())).await??;
        }
        _ if head_only => timeout(REQUEST_LIMIT, stream.write_all(head.as_bytes())).await??,
        body => {
            timeout(STALL_LIMIT, stream.write_all(head.as_bytes())).await??;
            write_parts(&mut stream, body, takes_chunks).await?;
        }
    }
    stream.shutdown().await?;
    let mut rest = stream.take(LINGER_BYTES_MAX);
    let read = async {
        while rest.read_buf(&mut Vec::with_capacity(4 << 10)).await? > 0 {}
        std::io::Result::Ok(())
    };
    timeout(LINGER_LIMIT, read).await?
}

/// What is made for a client; none if it goes away before, which drops what was begun.
async fn unless_gone<T>(stream: &mut (impl AsyncRead + Unpin), answer: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        answer = answer => Some(answer),
        () = gone(stream) => None,
    }
}

/// Resolves when the client has gone. It may have ended only its own side, and still read: that is believed for a while.
async fn gone(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = stream.take(LINGER_BYTES_MAX);
    let mut part = Vec::with_capacity(4 << 10);
    loop {
        part.clear();
        match rest.read_buf(&mut part).await {
            Ok(0) if rest.limit() == 0 => return std::future::pending().await,
            Ok(0) => return tokio::time::sleep(HALF_CLOSED_LIMIT).await,
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn head(answer: &Answer, takes_chunks: bool) -> String {
    let length = match &answer.body {
        Body::Text(text) => format!("Content-Length: {}", text.len()),
        _ if takes_chunks => "Transfer-Encoding: chunked".into(),
        _ => "Cache-Control: no-store".into(),
    };
    let allow = answer.allow.map(|methods| format!("Allow: {methods}\r\n")).unwrap_or_default();
    format!(
        "HTTP/1.1 {}\r\nContent-Type: {}\r\n{allow}{length}\r\nX-Frame-Options: SAMEORIGIN\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        answer.status, answer.kind
    )
}

/// Writes a long answer as it is made. A client that does not take it, or takes it too slowly, ends it.
async fn write_parts(stream: &mut Stream, mut body: Body, chunks: bool) -> std::io::Result<()> {
    let mut pace = Pace { left: READ_LIMIT };
    while let Some(part) = body.next().await? {
        let framed = if chunks { format!("{:x}\r\n{part}\r\n", part.len()) } else { part };
        pace.write(stream, framed.as_bytes()).await?;
    }
    if chunks {
        pace.write(stream, b"0\r\n\r\n").await?;
    }
    Ok(())
}

/// How much longer a client may be waited for that reads an answer.
struct Pace {
    left: Duration,
}

impl Pace {
    async fn write(&mut self, stream: &mut (impl AsyncWrite + Unpin), part: &[u8]) -> std::io::Result<()> {
        let begun = Instant::now();
        timeout(STALL_LIMIT.min(self.left), stream.write_all(part)).await??;
        self.left = self.left.saturating_sub(begun.elapsed());
        Ok(())
    }
}

impl Site {
    async fn answer(&self, request: &Request, peer: SocketAddr) -> Answer {
        let (path, parameters) = match target(request) {
            Ok(target) => target,
            Err(bad) => return Answer::plain("400 Bad Request", &format!("the target has {bad}")),
        };
        if let Some(below) = path
            .strip_prefix(webhdfs::PREFIX)
            .filter(|below| matches!(below.chars().next(), None | Some('/')))
        {
            return self.webhdfs(request, below, &parameters, peer).await;
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Answer::of_other_method(&request.method, METHODS);
        }
        match &*path {
            "/" => {
                let kind = "text/html; charset=utf-8";
                Answer { kind, body: Body::Text(page(&self.status.health())), ..Answer::of_ok() }
            }
            "/health" => Answer::json(&self.status.health()),
            "/notices" => Answer::json(&self.status.notices(since(&parameters))),
            "/fsck" => self.fsck(request, &parameters, peer).await,
            _ => Answer::plain(
                "404 Not Found",
                "there is /, /health, /notices?since=N, /fsck?path=PATH and /webhdfs/v1/PATH?op=OPERATION",
            ),
        }
    }

    async fn webhdfs(
        &self,
        request: &Request,
        path: &str,
        parameters: &Parameters,
        peer: SocketAddr,
    ) -> Answer {
        let Some(namenode) = &self.namenode else {
            return Answer::plain("404 Not Found", "there is no NameNode here");
        };
        let method = match request.method.as_str() {
            "HEAD" => "GET",
            method @ ("GET" | "PUT" | "POST" | "DELETE") => method,
            other => return Answer::of_other_method(other, WEBHDFS_METHODS),
        };
        if let Some(refusal) = self.refuse_foreign(request, peer) {
            return refusal;
        }
        webhdfs::answer(namenode, peer, method, path, parameters).await
    }

    fn refuse_foreign(&self, request: &Request, peer: SocketAddr) -> Option<Answer> {
        let words = "a page of another origin asks for that, or a host's name that is not this machine's";
        is_foreign(request, peer, &self.own_names).then(|| Answer::plain("403 Forbidden", words))
    }

    /// HDFS's `FsckServlet`.
    async fn fsck(&self, request: &Request, parameters: &Parameters, peer: SocketAddr) -> Answer {
        let Some(namenode) = &self.namenode else {
            return Answer::plain("404 Not Found", "there is no NameNode here");
        };
        // Any page in a browser can make it send this.
        if let Some(refusal) = self.refuse_foreign(request, peer) {
            return refusal;
        }
        let user = match user(parameters) {
            Ok(user) => user,
            Err(words) => return Answer::plain("403 Forbidden", &words),
        };
        let Ok(place) = Arc::clone(&self.checks).try_acquire_owned() else {
            return Answer::plain("503 Service Unavailable", &format!("{CHECKS_MAX} checks run already"));
        };
        let asker = namenode.asker(user, peer).await;
        let check = Fsck::new(Arc::clone(namenode), asker, FsckRequest::of(parameters.iter()), java_date);
        Answer { body: Body::Check { check: Box::new(check), _place: place }, ..Answer::of_ok() }
    }
}

fn target(request: &Request) -> Result<(String, Parameters), query::BadTarget> {
    Ok((decode(&request.path, Blank::None)?, Parameters::parse(&request.query)?))
}

/// Whether a page of elsewhere is behind the request, as a browser says; or one whose host was made to mean this machine, so
/// that a browser takes it for ours: over loopback, for a host that is not. Other clients say nothing.
fn is_foreign(request: &Request, peer: SocketAddr, own: &OwnNames) -> bool {
    let fetched = request.fetched_from.as_deref().is_some_and(|from| !matches!(from, "none" | "same-origin"));
    let host = request.host.as_deref();
    let other_origin = request.origin.as_deref().is_some_and(|origin| origin.strip_prefix("http://") != host);
    fetched || other_origin || peer.ip().is_loopback() && host.is_some_and(|host| !own.has(host))
}

/// Who asks, as the request says (`JspHelper.getUGI` without security). Nobody may ask for somebody else.
fn user(parameters: &Parameters) -> Result<&str, String> {
    let named =
        parameters.get("user.name").or_else(|| parameters.get("ugi").and_then(|ugi| ugi.split(',').next()));
    let user = named.filter(|name| !name.is_empty()).unwrap_or(NOBODY);
    check_user_name(user)?;
    match parameters.get("doas").filter(|other| !other.is_empty() && *other != user) {
        Some(other) => Err(may_not_impersonate(user, other).message),
        None => Ok(user),
    }
}

fn since(parameters: &Parameters) -> u64 {
    parameters.get("since").and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// A time of day as Java's `Date` shows it.
fn java_date(time: Millis) -> String {
    crate::fs::date::java(time.0)
}

fn page(health: &Value) -> String {
    let text = serde_json::to_string_pretty(health).unwrap_or_default();
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    format!("<!doctype html><title>Mobula</title><h1>Mobula</h1><pre>{text}</pre>\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use mobula_net::Env;

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
        let server = tokio::spawn(serve(listener, Arc::new(Site::of_status(Arc::new(Fixed)))));
        assert_eq!(get(&env, &address, "/health").await.unwrap()["healed"], true);
        assert_eq!(get(&env, &address, "/notices?since=7").await.unwrap()["since"], 7);
        for (target, status) in [
            ("/etc/passwd", "404"),
            ("/health?a=%", "400"),
            ("/%ff", "400"),
            ("/fsck", "404"),
            ("/ health", "400"),
        ] {
            let error = get(&env, &address, target).await.unwrap_err().to_string();
            assert!(error.contains(status), "{target}: {error}");
        }
        server.abort();
    }

    #[tokio::test]
    async fn idle_connections_keep_nobody_out() {
        let env = Env::real();
        let listener = env.net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(serve(listener, Arc::new(Site::of_status(Arc::new(Fixed)))));
        let mut idle = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            idle.push(tokio::net::TcpStream::connect(&address).await.unwrap());
        }
        assert_eq!(get(&env, &address, "/health").await.unwrap()["healed"], true);
        let mut first = idle.remove(0);
        let mut byte = [0];
        let end = first.read(&mut byte);
        assert_eq!(timeout(REQUEST_LIMIT / 2, end).await.unwrap().unwrap(), 0, "the longest idle one");
        server.abort();
    }

    /// Writes many parts to one who reads each only after so long; how many came.
    async fn read_slowly(each: Duration, parts: usize) -> (std::io::Result<()>, usize) {
        let (mut near, mut far) = tokio::io::duplex(8);
        let reader = tokio::spawn(async move {
            let mut read = 0;
            let mut part = [0; 8];
            while far.read_exact(&mut part).await.is_ok() {
                read += 1;
                tokio::time::sleep(each).await;
            }
            read
        });
        let written = async {
            let mut pace = Pace { left: READ_LIMIT };
            for _ in 0..parts {
                pace.write(&mut near, b"a part..").await?;
            }
            Ok(())
        };
        let written = written.await;
        drop(near);
        (written, reader.await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_but_slow_reader_is_left() {
        let (written, read) = read_slowly(STALL_LIMIT - Duration::from_secs(1), 1_000).await;
        assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
        assert!(read < 20, "{read} parts");
        let (written, read) = read_slowly(Duration::from_millis(500), 1_000).await;
        written.unwrap();
        assert_eq!(read, 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_made_for_who_has_gone() {
        let after = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let (near, mut far) = tokio::io::duplex(64);
        drop(near);
        assert!(unless_gone(&mut far, after(30)).await.is_none());
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(b"a body that nobody reads").await.unwrap();
        assert!(unless_gone(&mut far, after(30)).await.is_some(), "it is there");
        near.shutdown().await.unwrap();
        assert!(unless_gone(&mut far, after(2)).await.is_some(), "it may still read");
        assert!(unless_gone(&mut far, after(30)).await.is_none(), "it does not for ever");
    }

    #[tokio::test]
    async fn heads_and_options() {
        let env = Env::real();
        let listener = env.net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Site::of_status(Arc::new(Fixed)))));
        let said = async |method: &str, target: &str| {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("{method} {target} HTTP/1.1\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let (whole, head) = (said("GET", "/health").await, said("HEAD", "/health").await);
        assert!(whole.starts_with(&head) && head.ends_with("\r\n\r\n"), "{head}");
        let length = whole.len() - head.len();
        assert!(length > 0 && head.contains(&format!("Content-Length: {length}\r\n")), "{head}");
        let options = said("OPTIONS", "/health").await;
        assert!(options.starts_with("HTTP/1.1 200 OK\r\n"), "{options}");
        assert!(options.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{options}");
        let refused = said("DELETE", "/health").await;
        assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
        assert!(refused.contains("\r\nAllow: GET, HEAD, OPTIONS\r\n"), "{refused}");
        server.abort();
    }

    #[test]
    fn the_page_escapes_what_it_shows() {
        assert!(page(&Fixed.health()).contains("&lt;b>"));
    }

    #[test]
    fn pages_of_elsewhere() {
        let peer = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 1);
        let foreign = |ip: &str, fetched: &str, origin: &str, host: &str| {
            let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let request = Request {
                method: "GET".into(),
                path: "/".into(),
                query: String::new(),
                takes_chunks: true,
                fetched_from: said(fetched),
                origin: said(origin),
                host: said(host),
            };
            is_foreign(&request, peer(ip), &OwnNames::default())
        };
        for host in ["", "127.0.0.1:9870", "[::1]:9870", "[::1]", "10.0.0.7", "localhost", "LocalHost:1"] {
            assert!(!foreign("127.0.0.1", "", "", host), "{host}");
        }
        assert!(!foreign("127.0.0.1", "same-origin", "http://localhost:1", "localhost:1"));
        assert!(!foreign("10.0.0.7", "", "", "namenode.example:9870"));
        assert!(
            foreign("127.0.0.1", "", "", "evil.example:9870"),
            "a name that was made to mean this machine"
        );
        assert!(foreign("::1", "", "", "evil.example"));
        assert!(foreign("10.0.0.7", "", "http://evil.example", "namenode.example:9870"));
        assert!(foreign("10.0.0.7", "", "null", "namenode.example:9870"));
        assert!(foreign("127.0.0.1", "cross-site", "", "localhost"));
    }

    #[test]
    fn who_asks() {
        let user_of = |query: &str| user(&Parameters::parse(query).unwrap()).map(String::from);
        assert_eq!(user_of("ugi=me,group&path=/").unwrap(), "me");
        assert_eq!(user_of("ugi=me&user.name=you").unwrap(), "you");
        assert_eq!(user_of("").unwrap(), "dr.who");
        assert_eq!(user_of("user.name=me&doas=me").unwrap(), "me");
        assert_eq!(
            user_of("user.name=me&doas=you").unwrap_err(),
            "User: me is not allowed to impersonate you"
        );
        // As over RPC.
        assert_eq!(user_of("user.name=CORP%5Cme").unwrap(), "CORP\\me");
        assert_eq!(
            user_of(&format!("ugi={}", "a".repeat(1_025))).unwrap_err(),
            "A user name of 1025 bytes, the limit is 1024"
        );
        let control = "A user name with control characters";
        for query in ["user.name=me%0AFSCK+ended", "ugi=me%00", "user.name=%1B%5B2J&doas=me", "ugi=a%7f,g"] {
            assert_eq!(user_of(query).unwrap_err(), control, "{query}");
        }
    }
}
