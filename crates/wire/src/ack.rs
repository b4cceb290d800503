//! Acknowledgements of packets, which run up a pipeline (HDFS: `PipelineAck`). One message holds the answer
//! of the node that sends it, then those of the nodes after it.

use bytes::BytesMut;
use mobula_proto::hdfs::{PipelineAckProto, Status};

use crate::WireError;
use crate::varint::{encode_delimited, try_decode_delimited};

/// Sequence number of an acknowledgement that belongs to no packet: out of band, or a node that lost its mirror.
pub const UNKNOWN_SEQNO: i64 = -2;
/// Most answers in one message: HDFS's greatest replication.
pub const ACK_REPLIES_MAX: usize = 512;
/// Longest message, in bytes; one answer takes at most 15 of them.
pub const ACK_LENGTH_MAX: usize = 16 << 10;

/// Whether a node's network is congested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Ecn {
    /// The node does not say: HDFS's default.
    #[default]
    Disabled = 0,
    /// Not congested.
    Supported = 1,
    /// Unused by HDFS.
    Supported2 = 2,
    /// Congested: the writer pauses.
    Congested = 3,
}

/// Whether a node finds itself slow (Hadoop 3.4 on).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Slow {
    /// The node does not say: HDFS's default.
    #[default]
    Disabled = 0,
    /// Not slow.
    Normal = 1,
    /// Slow.
    Slow = 2,
    /// Unused by HDFS.
    Reserved = 3,
}

/// One node's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reply {
    /// How it went.
    pub status: Status,
    /// Congestion.
    pub ecn: Ecn,
    /// Slowness.
    pub slow: Slow,
}

impl From<Status> for Reply {
    fn from(status: Status) -> Reply {
        Reply { status, ecn: Ecn::Disabled, slow: Slow::Disabled }
    }
}

impl Reply {
    /// As HDFS packs it: status in bits 0 to 3, congestion in 5 and 6, slowness in 7 and 8.
    fn to_flag(self) -> u32 {
        self.status as u32 | (self.ecn as u32) << 5 | (self.slow as u32) << 7
    }

    fn from_flag(flag: u32) -> Result<Reply, WireError> {
        Ok(Reply {
            status: status_from_number((flag & 0xf) as i32)?,
            ecn: match flag >> 5 & 3 {
                0 => Ecn::Disabled,
                1 => Ecn::Supported,
                2 => Ecn::Supported2,
                _ => Ecn::Congested,
            },
            slow: match flag >> 7 & 3 {
                0 => Slow::Disabled,
                1 => Slow::Normal,
                2 => Slow::Slow,
                _ => Slow::Reserved,
            },
        })
    }
}

/// The status with that number.
///
/// # Errors
/// [`WireError::Unknown`].
pub fn status_from_number(number: i32) -> Result<Status, WireError> {
    Status::try_from(number).map_err(|_| WireError::Unknown { what: "status", value: number.into() })
}

/// An acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineAck {
    /// Of which packet.
    pub seqno: i64,
    /// The sender's answer first, then those of the nodes after it.
    pub replies: Vec<Reply>,
    /// How long the nodes after the sender took, in nanoseconds.
    pub downstream_nanos: u64,
}

impl PipelineAck {
    /// An acknowledgement with these answers.
    pub fn new(seqno: i64, replies: impl IntoIterator<Item = Status>) -> PipelineAck {
        PipelineAck { seqno, replies: replies.into_iter().map(Reply::from).collect(), downstream_nanos: 0 }
    }

    /// Whether every node succeeded.
    pub fn is_success(&self) -> bool {
        self.first_bad().is_none()
    }

    /// The node that Java's client would blame: the last one whose answer is no success.
    pub fn first_bad(&self) -> Option<(usize, Status)> {
        let bad = |(_, reply): &(usize, &Reply)| reply.status != Status::Success;
        self.replies.iter().enumerate().rev().find(bad).map(|(index, reply)| (index, reply.status))
    }

    /// Writes it, with its length in front; `reply` and `flag` say the same.
    pub fn encode(&self, out: &mut BytesMut) {
        let proto = PipelineAckProto {
            seqno: self.seqno,
            reply: self.replies.iter().map(|reply| reply.status as i32).collect(),
            // HDFS writes it even where it is its default (`PipelineAck`): the same bytes.
            downstream_ack_time_nanos: Some(self.downstream_nanos),
            flag: self.replies.iter().map(|reply| reply.to_flag()).collect(),
        };
        encode_delimited(&proto, out);
    }

