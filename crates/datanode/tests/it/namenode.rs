//! A NameNode that registers everybody, notes what it is told and hands out prepared orders.

use std::sync::Arc;

use mobula_net::Env;
use mobula_proto::hdfs as pb;
use mobula_proto::hdfs::datanode as dn;
use mobula_rpc::{Call, Responder, RpcServer, RpcServerOptions, RpcService};
use mobula_types::StoredReplica;
use mobula_wire::block_report;
use mobula_wire::remote::{RemoteException, class};
use parking_lot::Mutex;
use prost::Message;

pub const POOL: &str = "BP-1-127.0.0.1-1";

#[derive(Default)]
pub struct Notes {
    pub registered: Vec<dn::DatanodeRegistrationProto>,
    pub beats: Vec<dn::HeartbeatRequestProto>,
    pub full: Vec<(String, Vec<StoredReplica>)>,
    pub changes: Vec<(String, pb::BlockProto, i32)>,
    pub bad: Vec<pb::LocatedBlockProto>,
    pub errors: Vec<(u32, String)>,
    pub orders: Vec<(String, dn::DatanodeCommandProto)>,
    pub commits: Vec<dn::CommitBlockSynchronizationRequestProto>,
    pub fail_commits: u32,
    pub cluster: String,
    pub txid: u64,
    pub fail_changes: u32,
    /// Refuses bad blocks with an exception of this class.
    pub refuse_bad: Option<&'static str>,
    /// How often it did.
    pub refused_bad: usize,
}

pub struct FakeNamenode {
    server: RpcServer,
    pub notes: Arc<Mutex<Notes>>,
}

struct Service(Arc<Mutex<Notes>>);

impl FakeNamenode {
    pub async fn start(env: &Env) -> FakeNamenode {
        let listener = env.net.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let notes = Arc::new(Mutex::new(Notes { cluster: "CID-1".into(), ..Notes::default() }));
        let options = RpcServerOptions {
            connections_max: 100,
            calls_in_flight_max: 100,
            outbox_bytes_max: 1 << 20,
            request_bytes_max: 128 << 20,
        };
        let server = RpcServer::start(env, listener, Arc::new(Service(notes.clone())), options);
        FakeNamenode { server, notes }
    }

    pub fn address(&self) -> String {
        self.server.local_addr().to_string()
    }

    /// Gives an order to the node with that uuid with its next heartbeat.
    pub fn order(&self, node: &str, command: dn::BlockCommandProto) {
        let command = dn::DatanodeCommandProto { cmd_type: 1, blk_cmd: Some(command), ..Default::default() };
        self.notes.lock().orders.push((node.into(), command));
    }

    /// Orders the node with that uuid to recover a block.
    pub fn order_recovery(&self, node: &str, order: pb::RecoveringBlockProto) {
        let command = dn::DatanodeCommandProto {
            cmd_type: dn::datanode_command_proto::Type::BlockRecoveryCommand.into(),
            recovery_cmd: Some(dn::BlockRecoveryCommandProto { blocks: vec![order] }),
            ..Default::default()
        };
        self.notes.lock().orders.push((node.into(), command));
    }

    pub fn received(&self, id: u64) -> usize {
        let is = |(_, block, status): &&(String, pb::BlockProto, i32)| block.block_id == id && *status == 2;
        self.notes.lock().changes.iter().filter(is).count()
    }

    pub fn deleted(&self, id: u64) -> bool {
        self.notes.lock().changes.iter().any(|(_, block, status)| block.block_id == id && *status == 3)
    }
}

fn read<M: Message + Default>(call: &Call) -> M {
    M::decode(call.body.clone()).unwrap()
}

impl RpcService for Service {
    fn call(&self, call: Call, reply: Responder) {
        let mut notes = self.0.lock();
        match &call.method[..] {
            b"versionRequest" => reply.success(&pb::VersionResponseProto {
                info: pb::NamespaceInfoProto {
                    build_version: "x".into(),
                    unused: 0,
                    block_pool_id: POOL.into(),
                    storage_info: pb::StorageInfoProto {
                        layout_version: -66_i32 as u32,
                        namespce_id: 7,
                        cluster_id: notes.cluster.clone(),
                        c_time: 1,
                    },
                    software_version: "3.5.0".into(),
                    capabilities: Some(1),
                    state: None,
                },
            }),
            b"registerDatanode" => {
                let request: dn::RegisterDatanodeRequestProto = read(&call);
                notes.registered.push(request.registration.clone());
                reply.success(&dn::RegisterDatanodeResponseProto { registration: request.registration });
            }
            b"sendHeartbeat" => {
                let request: dn::HeartbeatRequestProto = read(&call);
                let uuid = request.registration.datanode_id.datanode_uuid.clone();
                let (mine, others) =
                    std::mem::take(&mut notes.orders).into_iter().partition(|(to, _)| *to == uuid);
                notes.orders = others;
                let lease = request.request_full_block_report_lease.unwrap_or(false).then_some(42);
                notes.beats.push(request);
                notes.txid += 1;
                let mine: Vec<(String, dn::DatanodeCommandProto)> = mine;
                reply.success(&dn::HeartbeatResponseProto {
                    cmds: mine.into_iter().map(|(_, command)| command).collect(),
                    ha_status: pb::NnhaStatusHeartbeatProto { state: 0, txid: notes.txid },
                    full_block_report_lease_id: lease,
                    ..Default::default()
                });
            }
            b"blockReport" => {
                let request: dn::BlockReportRequestProto = read(&call);
                assert_eq!(request.context.unwrap().lease_id, Some(42));
                for report in request.reports {
                    let blocks =
                        block_report::decode(report.number_of_blocks.unwrap(), &report.blocks_buffers)
                            .unwrap();
                    notes.full.push((report.storage.storage_uuid, blocks));
                }
                reply.success(&dn::BlockReportResponseProto::default());
            }
            b"blockReceivedAndDeleted" => {
                if notes.fail_changes > 0 {
                    notes.fail_changes -= 1;
                    drop(notes);
                    return drop(reply);
                }
                let request: dn::BlockReceivedAndDeletedRequestProto = read(&call);
                for list in request.blocks {
                    for info in list.blocks {
                        notes.changes.push((list.storage_uuid.clone(), info.block, info.status));
                    }
                }
                reply.success(&dn::BlockReceivedAndDeletedResponseProto::default());
            }
            b"commitBlockSynchronization" => {
                let request: dn::CommitBlockSynchronizationRequestProto = read(&call);
                notes.commits.push(request);
                if notes.fail_commits > 0 {
                    notes.fail_commits -= 1;
                    let error = RemoteException::new(class::RETRIABLE, "not now");
                    return reply.error(&error);
                }
                reply.success(&dn::CommitBlockSynchronizationResponseProto::default());
            }
            b"errorReport" => {
                let request: dn::ErrorReportRequestProto = read(&call);
                notes.errors.push((request.error_code, request.msg));
                reply.success(&dn::ErrorReportResponseProto::default());
            }
            b"reportBadBlocks" if notes.refuse_bad.is_some() => {
                notes.refused_bad += 1;
                reply.error(&RemoteException::new(notes.refuse_bad.unwrap(), "on purpose"));
            }
            b"reportBadBlocks" => {
                let request: dn::ReportBadBlocksRequestProto = read(&call);
                notes.bad.extend(request.blocks);
                reply.success(&dn::ReportBadBlocksResponseProto::default());
            }
            _ => reply.no_such_method(&call),
        }
    }
}
