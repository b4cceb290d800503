//! Files that are open for writing, and how to take one from a writer that is gone.

use std::time::Duration;

use anyhow::Result;
use comfy_table::{Table, presets};
use mobula_client::Client;
use mobula_proto::hdfs;
use mobula_wire::remote::class;
use serde_json::json;

/// Pause between two calls for the same lease.
const RECOVER_PAUSE: Duration = Duration::from_secs(1);

/// A file that somebody writes to.
#[derive(Clone, Debug)]
pub struct OpenFile {
    path: String,
    /// The name under which the client holds the lease, and where it is.
    holder: String,
    host: String,
    /// When it was created, or last closed before it was opened for appending; milliseconds since 1970.
    modified_ms: Option<u64>,
    /// Bytes that the NameNode knows of.
    length: u64,
}

/// The open files under `path`, at most `limit`.
///
/// # Errors
/// The NameNode's exceptions: the list is for the superuser.
pub async fn all(client: &Client, path: &str, limit: usize) -> Result<Vec<OpenFile>> {
    let mut files = Vec::new();
    let mut after = 0;
    loop {
        let request = hdfs::ListOpenFilesRequestProto {
            id: after,
            types: vec![hdfs::OpenFilesTypeProto::AllOpenFiles as i32],
            path: Some(path.into()),
        };
        let page = client.namenode().list_open_files(request).await?;
        let last = page.entries.last().map(|entry| entry.id);
        for entry in page.entries {
            if files.len() >= limit {
                return Ok(files);
            }
            // It may be gone by now.
            let status = client.status(&entry.path).await?;
            files.push(OpenFile {
                modified_ms: status.as_ref().map(|status| status.modification_time),
                length: status.as_ref().map_or(0, |status| status.length),
                path: entry.path,
                holder: entry.client_name,
                host: entry.client_machine,
            });
        }
        match last {
            Some(last) if page.has_more => after = last,
            _ => return Ok(files),
        }
    }
}

/// Prints them, for people or one JSON object a line.
pub fn print(files: &[OpenFile], now_ms: u64, as_json: bool) {
    let age_ms = |file: &OpenFile| file.modified_ms.map(|since| now_ms.saturating_sub(since));
    if as_json {
        for file in files {
            let value = json!({
                "path": file.path,
                "holder": file.holder,
                "host": file.host,
                "length": file.length,
                "modified_ms": file.modified_ms,
                "age_ms": age_ms(file),
            });
            say!("{value}");
        }
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["path", "host", "holder", "since", "length"]);
    for file in files {
        let age = age_ms(file).map_or("-".into(), |age| format!("{} s", age / 1000));
        table.add_row([&file.path, &file.host, &file.holder, &age, &file.length.to_string()]);
    }
    say!("{table}");
}

/// Asks until the file is closed, in the words of `hdfs debug recoverLease`; exit code 1 if it is not.
///
/// # Errors
/// The NameNode's exceptions, but for a file that is not there.
pub async fn recover_lease(client: &Client, path: &str, retries: u32) -> Result<i32> {
    for tried in 1..=retries.max(1) {
        match client.recover_lease(path).await {
            Ok(true) => {
                say!("recoverLease SUCCEEDED on {path}");
                return Ok(0);
            }
            Ok(false) => eprintln!("recoverLease returned false."),
            Err(error) if error.class() == Some(class::FILE_NOT_FOUND) => {
                eprintln!("recoverLease got exception: {error}");
                eprintln!("Giving up on recoverLease for {path} after 1 try");
                return Ok(1);
            }
            Err(error) => return Err(error.into()),
        }
        if tried < retries {
            tokio::time::sleep(RECOVER_PAUSE).await;
        }
    }
    let tries = if retries <= 1 { "1 try".into() } else { format!("{retries} tries") };
    eprintln!("Giving up on recoverLease for {path} after {tries}.");
    Ok(1)
}
