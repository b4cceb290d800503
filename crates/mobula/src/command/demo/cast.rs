//! Who plays in the demo: a NameNode and DataNodes as processes of their own, in one work folder.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::process::{Lifetime, Server, WorkFolder};

/// A server that does not end in order within this time is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// One DataNode of the demo.
#[derive(Debug)]
pub struct Datanode {
    /// `dn1`, `dn2` ...
    pub name: String,
    /// `ip:port` of its data port.
    pub address: String,
    server: Option<Server>,
}

impl Datanode {
    /// Whether it was not killed.
    pub fn runs(&self) -> bool {
        self.server.is_some()
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().and_then(Server::pid)
    }
}

/// The servers and their folder.
#[derive(Debug)]
pub struct Cast {
    lifetime: Lifetime,
    namenode: Option<Server>,
    address: String,
    status: String,
    /// The DataNodes, by number.
    pub datanodes: Vec<Datanode>,
    // Last, so that it goes after those who write into it.
    folder: WorkFolder,
}

impl Cast {
    /// Starts everybody and waits until all are ready.
    pub async fn start(datanodes: usize, block_size: u64, lifetime: Lifetime) -> Result<Cast> {
        let folder = WorkFolder::new("mobula-demo-")?;
        let mut cast = Cast {
            folder,
            lifetime,
            namenode: None,
            address: "127.0.0.1:0".into(),
            status: String::new(),
            datanodes: Vec::new(),
        };
        cast.start_namenode(block_size).await?;
        for number in 1..=datanodes {
            cast.start_datanode(number).await?;
        }
        Ok(cast)
    }

    /// `host:port` of the NameNode.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `host:port` of the NameNode's status page.
    pub fn status(&self) -> &str {
        &self.status
    }

    /// The folder with everything in it.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// The NameNode's process, while it runs.
    pub fn namenode_pid(&self) -> Option<u32> {
        self.namenode.as_ref().and_then(Server::pid)
    }

    /// Starts the NameNode, the second time on the same port.
    pub async fn start_namenode(&mut self, block_size: u64) -> Result<()> {
        let args = words(&[
            "namenode",
            "--dir",
            &self.path("namenode").display().to_string(),
            "--listen",
            &self.address,
            "--http-port",
            "0",
            "--min-block-size",
            &block_size.min(1 << 20).to_string(),
        ]);
        let server = Server::start("the NameNode", &args, &self.path("namenode.log"), self.lifetime).await?;
        let mut parts = server.address().split(' ');
        let address = parts.next().and_then(|uri| uri.strip_prefix("hdfs://"));
        let status = parts.next().and_then(|uri| uri.strip_prefix("http://"));
        self.address = address.ok_or_else(|| anyhow!("the NameNode printed no address"))?.into();
        self.status = status.ok_or_else(|| anyhow!("the NameNode printed no status page"))?.into();
        self.namenode = Some(server);
        Ok(())
    }

    async fn start_datanode(&mut self, number: usize) -> Result<()> {
        let name = format!("dn{number}");
        let args = words(&[
            "datanode",
            "--dir",
            &self.path(&name).display().to_string(),
            "--namenode",
            &self.address,
            "--listen",
            "127.0.0.1:0",
        ]);
        let log = self.path(&format!("{name}.log"));
        let server = Server::start(&name, &args, &log, self.lifetime).await?;
        let address = server.address().split(' ').next().unwrap_or("").to_string();
        self.datanodes.push(Datanode { name, address, server: Some(server) });
        Ok(())
    }

    /// SIGKILL for a DataNode, by index.
    pub async fn kill_datanode(&mut self, at: usize) -> Result<()> {
        self.datanodes[at].server.take().context("that DataNode was killed before")?.kill().await
    }

    /// SIGKILL for the NameNode.
    pub async fn kill_namenode(&mut self) -> Result<()> {
        self.namenode.take().context("the NameNode was killed before")?.kill().await
    }

    /// Ends everybody in order and removes the folder.
    pub async fn end(mut self) -> Result<()> {
        for datanode in &mut self.datanodes {
            if let Some(server) = datanode.server.take() {
                server.stop(STOP_LIMIT).await?;
            }
        }
        if let Some(server) = self.namenode.take() {
            server.stop(STOP_LIMIT).await?;
        }
        self.folder.remove()
    }

    /// Leaves everybody running and the folder in place.
    pub fn keep(mut self) {
        self.datanodes
            .into_iter()
            .filter_map(|node| node.server)
            .chain(self.namenode)
            .for_each(Server::leave);
        self.folder.keep();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}
