//! DataNodes as the NameNode reports them.

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use mobula_client::NameNodeProxy;
use mobula_proto::hdfs::datanode_info_proto::AdminState;
use mobula_proto::hdfs::{DatanodeInfoProto, DatanodeReportTypeProto, GetDatanodeReportRequestProto};
use serde_json::{Value, json};

use crate::fs::size::human;

/// A DataNode.
#[derive(Clone, Debug)]
pub struct Node {
    /// Whether the NameNode hears from it.
    pub live: bool,
    info: DatanodeInfoProto,
    /// How long ago it was heard, in milliseconds.
    silent_ms: u64,
}

/// All DataNodes, the live ones first, by address.
///
/// # Errors
/// The NameNode's exceptions: the list is for the superuser.
pub async fn all(namenode: &NameNodeProxy, now_ms: u64) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for (kind, live) in [(DatanodeReportTypeProto::Live, true), (DatanodeReportTypeProto::Dead, false)] {
        let request = GetDatanodeReportRequestProto { r#type: kind as i32 };
        let mut infos = namenode.get_datanode_report(request).await?.di;
        infos.sort_by_cached_key(address);
        nodes.extend(infos.into_iter().map(|info| {
            let silent_ms = now_ms.saturating_sub(info.last_update());
            Node { live, info, silent_ms }
        }));
    }
    Ok(nodes)
}

fn address(info: &DatanodeInfoProto) -> String {
    format!("{}:{}", info.id.ip_addr, info.id.xfer_port)
}

impl Node {
    fn state(&self) -> &'static str {
        match (self.live, self.info.admin_state()) {
            (false, _) => "dead",
            (true, AdminState::Normal) => "live",
            (true, AdminState::DecommissionInprogress) => "decommissioning",
            (true, AdminState::Decommissioned) => "decommissioned",
            (true, AdminState::EnteringMaintenance) => "entering maintenance",
            (true, AdminState::InMaintenance) => "in maintenance",
        }
    }

    /// For programs.
    pub fn as_json(&self) -> Value {
        let info = &self.info;
        json!({
            "address": address(info),
            "host_name": info.id.host_name,
            "uuid": info.id.datanode_uuid,
            "state": self.state(),
            "location": info.location(),
            "capacity": info.capacity(),
            "used": info.dfs_used(),
            "remaining": info.remaining(),
            "blocks": info.num_blocks(),
            "transfers": info.xceiver_count(),
            "last_contact_ms": info.last_update(),
            "version": info.software_version(),
        })
    }
}

/// A table for people.
pub fn table(nodes: &[Node]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["node", "host", "state", "last contact", "blocks", "capacity", "used", "remaining"]);
    for node in nodes {
        let info = &node.info;
        table.add_row([
            address(info),
            info.id.host_name.clone(),
            node.state().to_owned(),
            format!("{} s ago", node.silent_ms / 1000),
            info.num_blocks().to_string(),
            human(info.capacity() as i64),
            human(info.dfs_used() as i64),
            human(info.remaining() as i64),
        ]);
    }
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