    /// Takes one from the front of `input`, once it has arrived whole.
    ///
    /// # Errors
    /// [`WireError`] if it is too long, no acknowledgement, or has an unknown status.
    pub fn decode(input: &mut BytesMut) -> Result<Option<PipelineAck>, WireError> {
        let Some(proto) = try_decode_delimited::<PipelineAckProto>(input, ACK_LENGTH_MAX)? else {
            return Ok(None);
        };
        let PipelineAckProto { seqno, reply, downstream_ack_time_nanos, flag } = proto;
        let count = reply.len().max(flag.len());
        if count > ACK_REPLIES_MAX {
            let (what, length, limit) =
                ("replies of an acknowledgement", count as u64, ACK_REPLIES_MAX as u64);
            return Err(WireError::TooLong { what, length, limit });
        }
        // Java takes the flags if there are any, and older senders have none.
        let replies: Result<Vec<Reply>, WireError> = if flag.is_empty() {
            reply.into_iter().map(|number| status_from_number(number).map(Reply::from)).collect()
        } else {
            flag.into_iter().map(Reply::from_flag).collect()
        };
        let downstream_nanos = downstream_ack_time_nanos.unwrap_or(0);
        Ok(Some(PipelineAck { seqno, replies: replies?, downstream_nanos }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn any_ack() -> impl Strategy<Value = PipelineAck> {
        (any::<i64>(), proptest::collection::vec((0i32..14, 0u32..16), 0..20), any::<u64>()).prop_map(
            |(seqno, replies, downstream_nanos)| {
                let reply = |(status, bits): (i32, u32)| Reply::from_flag(status as u32 | bits << 5).unwrap();
                PipelineAck { seqno, replies: replies.into_iter().map(reply).collect(), downstream_nanos }
            },
        )
    }

    #[test]
    fn golden_bytes() {
        let mut out = BytesMut::new();
        PipelineAck::new(1, [Status::Success, Status::ErrorChecksum]).encode(&mut out);
        assert_eq!(&out[..], [12, 0x08, 2, 0x10, 0, 0x10, 2, 0x18, 0, 0x22, 2, 0, 2]);
    }

    #[test]
    fn the_last_bad_node_is_blamed() {
        use Status::{Error, ErrorChecksum, Success};
        assert_eq!(
            PipelineAck::new(1, [Success, Error, ErrorChecksum]).first_bad(),
            Some((2, ErrorChecksum))
        );
        assert_eq!(PipelineAck::new(1, [Success, Error, Success]).first_bad(), Some((1, Error)));
        assert!(PipelineAck::new(1, [Success, Success]).is_success());
    }

    #[test]
    fn a_sender_without_flags() {
        let mut out = BytesMut::new();
        let proto = PipelineAckProto { seqno: -1, reply: vec![0, 1], ..Default::default() };
        encode_delimited(&proto, &mut out);
        let ack = PipelineAck::decode(&mut out).unwrap().unwrap();
        assert_eq!(ack, PipelineAck::new(-1, [Status::Success, Status::Error]));
    }

    #[test]
    fn refuses_unknown_statuses_and_too_many() {
        for proto in [
            PipelineAckProto { reply: vec![14], ..Default::default() },
            PipelineAckProto { flag: vec![15], ..Default::default() },
            PipelineAckProto { reply: vec![0; ACK_REPLIES_MAX + 1], ..Default::default() },
        ] {
            let mut out = BytesMut::new();
            encode_delimited(&proto, &mut out);
            assert!(PipelineAck::decode(&mut out).is_err(), "{proto:?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip_at_every_split(ack in any_ack()) {
            let mut out = BytesMut::new();
            ack.encode(&mut out);
            for cut in 0..out.len() {
                prop_assert_eq!(PipelineAck::decode(&mut BytesMut::from(&out[..cut])), Ok(None));
            }
            prop_assert_eq!(PipelineAck::decode(&mut out), Ok(Some(ack)));
            prop_assert!(out.is_empty());
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            let _ = PipelineAck::decode(&mut BytesMut::from(&bytes[..]));
        }
    }
}
