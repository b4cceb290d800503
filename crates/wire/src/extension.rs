//! What Mobula's NameNode takes and answers beyond the fields of HDFS: wishes that save whoever writes a small file two
//! of its four waits for the log, and what a recovery has heard of. Each is a field with a number far above HDFS's in a message of HDFS, which a server
//! that does not know it skips; it answers without the field by which ours says that the wish was granted, and the
//! client goes on by itself (docs/decisions/0010-small-artifacts.md).
//!
//! `python/src/mobulafs/namenode.py` writes these by hand.

use bytes::{Buf, BufMut};
use mobula_proto::hdfs;
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};

/// The lowest number of a field that is a wish, or the answer to one.
const WISHES_FROM: u32 = 5_001;

/// HDFS's message, and a wish in the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WithWish<Q, W>(pub Q, pub W);

impl<Q: Message, W: Message> Message for WithWish<Q, W> {
    fn encode_raw(&self, out: &mut impl BufMut) {
        self.0.encode_raw(out);
        self.1.encode_raw(out);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        kind: WireType,
        input: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            WISHES_FROM.. => self.1.merge_field(tag, kind, input, context),
            _ => self.0.merge_field(tag, kind, input, context),
        }
    }

    fn encoded_len(&self) -> usize {
        self.0.encoded_len() + self.1.encoded_len()
    }

    fn clear(&mut self) {
        self.0.clear();
        self.1.clear();
    }
}

/// What may stand in a `CreateRequestProto` besides.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateWish {
    /// Answer with the file's first block, too, as `addBlock` would.
    #[prost(bool, optional, tag = "5001")]
    pub first_block: Option<bool>,
}

/// A `CreateResponseProto` with what was wished.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateAnswer {
    /// HDFS's own field.
    #[prost(message, optional, tag = "1")]
    pub fs: Option<hdfs::HdfsFileStatusProto>,
    /// The first block; without it, `addBlock` says why there is none.
    #[prost(message, optional, tag = "5001")]
    pub first_block: Option<hdfs::LocatedBlockProto>,
}

/// What may stand in a `CompleteRequestProto` besides.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CompleteWish {
    /// Once the file is closed, rename it to this in the same step, as `rename2` would.
    #[prost(string, optional, tag = "5001")]
    pub target: Option<String>,
    /// `rename2`'s `overwriteDest`.
    #[prost(bool, optional, tag = "5002")]
    pub overwrite: Option<bool>,
}

/// A `CompleteResponseProto` with what was wished.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CompleteAnswer {
    /// HDFS's own field.
    #[prost(bool, required, tag = "1")]
    pub result: bool,
    /// The file is renamed, too.
    #[prost(bool, optional, tag = "5001")]
    pub renamed: Option<bool>,
}

/// What our DataNodes tell in a `CommitBlockSynchronizationRequestProto` besides.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Heard {
    /// All who said what they have of the block, by uuid: of those who are not among the targets a NameNode would not
    /// know that they were asked, and would wait for them (docs/decisions/0005-block-recovery.md).
    #[prost(string, repeated, tag = "5001")]
    pub heard: Vec<String>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A server, or a client, that knows nothing of wishes reads what it always did.
    #[test]
    fn who_does_not_know_a_wish_skips_it() {
        let plain = hdfs::CompleteRequestProto {
            src: "/a".into(),
            client_name: "c".into(),
            last: None,
            file_id: Some(7),
        };
        let wish = CompleteWish { target: Some("/b".into()), overwrite: Some(true) };
        let together = WithWish(plain.clone(), wish.clone());
        let both = together.encode_to_vec();
        assert_eq!(both, [plain.encode_to_vec(), wish.encode_to_vec()].concat());
        assert_eq!(WithWish::decode(&both[..]).as_ref(), Ok(&together));
        assert_eq!(hdfs::CompleteRequestProto::decode(&both[..]).unwrap(), plain);
        assert_eq!(CompleteWish::decode(&both[..]).unwrap(), wish);
        assert_eq!(CompleteWish::decode(&plain.encode_to_vec()[..]).unwrap(), CompleteWish::default());
        let answer = CompleteAnswer { result: true, renamed: Some(true) }.encode_to_vec();
        assert_eq!(
            hdfs::CompleteResponseProto::decode(&answer[..]).unwrap(),
            hdfs::CompleteResponseProto { result: true }
        );
        let answer = CreateAnswer { fs: None, first_block: Some(hdfs::LocatedBlockProto::default()) };
        assert_eq!(hdfs::CreateResponseProto::decode(&answer.encode_to_vec()[..]).unwrap().fs, None);
    }
}
