//! A newtype for each id and each unit, so that no two of them can be confused.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A block. Contiguous blocks count up from [`BlockId::FIRST`]; as an `i64`, a negative one is a
/// striped block group (HDFS: `SequentialBlockIdGenerator`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockId(pub u64);

impl BlockId {
    /// The first id that a new cluster hands out (HDFS: `LAST_RESERVED_BLOCK_ID` + 1).
    pub const FIRST: BlockId = BlockId(1_073_741_825);
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blk_{}", self.0 as i64)
    }
}

number! {
    /// A generation stamp: the version of a block. A replica with an older one is stale.
    GenStamp
}

impl GenStamp {
    /// The first stamp of a new cluster (HDFS: `GenerationStamp.LAST_RESERVED_STAMP` + 1).
    pub const FIRST: GenStamp = GenStamp(1001);
}

number! {
    /// A file or directory, for as long as it lives, whatever it is renamed to.
    InodeId
}

impl InodeId {
    /// The root directory (HDFS: `INodeId.ROOT_INODE_ID`).
    pub const ROOT: InodeId = InodeId(16_385);

    /// What a status shows where there is no inode, as `/.reserved` (-1 in Java).
    pub const NONE: InodeId = InodeId(u64::MAX);
}

number! {
    /// Milliseconds: a time since 1970, or a span; the field's name says which.
    Millis
}

impl Millis {
    /// The span from `earlier` to here, or zero if the clock went back.
    pub fn since(self, earlier: Millis) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add for Millis {
    type Output = Millis;

    fn add(self, span: Millis) -> Millis {
        Millis(self.0.saturating_add(span.0))
    }
}

name! {
    /// A DataNode, for as long as its disks live (`datanodeUuid` in `VERSION`).
    DatanodeUuid
}

name! {
    /// A volume of a DataNode (`DS-<uuid>`).
    StorageUuid
}

name! {
    /// A block pool, one per namespace (`BP-<n>-<ip>-<ms>`).
    PoolId
}

/// The 16 bytes by which a Hadoop RPC client names itself; with the call id it keys the retry cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClientId(pub [u8; 16]);
