//! Typed calls to the NameNode, one method per RPC of ClientProtocol, retried over NameNodes.

/// The NameNode as a client sees it.
#[derive(Clone, Debug)]
pub struct NameNodeProxy {
    // Owner of this crate: one async method per RPC, snake_case, request message in, response out:
    // `pub async fn get_file_info(&self, request: hdfs::GetFileInfoRequestProto)
    //      -> Result<hdfs::GetFileInfoResponseProto, ClientError>`
    _private: (),
}
