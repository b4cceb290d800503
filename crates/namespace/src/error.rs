//! Why the namespace refuses. Variants carry nouns and numbers; `Display` is the message that HDFS
//! gives for the same, since clients and people match on it.

/// A refusal. The NameNode's table maps each variant to Hadoop's exception class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// Owner of this crate: one variant per reason.
    #[error("File does not exist: {0}")]
    FileNotFound(String),
}
