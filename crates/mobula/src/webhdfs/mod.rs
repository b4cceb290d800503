//! WebHDFS: HDFS's REST calls for names and metadata under `/webhdfs/v1/PATH?op=...` (`NamenodeWebHdfsMethods`). Every
//! call goes through the NameNode's service and its path parser, as by RPC (DESIGN D8). Bytes of files do not: that
//! needs DataNodes that serve HTTP.

mod json;
mod listing;
mod parameters;

use std::net::SocketAddr;
use std::sync::Arc;

use mobula_namenode::client_rpc::{invalid_file_name, name, new_path, path};
use mobula_namenode::{Asker, Refusal, Service, SumOf};
use mobula_namespace::{Access, Operation, Outcome, Overwrite, Parents};
use mobula_rpc::may_not_impersonate;
use mobula_types::{HdfsPath, Millis};
use mobula_wire::rpc::check_user_name;
use serde_json::{Value, json};

use crate::http::query::Parameters;
use crate::http::{Answer, Body, NOBODY};
pub use listing::ListingParts;
use parameters::{Asked, Invalid, check_user, invalid};

/// Where it begins.
pub const PREFIX: &str = "/webhdfs/v1";
/// Users' folders are in here (`dfs.user.home.dir.prefix`).
const HOMES: &str = "/user";
/// Permissions of a new directory whose maker says none.
const DIRECTORY_MODE: u16 = 0o755;

/// HDFS's operations by method, and Java's name of their list.
const OPERATIONS: [(&str, &str, &[&str]); 4] = [
    (
        "GET",
        "GetOpParam",
        &[
            "OPEN",
            "GETFILESTATUS",
            "LISTSTATUS",
            "GETCONTENTSUMMARY",
            "GETQUOTAUSAGE",
            "GETFILECHECKSUM",
            "GETHOMEDIRECTORY",
            "GETDELEGATIONTOKEN",
            "GET_BLOCK_LOCATIONS",
            "GETFILEBLOCKLOCATIONS",
            "GETACLSTATUS",
            "GETXATTRS",
            "GETTRASHROOT",
            "GETTRASHROOTS",
            "LISTXATTRS",
            "GETALLSTORAGEPOLICY",
            "GETSTORAGEPOLICY",
            "GETECPOLICY",
            "CHECKACCESS",
            "LISTSTATUS_BATCH",
            "GETSERVERDEFAULTS",
            "GETSNAPSHOTDIFF",
            "GETSNAPSHOTDIFFLISTING",
            "GETSNAPSHOTTABLEDIRECTORYLIST",
            "GETLINKTARGET",
            "GETFILELINKSTATUS",
            "GETSNAPSHOTLIST",
            "GETSTATUS",
            "GETECPOLICIES",
            "GETECCODECS",
            "NULL",
        ],
    ),
    (
        "PUT",
        "PutOpParam",
        &[
            "CREATE",
            "MKDIRS",
            "CREATESYMLINK",
            "RENAME",
            "SETREPLICATION",
            "SETOWNER",
            "SETPERMISSION",
            "SETTIMES",
            "RENEWDELEGATIONTOKEN",
            "CANCELDELEGATIONTOKEN",
            "MODIFYACLENTRIES",
            "REMOVEACLENTRIES",
            "REMOVEDEFAULTACL",
            "REMOVEACL",
            "SETACL",
            "SETXATTR",
            "REMOVEXATTR",
            "ENABLEECPOLICY",
            "DISABLEECPOLICY",
            "SETECPOLICY",
            "ALLOWSNAPSHOT",
            "DISALLOWSNAPSHOT",
            "CREATESNAPSHOT",
            "RENAMESNAPSHOT",
            "SETSTORAGEPOLICY",
            "SATISFYSTORAGEPOLICY",
            "SETQUOTA",
            "SETQUOTABYSTORAGETYPE",
            "NULL",
        ],
    ),
    ("POST", "PostOpParam", &["APPEND", "CONCAT", "TRUNCATE", "UNSETSTORAGEPOLICY", "UNSETECPOLICY", "NULL"]),
    ("DELETE", "DeleteOpParam", &["DELETE", "DELETESNAPSHOT", "NULL"]),
];

/// A call.
struct Call<'a> {
    service: &'a Arc<Service>,
    asker: Asker,
    operation: &'static str,
    /// Below [`PREFIX`], as text.
    path: &'a str,
    asked: Asked<'a>,
}

/// Why there is no answer.
enum Fault {
    Refused(Refusal),
    Exception(&'static str, String),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Refused(refusal)
    }
}

impl From<Invalid> for Fault {
    fn from(Invalid(words): Invalid) -> Fault {
        Fault::Exception("java.lang.IllegalArgumentException", words)
    }
}

