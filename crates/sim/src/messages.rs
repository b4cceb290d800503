//! Listens in on connections and tells messages apart: RPCs and their answers by method, data transfer by
//! what it is. Each has a number of its kind; some may be chosen, and where one of those begins, the
//! connection breaks instead.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use mobula_net::Tap;
use mobula_proto::{common, hdfs};
use mobula_wire::packet::PacketPrefix;
use mobula_wire::varint;
use parking_lot::Mutex;
use prost::Message as _;

/// Ports of the servers, by which the ends of a connection are told apart.
const RPC_PORTS: [u16; 2] = [8020, 9867];
const DATA_PORT: u16 = 9866;
/// `hrpc`, version, class, authentication.
const PREAMBLE_BYTES: usize = 7;
/// Version and operation of data transfer.
const OP_BYTES: usize = 3;
const WRITE_BLOCK: u8 = 80;
const TRANSFER_BLOCK: u8 = 86;
/// What goes on all the time and would go on without anybody's writing.
const BACKGROUND: [&str; 5] =
    ["sendHeartbeat", "blockReport", "registerDatanode", "versionRequest", "renewLease"];

/// A message: of what kind, and the how-manieth of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    /// From whom to whom, and what.
    pub kind: String,
    /// 0 is the first.
    pub number: u32,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.kind, self.number)
    }
}

/// Counts, and breaks.
#[derive(Debug, Default)]
pub struct Messages(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    armed: bool,
    victims: Vec<Message>,
    counts: BTreeMap<String, u32>,
    seen: Vec<Message>,
    broken: Vec<Message>,
    /// By the sending end and the receiving one.
    streams: BTreeMap<(SocketAddr, SocketAddr), Stream>,
    /// Methods of calls that were not answered, by the client's end and the call's id.
    calls: BTreeMap<(SocketAddr, SocketAddr, i32), String>,
    /// The operation that a connection of data transfer is for, by the client's end.
    operations: BTreeMap<(SocketAddr, SocketAddr), u8>,
    /// The last packet of the block that a connection carries, by the end that sent it: behind it, and behind its
    /// acknowledgement, another operation may come.
    ends: BTreeMap<(SocketAddr, SocketAddr), i64>,
}

/// One direction of a connection.
#[derive(Debug)]
struct Stream {
    next: Next,
    /// The beginning of a message, too little of it to tell what it is.
    head: Vec<u8>,
    /// So much of the message that is under way is to come.
    rest: usize,
}

/// What is due on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Preamble,
    Call,
    Answer,
    Operation,
    Response,
    Packet,
    Ack,
    Anything,
}

/// What a message is, as far as its beginning says.
enum Head {
    Incomplete,
    /// Its name, if it is one to count, its length, and what comes after it.
    Whole(Option<String>, usize, Next),
}

impl Messages {
    /// Counts from now on, and breaks connections at these messages.
    pub fn arm(&self, victims: &[Message]) {
        let mut inner = self.0.lock();
        inner.armed = true;
        inner.victims = victims.to_vec();
    }

    /// Lets everything through from now on.
    pub fn disarm(&self) {
        self.0.lock().armed = false;
    }

    /// All messages since it was armed, in order, and those that were broken off.
    pub fn seen(&self) -> (Vec<Message>, Vec<Message>) {
        let inner = self.0.lock();
        (inner.seen.clone(), inner.broken.clone())
    }
}

impl Tap for Messages {
    fn passes(&self, local: SocketAddr, peer: SocketAddr, bytes: &[u8]) -> usize {
        self.0.lock().passes(local, peer, bytes)
    }
}

impl Inner {
    fn passes(&mut self, local: SocketAddr, peer: SocketAddr, bytes: &[u8]) -> usize {
        let mut stream = self.streams.remove(&(local, peer)).unwrap_or_else(|| Stream::new(local, peer));
        let mut at = 0;
        while at < bytes.len() {
            let taken = stream.rest.min(bytes.len() - at);
            stream.rest -= taken;
            at += taken;
            if at == bytes.len() {
                break;
            }
            let known = stream.head.len();
            stream.head.extend_from_slice(&bytes[at..]);
            match self.head(&stream, local, peer) {
                Head::Incomplete => at = bytes.len(),
                Head::Whole(name, length, next) => {
                    if name.is_some_and(|name| self.is_victim(local, peer, &name)) {
                        return at;
                    }
                    stream.rest = length - known;
                    stream.head.clear();
                    stream.next = next;
                }
            }
        }
        self.streams.insert((local, peer), stream);
        bytes.len()
    }

    fn head(&mut self, stream: &Stream, local: SocketAddr, peer: SocketAddr) -> Head {
        let parsed = match stream.next {
            Next::Preamble => Some(Head::Whole(None, PREAMBLE_BYTES, Next::Call)),
            Next::Call => self.call(&stream.head, local, peer),
            Next::Answer => self.answer(&stream.head, local, peer),
            Next::Operation => self.operation(&stream.head, local, peer),
            Next::Response => self.response(&stream.head, local, peer),
            Next::Packet => self.packet(&stream.head, local, peer),
            Next::Ack => self.ack(&stream.head, local, peer),
            Next::Anything => Some(Head::Whole(None, stream.head.len(), Next::Anything)),
        };
        parsed.unwrap_or(Head::Incomplete)
    }

