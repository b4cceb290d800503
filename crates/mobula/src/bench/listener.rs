//! Which process listens on a port: a benchmark that kills a DataNode knows its address from the NameNode, and from
//! whoever started the benchmark its process.

use std::collections::BTreeSet;
use std::path::Path;

/// TCP's state LISTEN in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// The one of `pids` that listens on `port`, if any does.
pub(super) fn process_on_port(pids: &[u32], port: u16) -> Option<u32> {
    let sockets: BTreeSet<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    pids.iter().copied().find(|pid| holds_one_of(*pid, &sockets))
}

/// The inodes of the sockets in a table of `/proc/net` that listen on `port`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    let socket = |line: &str| {
        // sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let local = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        (local == port && *state == LISTEN).then(|| inode.parse().ok())?
    };
    table.lines().filter_map(socket).collect()
}

fn holds_one_of(pid: u32, sockets: &BTreeSet<u64>) -> bool {
    let Ok(files) = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return false;
    };
    files.flatten().any(|file| {
        let target = std::fs::read_link(file.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode| sockets.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_port_and_others_are_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        assert_eq!(process_on_port(&[1, std::process::id()], port), Some(std::process::id()));
        assert_eq!(process_on_port(&[], port), None);
        drop(listener);
        assert_eq!(process_on_port(&[std::process::id()], port), None);
    }
}
