//! The head of a request, read within bounds. A body is not read: no call that is served has one.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest head that is read, bytes (`hadoop.http.max.request.header.size`): a path of 8,000 characters, percent-encoded,
/// and more fits.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// Header lines at most.
const HEADERS_MAX: usize = 100;

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET` and such.
    pub method: String,
    /// The target up to the `?`, as it was sent.
    pub path: String,
    /// The target behind the `?`, as it was sent.
    pub query: String,
    /// HTTP/1.1: the answer may come in chunks.
    pub takes_chunks: bool,
    /// What a browser says of where the request comes from (`Sec-Fetch-Site`).
    pub fetched_from: Option<String>,
    /// The same, of older browsers and of what changes something (`Origin`).
    pub origin: Option<String>,
    /// Whom it is for (`Host`).
    pub host: Option<String>,
}

/// Why a head is refused: status line and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadHead(pub &'static str, pub &'static str);

const BAD: fn(&'static str) -> BadHead = |words| BadHead("400 Bad Request", words);

/// Reads a head; none if the client went away before it ended.
///
/// # Errors
/// The socket's; [`BadHead`] inside.
pub async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> std::io::Result<Option<Result<Request, BadHead>>> {
    let mut head = Vec::new();
    loop {
        let before = head.len().saturating_sub(END.len() - 1);
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(None);
        }
        if let Some(at) = head[before..].windows(END.len()).position(|end| end == END) {
            return Ok(Some(parse(&head[..before + at])));
        }
        if head.len() >= HEAD_BYTES_MAX {
            let words = "the head of the request is too long";
            return Ok(Some(Err(BadHead("431 Request Header Fields Too Large", words))));
        }
    }
}

const END: &[u8] = b"\r\n\r\n";

fn parse(head: &[u8]) -> Result<Request, BadHead> {
    let text = std::str::from_utf8(head).map_err(|_| BAD("the head of the request is no text"))?;
    let (first, headers) = text.split_once("\r\n").unwrap_or((text, ""));
    let words: Vec<&str> = first.split(' ').collect();
    let [method, target, version] = words[..] else { return Err(BAD("the first line is no request")) };
    if !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
        return Err(BadHead("505 HTTP Version Not Supported", "only HTTP/1.0 and HTTP/1.1 are served"));
    }
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(BAD("the method is no word"));
    }
    let target = origin(target).ok_or(BAD("the target is no path"))?;
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BAD("the target has characters that must be percent-encoded"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request {
        method: method.into(),
        path: path.into(),
        query: query.split('#').next().unwrap_or("").into(),
        takes_chunks: version == "HTTP/1.1",
        fetched_from: header(headers, "sec-fetch-site")?,
        origin: header(headers, "origin")?,
        host: header(headers, "host")?,
    })
}

/// The path of a target that may be a whole URL, as proxies send it.
fn origin(target: &str) -> Option<&str> {
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    path.starts_with('/').then_some(path)
}

/// The header of that (small) name. Checks the form of all.
fn header(headers: &str, wanted: &str) -> Result<Option<String>, BadHead> {
    let mut found = None;
    for (nth, line) in headers.split("\r\n").filter(|line| !line.is_empty()).enumerate() {
        if nth == HEADERS_MAX {
            return Err(BadHead("431 Request Header Fields Too Large", "too many headers"));
        }
        let (name, value) = line.split_once(':').ok_or(BAD("a header without a colon"))?;
        if name.is_empty() || name.contains([' ', '\t', '\r', '\n']) {
            return Err(BAD("a header whose name is no word"));
        }
        if name.eq_ignore_ascii_case(wanted) && found.is_none() {
            found = Some(value.trim().to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<Request, &'static str> {
        parse(text.as_bytes()).map_err(|bad| bad.0)
    }

    #[test]
    fn what_java_sends() {
        let request = parsed(
            "GET /fsck?ugi=me&path=%2F HTTP/1.1\r\nUser-Agent: Java/17\r\nHost: h:1\r\nSec-Fetch-Site: none",
        )
        .unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/fsck"));
        assert_eq!(request.query, "ugi=me&path=%2F");
        assert!(request.takes_chunks);
        assert_eq!(request.fetched_from.as_deref(), Some("none"));
        assert_eq!(parsed("GET http://h:1/a?b HTTP/1.0").unwrap().path, "/a");
    }

    #[test]
    fn what_is_refused() {
        let bad = "400 Bad Request";
        for text in [
            "",
            "GET",
            "GET / HTTP/1.1 x",
            "get / HTTP/1.1",
            "GET fsck HTTP/1.1",
            "GET /\u{e4} HTTP/1.1",
            "GET /\t HTTP/1.1",
            "GET / HTTP/1.1\r\nno colon",
            "GET / HTTP/1.1\r\nA: b\r\n folded: c",
        ] {
            assert_eq!(parsed(text), Err(bad), "{text:?}");
        }
        assert_eq!(parsed("GET / HTTP/2.0"), Err("505 HTTP Version Not Supported"));
        let many = format!("GET / HTTP/1.1\r\n{}", "A: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(parsed(&many), Err("431 Request Header Fields Too Large"));
    }

    #[tokio::test]
    async fn heads_are_bounded_and_come_in_pieces() {
        let endless = vec![b'a'; 2 * HEAD_BYTES_MAX];
        let refused = read(&mut &endless[..]).await.unwrap().unwrap();
        assert_eq!(refused.unwrap_err().0, "431 Request Header Fields Too Large");
        assert_eq!(read(&mut &b"GET / HTTP/1.1\r\n"[..]).await.unwrap(), None);
        let (mut near, mut far) = tokio::io::duplex(1);
        let text = b"GET /a HTTP/1.1\r\n\r\n";
        let (written, request) =
            tokio::join!(tokio::io::AsyncWriteExt::write_all(&mut near, text), read(&mut far));
        written.unwrap();
        assert_eq!(request.unwrap().unwrap().unwrap().path, "/a");
    }

    proptest! {
        #[test]
        fn no_head_panics(head in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&head);
        }

        #[test]
        fn no_text_panics(head in "(GET|PUT|X)? ?[ -~\r\n]{0,200}( HTTP/1.[01])?[ -~\r\n:]{0,50}") {
            if let Ok(request) = parse(head.as_bytes()) {
                prop_assert!(request.path.starts_with('/'));
            }
        }
    }
}