/// Answers a call. `path` is decoded, and what is behind [`PREFIX`].
pub(crate) async fn answer(
    service: &Arc<Service>,
    peer: SocketAddr,
    method: &str,
    path: &str,
    parameters: &Parameters,
) -> Answer {
    let answered = async {
        let asked = Asked(parameters);
        let operation = operation(method, asked.text("op").unwrap_or("null"))?;
        let asker = service.asker(user(asked)?, peer).await;
        let path = if path.is_empty() { "/" } else { path };
        Call { service, asker, operation, path, asked }.answer().await
    };
    let (status, body) = match answered.await {
        Ok(answer) => return answer,
        Err(Fault::Refused(refusal)) => json::refusal(&refusal),
        Err(Fault::Exception(class, words)) => json::exception(class, &words),
    };
    Answer { status, ..Answer::json(&body) }
}

/// The operation of that name, in whatever case.
fn operation(method: &str, text: &str) -> Result<&'static str, Invalid> {
    let (_, list, names) = OPERATIONS
        .iter()
        .find(|(known, ..)| *known == method)
        .ok_or_else(|| invalid("op", "no such method"))?;
    let known = names.iter().find(|name| name.eq_ignore_ascii_case(text));
    known.copied().ok_or_else(|| {
        let constant =
            format!("org.apache.hadoop.hdfs.web.resources.{list}.Op.{}", text.to_ascii_uppercase());
        invalid("op", &format!("No enum constant {constant}"))
    })
}

/// Who asks. Nobody may ask for somebody else.
fn user(asked: Asked<'_>) -> Result<&str, Fault> {
    let user = asked.text("user.name").unwrap_or(NOBODY);
    check_user(user)?;
    check_user_name(user).map_err(|words| invalid("user.name", &words))?;
    match asked.text("doas").filter(|other| *other != user) {
        None => Ok(user),
        Some(other) => Err(Fault::Exception(
            "org.apache.hadoop.security.authorize.AuthorizationException",
            may_not_impersonate(user, other).message,
        )),
    }
}

