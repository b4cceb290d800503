//! ClientProtocol's calls about files that are opened again, cut or joined, and about pipelines that go
//! on with other nodes.

use std::sync::Arc;

use bytes::Bytes;
use mobula_namespace::{Append, Appended, FileBlock, Operation, Outcome, Truncate, UpdatePipeline};
use mobula_proto::hdfs;
use mobula_rpc::Responder;
use mobula_types::DatanodeUuid;

use crate::asker::Asker;
use crate::client_block::{at_targets, check_count, targets_of};
use crate::client_rpc::{awaited, begun, change, name, path};
use crate::exceptions::Refusal;
use crate::located::block_of;
use crate::service::Service;
use crate::status_proto;

/// `CreateFlag.APPEND`, which clients of old leave out.
const FLAG_APPEND: u32 = 4;
/// Files that one `concat` joins at most: its command stands in one entry of the log. HDFS knows no limit.
pub const CONCAT_SOURCES_MAX: usize = 10_000;

/// `append`: the file, and its last block if that is to be written on.
pub fn append(service: &Arc<Service>, asker: Asker, body: &[u8], reply: Responder) {
    let typed = |request: hdfs::AppendRequestProto| {
        Ok(Append {
            path: path(&request.src)?,
            holder: name(request.client_name)?,
            flags: request.flag.unwrap_or(FLAG_APPEND),
            holder_renewed: None,
            last: None,
        })
    };
    let service = Arc::clone(service);
    awaited(body, reply, typed, |request| async move {
        let Appended { status, block } = service.append(&asker, request).await?;
        let located = |block: FileBlock| at_targets(&service, block.block, block.offset, &block.targets);
        let stat = Some(status_proto::status(status, Bytes::new()));
        Ok(hdfs::AppendResponseProto { block: block.map(located), stat })
    });
}

/// `truncate`.
pub fn truncate(service: &Arc<Service>, asker: Asker, body: &[u8], reply: Responder) {
    let typed = |request: hdfs::TruncateRequestProto| {
        // A long in Java.
        if i64::try_from(request.new_length).is_err() {
            let words =
                format!("Cannot truncate to a negative file size: {}.", request.new_length.cast_signed());
            return Err(Refusal::IllegalArgument(words));
        }
        Ok(Truncate {
            path: path(&request.src)?,
            holder: name(request.client_name)?,
            length: request.new_length,
            holder_renewed: None,
            last: None,
        })
    };
    let service = Arc::clone(service);
    awaited(body, reply, typed, |request| async move {
        let result = service.truncate(&asker, request).await?;
        Ok(hdfs::TruncateResponseProto { result })
    });
}

/// `concat`.
pub fn concat(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::ConcatRequestProto| {
        if request.srcs.len() > CONCAT_SOURCES_MAX {
            let words = format!("{} sources, more than {CONCAT_SOURCES_MAX}", request.srcs.len());
            return Err(Refusal::BadRequest(words));
        }
        let sources = request.srcs.iter().map(|source| path(source)).collect::<Result<_, _>>()?;
        Ok(Operation::Concat { target: path(&request.trg)?, sources })
    };
    change(service, asker, body, reply, operation, |_| hdfs::ConcatResponseProto {});
}

/// `updateBlockForPipeline`: a new stamp, without nodes.
pub fn update_block_for_pipeline(service: &Arc<Service>, asker: &Asker, body: &[u8], reply: Responder) {
    let typed = |request: hdfs::UpdateBlockForPipelineRequestProto| {
        Ok(Operation::UpdateBlockForPipeline {
            block: block_of(&request.block),
            holder: name(request.client_name)?,
        })
    };
    let there = Arc::clone(service);
    let begin = |operation, done| service.change(asker, operation, done);
    begun(body, reply, typed, begin, move |outcome| match outcome {
        Outcome::Restamped(block) => {
            Ok(hdfs::UpdateBlockForPipelineResponseProto { block: at_targets(&there, block, u64::MAX, &[]) })
        }
        other => Err(Refusal::Io(format!("updateBlockForPipeline was answered {other:?}"))),
    });
}

/// `updatePipeline`.
pub fn update_pipeline(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::UpdatePipelineRequestProto| {
        check_count(request.new_nodes.len())?;
        let nodes = request.new_nodes.iter().map(|node| DatanodeUuid::from(node.datanode_uuid.as_str()));
        let (old, new) = (block_of(&request.old_block), block_of(&request.new_block));
        let words = || format!("oldBlock={old}, newBlock={new}, clientName={}", request.client_name);
        let targets = targets_of(service, nodes.collect(), &request.storage_i_ds, words)?;
        Ok(Operation::UpdatePipeline(UpdatePipeline {
            holder: name(request.client_name)?,
            old,
            new,
            targets,
        }))
    };
    change(service, asker, body, reply, operation, |_| hdfs::UpdatePipelineResponseProto {});
}
