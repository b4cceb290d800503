//! ClientProtocol's calls about files that are opened again, cut or joined, and about pipelines that go
//! on with other nodes.

use std::sync::Arc;

use bytes::Bytes;
use mobula_namespace::{Append, Operation, Outcome, Truncate, UpdatePipeline};
use mobula_proto::hdfs;
use mobula_rpc::Responder;
use mobula_types::DatanodeUuid;
use mobula_wire::remote::RemoteException;

use crate::asker::Asker;
use crate::client_block::{NODES_MAX, at_targets, targets_of};
use crate::client_rpc::{change, decode, name, path};
use crate::exceptions::Refusal;
use crate::located::block_of;
use crate::service::Service;
use crate::status_proto;

/// `CreateFlag.APPEND`, which clients of old leave out.
const FLAG_APPEND: u32 = 4;
/// Files that one `concat` joins at most: its command stands in one entry of the log. HDFS knows no limit.
const CONCAT_SOURCES_MAX: usize = 10_000;

/// `append`: the file, and its last block if that is to be written on.
pub fn append(service: &Arc<Service>, asker: Asker, body: &[u8], reply: Responder) {
    let request = decode(body).and_then(|request: hdfs::AppendRequestProto| {
        Ok(Append {
            path: path(&request.src)?,
            holder: name(request.client_name)?,
            flags: request.flag.unwrap_or(FLAG_APPEND),
            holder_renewed: None,
            last: None,
        })
    });
    let request = match request {
        Ok(request) => request,
        Err(refusal) => return reply.error(&refusal.into()),
    };
    let service = Arc::clone(service);
    tokio::spawn(async move {
        let appended = service.append(&asker, request).await;
        let answer = appended.map(|appended| hdfs::AppendResponseProto {
            block: appended
                .block
                .map(|block| at_targets(&service, block.block, block.offset, &block.targets)),
            stat: Some(status_proto::status(&appended.status, Bytes::new())),
        });
        reply.finish(answer.map_err(RemoteException::from));
    });
}

/// `truncate`.
pub fn truncate(service: &Arc<Service>, asker: Asker, body: &[u8], reply: Responder) {
    let request = decode(body).and_then(|request: hdfs::TruncateRequestProto| {
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
    });
    let request = match request {
        Ok(request) => request,
        Err(refusal) => return reply.error(&refusal.into()),
    };
    let service = Arc::clone(service);
    tokio::spawn(async move {
        let done = service.truncate(&asker, request).await;
        let answer = done.map(|result| hdfs::TruncateResponseProto { result });
        reply.finish(answer.map_err(RemoteException::from));
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
    let request = decode(body).and_then(|request: hdfs::UpdateBlockForPipelineRequestProto| {
        Ok(Operation::UpdateBlockForPipeline {
            block: block_of(&request.block),
            holder: name(request.client_name)?,
        })
    });
    let operation = match request {
        Ok(operation) => operation,
        Err(refusal) => return reply.error(&refusal.into()),
    };
    let there = Arc::clone(service);
    service.change(
        asker,
        operation,
        Box::new(move |outcome| {
            let answer = outcome.and_then(|outcome| match outcome {
                Outcome::Restamped(block) => Ok(hdfs::UpdateBlockForPipelineResponseProto {
                    block: at_targets(&there, block, u64::MAX, &[]),
                }),
                other => Err(Refusal::Io(format!("updateBlockForPipeline was answered {other:?}"))),
            });
            reply.finish(answer.map_err(RemoteException::from));
        }),
    );
}

/// `updatePipeline`.
pub fn update_pipeline(service: &Service, asker: &Asker, body: &[u8], reply: Responder) {
    let operation = |request: hdfs::UpdatePipelineRequestProto| {
        if request.new_nodes.len() > NODES_MAX {
            let words = format!("{} nodes, more than {NODES_MAX}", request.new_nodes.len());
            return Err(Refusal::BadRequest(words));
        }
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