    fn call(&mut self, head: &[u8], local: SocketAddr, peer: SocketAddr) -> Option<Head> {
        let (length, body) = frame(head)?;
        let (header, body) = delimited(body)?;
        let header = common::RpcRequestHeaderProto::decode(header).ok()?;
        if header.call_id < 0 {
            return Some(Head::Whole(None, length, Next::Call));
        }
        let (request, _) = delimited(body)?;
        let method = common::RequestHeaderProto::decode(request).ok()?.method_name;
        self.calls.insert((local, peer, header.call_id), method.clone());
        Some(Head::Whole(counted(&method).then(|| method.clone()), length, Next::Call))
    }

    fn answer(&mut self, head: &[u8], local: SocketAddr, peer: SocketAddr) -> Option<Head> {
        let (length, body) = frame(head)?;
        let header = common::RpcResponseHeaderProto::decode(delimited(body)?.0).ok()?;
        let method = self.calls.remove(&(peer, local, header.call_id as i32));
        let name = method.filter(|method| counted(method)).map(|method| format!("answer to {method}"));
        Some(Head::Whole(name, length, Next::Answer))
    }

    fn operation(&mut self, head: &[u8], local: SocketAddr, peer: SocketAddr) -> Option<Head> {
        let code = *head.get(OP_BYTES - 1)?;
        let (_, after) = delimited(&head[OP_BYTES..])?;
        let length = head.len() - after.len();
        self.operations.insert((local, peer), code);
        Some(match code {
            WRITE_BLOCK => Head::Whole(Some("WRITE_BLOCK".into()), length, Next::Packet),
            TRANSFER_BLOCK => Head::Whole(Some("TRANSFER_BLOCK".into()), length, Next::Anything),
            _ => Head::Whole(None, length, Next::Anything),
        })
    }

    fn response(&mut self, head: &[u8], local: SocketAddr, peer: SocketAddr) -> Option<Head> {
        let length = head.len() - delimited(head)?.1.len();
        Some(match self.operations.get(&(peer, local)) {
            Some(&WRITE_BLOCK) => Head::Whole(Some("answer to WRITE_BLOCK".into()), length, Next::Ack),
            Some(&TRANSFER_BLOCK) => {
                Head::Whole(Some("answer to TRANSFER_BLOCK".into()), length, Next::Anything)
            }
            _ => Head::Whole(None, head.len(), Next::Anything),
        })
    }

    fn packet(&mut self, head: &[u8], local: SocketAddr, peer: SocketAddr) -> Option<Head> {
        let prefix = PacketPrefix::parse(head).ok()??;
        let header = u16::from_be_bytes([head[4], head[5]]);
        let length = 6 + usize::from(header) + prefix.body_length();
        let name = match (prefix.header.seqno, prefix.header.last) {
            (..0, _) => None,
            (_, true) => Some("last packet".into()),
            _ => Some("packet".into()),
        };
        if !prefix.header.last {
            return Some(Head::Whole(name, length, Next::Packet));
        }
        self.ends.insert((local, peer), prefix.header.seqno);
        Some(Head::Whole(name, length, Next::Operation))
    }

    fn ack(&mut self, head: &[u8], local: SocketAddr, peer: SocketAddr) -> Option<Head> {
        let (message, after) = delimited(head)?;
        let length = head.len() - after.len();
        let seqno = hdfs::PipelineAckProto::decode(message).ok()?.seqno;
        let ended = self.ends.get(&(peer, local)) == Some(&seqno);
        if ended {
            self.ends.remove(&(peer, local));
        }
        Some(Head::Whole(Some("ack".into()), length, if ended { Next::Response } else { Next::Ack }))
    }

    fn is_victim(&mut self, local: SocketAddr, peer: SocketAddr, name: &str) -> bool {
        if !self.armed {
            return false;
        }
        let kind = format!("{} -> {}: {name}", role(local.ip()), role(peer.ip()));
        let count = self.counts.entry(kind.clone()).or_default();
        let message = Message { kind, number: *count };
        *count += 1;
        let victim = self.victims.contains(&message);
        if victim {
            self.broken.push(message.clone());
        }
        self.seen.push(message);
        victim
    }
}

impl Stream {
    fn new(local: SocketAddr, peer: SocketAddr) -> Stream {
        let next = if RPC_PORTS.contains(&peer.port()) {
            Next::Preamble
        } else if RPC_PORTS.contains(&local.port()) {
            Next::Answer
        } else if peer.port() == DATA_PORT {
            Next::Operation
        } else if local.port() == DATA_PORT {
            Next::Response
        } else {
            Next::Anything
        };
        Stream { next, head: Vec::new(), rest: 0 }
    }
}

fn counted(method: &str) -> bool {
    !BACKGROUND.contains(&method)
}

/// Who it is, without a number: which DataNode it is depends on the draw.
fn role(address: IpAddr) -> String {
    let name = turmoil::reverse_lookup(address).unwrap_or_default();
    name.trim_end_matches(|digit: char| digit.is_ascii_digit()).to_owned()
}

/// A frame's whole length, and what of its body is there.
fn frame(head: &[u8]) -> Option<(usize, &[u8])> {
    let (length, body) = head.split_first_chunk::<4>()?;
    Some((4 + u32::from_be_bytes(*length) as usize, body))
}

/// A message that is preceded by its length, and what follows it.
fn delimited(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, from) = varint::peek(input).ok()??;
    let end = from + length as usize;
    (end <= input.len()).then(|| (&input[from..end], &input[end..]))
}