impl Call<'_> {
    async fn answer(&self) -> Result<Answer, Fault> {
        match self.operation {
            "GETFILESTATUS" | "GETFILELINKSTATUS" => self.file_status(),
            "LISTSTATUS" => self.list_status(),
            "LISTSTATUS_BATCH" => self.list_status_batch(),
            "GETCONTENTSUMMARY" | "GETQUOTAUSAGE" => self.summary().await,
            "GETHOMEDIRECTORY" => Ok(path_answer(format!("{HOMES}/{}", self.asker.caller.user))),
            "GETTRASHROOT" => Ok(path_answer(format!("{HOMES}/{}/.Trash", self.asker.caller.user))),
            "CHECKACCESS" => self.check_access(),
            "GETSERVERDEFAULTS" => Ok(Answer::json(&json::server_defaults(self.service.defaults()))),
            "GETSTATUS" => Ok(Answer::json(&json::status_of_all(&self.service.fleet_stats()))),
            "MKDIRS" => self.mkdirs().await,
            "RENAME" => self.rename().await,
            "SETREPLICATION" => self.set_replication().await,
            "SETOWNER" => self.set_owner().await,
            "SETPERMISSION" => self.set_permission().await,
            "SETTIMES" => self.set_times().await,
            "DELETE" => self.delete().await,
            operation => Err(unsupported(operation)),
        }
    }

    fn path(&self) -> Result<HdfsPath, Fault> {
        Ok(path(self.path)?)
    }

    fn file_status(&self) -> Result<Answer, Fault> {
        let status = self.service.status(&self.asker, &self.path()?)?;
        let status = status.ok_or_else(|| not_found(format!("File does not exist: {}", self.path)))?;
        Ok(Answer::json(&json!({ "FileStatus": json::status(&status, "") })))
    }

    fn page(&self, start_after: &[u8]) -> Result<mobula_namespace::Listing, Fault> {
        let limit = self.service.listing_max();
        let page = self.service.listing(&self.asker, &self.path()?, start_after, limit)?;
        page.ok_or_else(|| not_found(format!("File {} does not exist.", self.path)))
    }

    fn list_status(&self) -> Result<Answer, Fault> {
        let first = self.page(b"")?;
        let parts = ListingParts::new(Arc::clone(self.service), self.asker.clone(), self.path()?, first);
        Ok(Answer { body: Body::Listing(Box::new(parts)), ..Answer::json(&Value::Null) })
    }

    fn list_status_batch(&self) -> Result<Answer, Fault> {
        let start_after = self.asked.text("startafter").unwrap_or("");
        let page = self.page(start_after.as_bytes())?;
        let entries: Vec<Value> = page.entries.iter().map(listing::entry).collect();
        Ok(Answer::json(&json!({ "DirectoryListing": {
            "partialListing": { "FileStatuses": { "FileStatus": entries } },
            "remainingEntries": page.remaining,
        }})))
    }

    async fn summary(&self) -> Result<Answer, Fault> {
        let path = self.path()?;
        let sum = if self.operation == "GETQUOTAUSAGE" { SumOf::Quota } else { SumOf::Content };
        let summary = self.service.sum_up(&self.asker, &path, sum).await?;
        Ok(Answer::json(&match sum {
            SumOf::Quota => json::quota_usage(&summary, path.is_root()),
            SumOf::Content => json::content_summary(&summary, path.is_root()),
        }))
    }

    fn check_access(&self) -> Result<Answer, Fault> {
        let access = Access(self.asked.access(self.operation)?);
        self.service.check_access(&self.asker, &self.path()?, access)?;
        Ok(Answer::empty())
    }

    // ---- changes ----

    async fn change(&self, operation: Operation) -> Result<Outcome, Fault> {
        Ok(self.service.execute(&self.asker, operation).await?)
    }

    /// A change that HDFS answers by true or false.
    async fn change_or_not(&self, operation: Operation) -> Result<Answer, Fault> {
        let outcome = self.change(operation).await?;
        Ok(Answer::json(&json!({ "boolean": !matches!(outcome, Outcome::Bool(false)) })))
    }

    async fn mkdirs(&self) -> Result<Answer, Fault> {
        // What the client has masked is what counts; the unmasked bits are for ACLs.
        let mode = self.asked.mode("permission", DIRECTORY_MODE)?;
        self.asked.mode("unmaskedpermission", 0)?;
        let path = new_path("mkdirs", self.path, invalid_file_name)?;
        self.change_or_not(Operation::Mkdirs { path, mode, parents: Parents::Create }).await
    }

    async fn rename(&self) -> Result<Answer, Fault> {
        let destination = self.asked.required(self.operation, "destination")?;
        if !destination.starts_with('/') {
            let words =
                format!("Invalid parameter value: destination = \"{destination}\" is not an absolute path.");
            return Err(Invalid(words).into());
        }
        let (source, target) = (self.path()?, new_path("rename", destination, invalid_file_name)?);
        let Some(options) = self.asked.text("renameoptions") else {
            return self.change_or_not(Operation::Rename { source, target }).await;
        };
        let (mut overwrite, mut to_trash) = (Overwrite::No, false);
        for option in options.split(',') {
            match option.trim().to_ascii_uppercase().as_str() {
                "NONE" => {}
                "OVERWRITE" => overwrite = Overwrite::Yes,
                "TO_TRASH" => to_trash = true,
                other => {
                    let words = format!("No enum constant org.apache.hadoop.fs.Options.Rename.{other}");
                    return Err(invalid("renameoptions", &words).into());
                }
            }
        }
        self.change(Operation::Rename2 { source, target, overwrite, to_trash }).await?;
        Ok(Answer::empty())
    }

    async fn set_replication(&self) -> Result<Answer, Fault> {
        let replication = self.asked.replication(self.service.defaults().replication)?;
        self.change_or_not(Operation::SetReplication { path: self.path()?, replication }).await
    }

    async fn set_owner(&self) -> Result<Answer, Fault> {
        let named =
            |parameter: &str| self.asked.text(parameter).map(|text| name(text.to_owned())).transpose();
        let (user, group) = (named("owner")?, named("group")?);
        if user.is_none() && group.is_none() {
            return Err(Invalid("Both owner and group are empty.".into()).into());
        }
        self.change(Operation::SetOwner { path: self.path()?, user, group }).await?;
        Ok(Answer::empty())
    }

    async fn set_permission(&self) -> Result<Answer, Fault> {
        let mode = self.asked.mode("permission", DIRECTORY_MODE)?;
        self.change(Operation::SetPermission { path: self.path()?, mode }).await?;
        Ok(Answer::empty())
    }

    async fn set_times(&self) -> Result<Answer, Fault> {
        let modified = self.asked.time("modificationtime")?.map(Millis);
        let accessed = self.asked.time("accesstime")?.map(Millis);
        self.change(Operation::SetTimes { path: self.path()?, modified, accessed }).await?;
        Ok(Answer::empty())
    }

    async fn delete(&self) -> Result<Answer, Fault> {
        let recursive = self.asked.truth("recursive")?;
        self.change_or_not(Operation::Delete { path: self.path()?, recursive }).await
    }
}

fn not_found(words: String) -> Fault {
    Fault::Exception("java.io.FileNotFoundException", words)
}

fn path_answer(path: String) -> Answer {
    Answer::json(&json!({ "Path": path }))
}

fn unsupported(operation: &str) -> Fault {
    let why = match operation {
        "OPEN" | "CREATE" | "APPEND" | "GETFILECHECKSUM" => ": DataNodes serve no HTTP; use hdfs://",
        _ => "",
    };
    Fault::Exception("java.lang.UnsupportedOperationException", format!("{operation} is not supported{why}"))
}
