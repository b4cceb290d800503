//! HDFS as the shell sees it: our client, its paths and its user.

use mobula_client::client::ChecksumKind;
use mobula_client::{AppendOptions, Client, CreateOptions, FileReader, FileWriter, NameNodeProxy, NewBlock};
use mobula_proto::hdfs;

use super::failure::{Kind, Outcome};
use super::status::Status;

/// One HDFS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hdfs {
    client: Client,
    /// `hdfs://host:port`.
    uri: String,
    /// The user's directory: `/user/U`.
    home: String,
    umask: u16,
}

fn bits(perm: u16) -> hdfs::FsPermissionProto {
    hdfs::FsPermissionProto { perm: u32::from(perm) }
}

impl Hdfs {
    /// The file system at `uri` (`hdfs://host:port`) for a user whose directory is `home`.
    pub fn new(client: Client, uri: String, home: String, umask: u16) -> Hdfs {
        Hdfs { client, uri, home, umask }
    }

    /// `hdfs://host:port`.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The user's directory.
    pub fn home(&self) -> &str {
        &self.home
    }

    /// The NameNode's calls.
    pub fn namenode(&self) -> &NameNodeProxy {
        self.client.namenode()
    }

    /// The status, `None` if there is nothing.
    pub async fn status(&self, path: &str) -> Outcome<Option<Status>> {
        match self.client.status(path).await {
            Ok(status) => Ok(status.map(Status::from)),
            Err(error) if error.class() == Some(mobula_wire::remote::class::FILE_NOT_FOUND) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The entries of a directory; a file gives itself, with an empty name.
    pub async fn list(&self, path: &str) -> Outcome<Vec<Status>> {
        Ok(self.client.list(path).await?.into_iter().map(Status::from).collect())
    }

    /// Makes a directory and those above it; `mode` is before the umask.
    pub async fn mkdirs(&self, path: &str, mode: u16) -> Outcome<bool> {
        let request = hdfs::MkdirsRequestProto {
            src: path.into(),
            masked: bits(mode & !self.umask),
            create_parent: true,
            unmasked: Some(bits(mode)),
        };
        Ok(self.namenode().mkdirs(request).await?.result)
    }

    /// A file to write to, over what is there.
    pub async fn create(&self, path: &str, replication: Option<u16>) -> Outcome<FileWriter> {
        let options =
            CreateOptions { overwrite: true, parents: true, replication, ..CreateOptions::default() };
        Ok(self.client.create(path, options).await?)
    }

    /// A file to write to, where there is none.
    pub async fn create_new(&self, path: &str) -> Outcome<FileWriter> {
        let options = CreateOptions { overwrite: false, parents: true, ..CreateOptions::default() };
        Ok(self.client.create(path, options).await?)
    }

    /// A file to go on writing to; in a new block, or in its last one.
    pub async fn append(&self, path: &str, new_block: bool) -> Outcome<FileWriter> {
        let new_block = if new_block { NewBlock::Always } else { NewBlock::WhenFull };
        Ok(self.client.append(path, AppendOptions { new_block }).await?)
    }

    /// Cuts a file; `false` if that goes on.
    pub async fn truncate(&self, path: &str, length: u64) -> Outcome<bool> {
        Ok(self.client.truncate(path, length).await?)
    }

    /// Moves the blocks of `sources` to the end of `target`.
    pub async fn concat(&self, target: &str, sources: &[&str]) -> Outcome<()> {
        Ok(self.client.concat(target, sources).await?)
    }

    /// Whether nobody writes to a file.
    pub async fn is_closed(&self, path: &str) -> Outcome<bool> {
        Ok(self.client.is_closed(path).await?)
    }

    /// A file to read.
    pub async fn open(&self, path: &str) -> Outcome<FileReader> {
        Ok(self.client.open(path).await?)
    }

    /// Deletes; `false` if there was nothing.
    pub async fn delete(&self, path: &str, recursive: bool) -> Outcome<bool> {
        let request = hdfs::DeleteRequestProto { src: path.into(), recursive };
        Ok(self.namenode().delete(request).await?.result)
    }

    /// Renames; `false` if it cannot be.
    pub async fn rename(&self, source: &str, target: &str) -> Outcome<bool> {
        let request = hdfs::RenameRequestProto { src: source.into(), dst: target.into() };
        Ok(self.namenode().rename(request).await?.result)
    }

    /// Renames with words for what is wrong; into the trash, the right to delete is needed.
    pub async fn rename_strictly(&self, source: &str, target: &str, to_trash: bool) -> Outcome<()> {
        let request = hdfs::Rename2RequestProto {
            src: source.into(),
            dst: target.into(),
            overwrite_dest: false,
            move_to_trash: Some(to_trash),
        };
        self.namenode().rename2(request).await?;
        Ok(())
    }

    /// Renames over what is there, in one step: nobody ever sees neither.
    pub async fn rename_over(&self, source: &str, target: &str) -> Outcome<()> {
        let request = hdfs::Rename2RequestProto {
            src: source.into(),
            dst: target.into(),
            overwrite_dest: true,
            move_to_trash: None,
        };
        self.namenode().rename2(request).await?;
        Ok(())
    }

    /// Sets permission bits.
    pub async fn set_mode(&self, path: &str, mode: u16) -> Outcome<()> {
        let request = hdfs::SetPermissionRequestProto { src: path.into(), permission: bits(mode) };
        self.namenode().set_permission(request).await?;
        Ok(())
    }

    /// Sets owner and group, each if given.
    pub async fn set_owner(&self, path: &str, owner: Option<&str>, group: Option<&str>) -> Outcome<()> {
        let request = hdfs::SetOwnerRequestProto {
            src: path.into(),
            username: owner.map(String::from),
            groupname: group.map(String::from),
        };
        self.namenode().set_owner(request).await?;
        Ok(())
    }

    /// Sets times in milliseconds, each if given.
    pub async fn set_times(&self, path: &str, modified: Option<u64>, accessed: Option<u64>) -> Outcome<()> {
        // -1 on the wire leaves a time as it is.
        let request = hdfs::SetTimesRequestProto {
            src: path.into(),
            mtime: modified.unwrap_or(u64::MAX),
            atime: accessed.unwrap_or(u64::MAX),
        };
        self.namenode().set_times(request).await?;
        Ok(())
    }

    /// Sets the number of replicas; `false` if there is no such file.
    pub async fn set_replication(&self, path: &str, replication: u16) -> Outcome<bool> {
        let request =
            hdfs::SetReplicationRequestProto { src: path.into(), replication: u32::from(replication) };
        Ok(self.namenode().set_replication(request).await?.result)
    }

    /// How many replicas each block of a file has now.
    pub async fn replicas(&self, path: &str, length: u64) -> Outcome<Vec<usize>> {
        let request = hdfs::GetBlockLocationsRequestProto { src: path.into(), offset: 0, length };
        let located = self.namenode().get_block_locations(request).await?.locations.unwrap_or_default();
        Ok(located.blocks.iter().map(|block| block.locs.len()).collect())
    }

    /// Whether the user may do all of `action` (1 execute, 2 write, 4 read) there.
    pub async fn may(&self, path: &str, action: i32) -> Outcome<bool> {
        let request = hdfs::CheckAccessRequestProto { path: path.into(), mode: action };
        match self.namenode().check_access(request).await {
            Ok(_) => Ok(true),
            Err(error) => {
                let failure = super::failure::Failure::from(error);
                match failure.kind {
                    Kind::Denied | Kind::NotFound => Ok(false),
                    _ => Err(failure),
                }
            }
        }
    }

    /// Counts and sizes of all under a path.
    pub async fn content(&self, path: &str) -> Outcome<hdfs::ContentSummaryProto> {
        let request = hdfs::GetContentSummaryRequestProto { path: path.into() };
        Ok(self.namenode().get_content_summary(request).await?.summary)
    }

    /// Quotas and what they hold.
    pub async fn quota(&self, path: &str) -> Outcome<hdfs::QuotaUsageProto> {
        let request = hdfs::GetQuotaUsageRequestProto { path: path.into() };
        Ok(self.namenode().get_quota_usage(request).await?.usage)
    }

    /// The server's defaults for new files, and its trash interval.
    pub async fn defaults(&self) -> Outcome<hdfs::FsServerDefaultsProto> {
        let request = hdfs::GetServerDefaultsRequestProto {};
        Ok(self.namenode().get_server_defaults(request).await?.server_defaults)
    }

    /// The file's checksum: its algorithm and its bytes.
    pub async fn checksum(&self, path: &str, kind: ChecksumKind) -> Outcome<(String, Vec<u8>)> {
        Ok(self.client.checksum(path, kind).await?)
    }
}
