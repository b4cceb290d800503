//! WebHDFS's calls for names and metadata: HDFS's JSON, status codes and exceptions, and who may do what.

use std::net::SocketAddr;

use bytes::Bytes;
use mobula::Cluster;
use mobula::command::namenode::serve_http;
use mobula::http::OwnNames;
use mobula_client::CreateOptions;
use mobula_net::Env;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Web {
    cluster: Cluster,
    address: String,
}

impl Web {
    async fn start() -> Web {
        let cluster = Cluster::with(|c| {
            c.datanodes = 1;
            // Directories take several pages.
            c.namenode.listing_max = 3;
        });
        let cluster = cluster.await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let http = serve_http(&Env::real(), cluster.namenode().unwrap(), Some(address), OwnNames::default())
            .await
            .unwrap();
        Web { cluster, address: http.unwrap().to_string() }
    }

    /// Status and body.
    async fn ask(&self, method: &str, target: &str, user: &str) -> (u16, String) {
        let mut stream = tokio::net::TcpStream::connect(&self.address).await.unwrap();
        let joint = if target.contains('?') { '&' } else { '?' };
        // HTTP/1.0: the body is all that follows.
        let request = format!("{method} /webhdfs/v1{target}{joint}user.name={user} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn me(&self, method: &str, target: &str) -> (u16, Value) {
        let (status, body) = self.ask(method, target, &mobula::config::user_name()).await;
        (status, if body.is_empty() { Value::Null } else { serde_json::from_str(&body).unwrap() })
    }

    /// The exception of a call that fails so.
    async fn fails(&self, method: &str, target: &str, user: &str, status: u16) -> (String, String) {
        let (is, body) = self.ask(method, target, user).await;
        assert_eq!(is, status, "{method} {target}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        let told = &body["RemoteException"];
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        assert_eq!(text("javaClassName").rsplit('.').next().unwrap(), text("exception"));
        (text("exception"), text("message"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_metadata() {
    let web = Web::start().await;
    let me = mobula::config::user_name();
    let yes = (200, json!({ "boolean": true }));
    assert_eq!(web.me("PUT", "/d/e%20f?op=MKDIRS&permission=750").await, yes);
    let (status, found) = web.me("GET", "/d/e%20f?op=getfilestatus").await;
    let told = &found["FileStatus"];
    assert_eq!((status, &told["type"], &told["permission"]), (200, &json!("DIRECTORY"), &json!("750")));
    assert_eq!(
        (&told["owner"], &told["pathSuffix"], &told["childrenNum"]),
        (&json!(me), &json!(""), &json!(0))
    );
    web.cluster.client().put("/d/f", Bytes::from_static(b"text"), CreateOptions::default()).await.unwrap();
    let told = &web.me("GET", "/d/f?op=GETFILESTATUS").await.1["FileStatus"];
    assert_eq!(
        (&told["type"], &told["length"], &told["replication"]),
        (&json!("FILE"), &json!(4), &json!(3))
    );
    assert_eq!(&told["blockSize"], &json!(128 << 20));

    assert_eq!(web.me("PUT", "/d/f?op=RENAME&destination=/d/g").await, yes);
    assert_eq!(web.me("PUT", "/d/f?op=RENAME&destination=/d/h").await, (200, json!({ "boolean": false })));
    assert_eq!(
        web.me("PUT", "/d/g?op=RENAME&destination=/d/f&renameoptions=OVERWRITE").await,
        (200, Value::Null)
    );
    assert_eq!(web.me("PUT", "/d/f?op=SETREPLICATION&replication=1").await, yes);
    assert_eq!(web.me("PUT", "/d/f?op=SETPERMISSION&permission=640").await, (200, Value::Null));
    assert_eq!(web.me("PUT", "/d/f?op=SETOWNER&owner=her&group=them").await, (200, Value::Null));
    assert_eq!(web.me("PUT", "/d/f?op=SETTIMES&modificationtime=5").await, (200, Value::Null));
    let told = &web.me("GET", "/d/f?op=GETFILESTATUS").await.1["FileStatus"];
    assert_eq!(
        (&told["replication"], &told["permission"], &told["modificationTime"]),
        (&json!(1), &json!("640"), &json!(5))
    );
    assert_eq!((&told["owner"], &told["group"]), (&json!("her"), &json!("them")));
    assert_ne!(&told["accessTime"], &json!(-1), "it was not to change");

    let summary = &web.me("GET", "/d?op=GETCONTENTSUMMARY").await.1["ContentSummary"];
    let count = |name: &str| summary[name].as_i64().unwrap();
    assert_eq!((count("length"), count("fileCount"), count("directoryCount"), count("quota")), (4, 1, 2, -1));
    assert_eq!(web.me("GET", "/d?op=GETQUOTAUSAGE").await.1["QuotaUsage"]["fileAndDirectoryCount"], 3);
    assert_eq!(web.me("GET", "/?op=GETHOMEDIRECTORY").await.1, json!({ "Path": format!("/user/{me}") }));
    assert_eq!(web.me("GET", "/d/f?op=CHECKACCESS&fsaction=r--").await, (200, Value::Null));
    assert_eq!(web.me("GET", "/?op=GETSERVERDEFAULTS").await.1["FsServerDefaults"]["blockSize"], 128 << 20);
    assert!(web.me("GET", "/?op=GETSTATUS").await.1["FsStatus"]["capacity"].as_u64().unwrap() > 0);
    assert_eq!(web.fails("DELETE", "/d?op=DELETE", &me, 403).await.0, "PathIsNotEmptyDirectoryException");
    // HEAD is GET without the body.
    assert_eq!(web.me("HEAD", "/d/f?op=GETFILESTATUS").await, (200, Value::Null));
    assert_eq!(web.me("HEAD", "/d?op=LISTSTATUS").await, (200, Value::Null));
    assert_eq!(web.me("HEAD", "/d/none?op=GETFILESTATUS").await, (404, Value::Null));
    assert_eq!(web.me("OPTIONS", "/d/f").await, (200, Value::Null));
    assert_eq!(web.me("DELETE", "/d?op=DELETE&recursive=true").await, yes);
    assert_eq!(web.me("DELETE", "/d?op=DELETE").await, (200, json!({ "boolean": false })));
    web.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_of_many_pages() {
    let web = Web::start().await;
    for name in 0..8 {
        assert_eq!(web.me("PUT", &format!("/d/{name}?op=MKDIRS")).await.0, 200);
    }
    let names = |listed: &Value| -> Vec<String> {
        let entries = listed["FileStatuses"]["FileStatus"].as_array().unwrap();
        entries.iter().map(|entry| entry["pathSuffix"].as_str().unwrap().to_owned()).collect()
    };
    let (status, listed) = web.me("GET", "/d?op=LISTSTATUS").await;
    assert_eq!((status, names(&listed)), (200, (0..8).map(|name| name.to_string()).collect()));
    assert!(names(&web.me("GET", "/d/0?op=LISTSTATUS").await.1).is_empty());
    let page = web.me("GET", "/d?op=LISTSTATUS_BATCH&startAfter=4").await.1;
    let page = &page["DirectoryListing"];
    assert_eq!(
        (names(&page["partialListing"]), &page["remainingEntries"]),
        (vec!["5".into(), "6".into(), "7".into()], &json!(0))
    );
    web.cluster.client().put("/f", Bytes::new(), CreateOptions::default()).await.unwrap();
    assert_eq!(names(&web.me("GET", "/f?op=LISTSTATUS").await.1), [""], "a file lists itself");
    let (exception, words) = web.fails("GET", "/none?op=LISTSTATUS", "me", 404).await;
    assert_eq!((exception.as_str(), words.as_str()), ("FileNotFoundException", "File /none does not exist."));
    web.cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused() {
    let web = Web::start().await;
    assert_eq!(web.me("PUT", "/secret/d?op=MKDIRS&permission=700").await.0, 200);
    let (exception, words) = web.fails("GET", "/secret/d?op=LISTSTATUS", "stranger", 403).await;
    assert_eq!(exception, "AccessControlException");
    assert!(words.starts_with("Permission denied: user=stranger, access="), "{words}");
    for (method, target) in [
        ("PUT", "/mine?op=MKDIRS"),
        ("PUT", "/secret?op=SETOWNER&owner=stranger"),
        ("PUT", "/secret?op=SETPERMISSION&permission=777"),
        ("PUT", "/secret?op=RENAME&destination=/mine"),
        ("DELETE", "/secret?op=DELETE&recursive=true"),
        ("GET", "/secret/d/x?op=CHECKACCESS&fsaction=r--"),
    ] {
        assert_eq!(
            web.fails(method, target, "stranger", 403).await.0,
            "AccessControlException",
            "{method} {target}"
        );
    }
    let (exception, words) = web.fails("GET", "/none?op=GETFILESTATUS", "me", 404).await;
    assert_eq!((exception.as_str(), words.as_str()), ("FileNotFoundException", "File does not exist: /none"));
    for (method, target, exception) in [
        ("GET", "/?op=FOO", "IllegalArgumentException"),
        ("GET", "/?op=MKDIRS", "IllegalArgumentException"),
        ("PUT", "/?op=RENAME", "IllegalArgumentException"),
        ("PUT", "/a?op=RENAME&destination=b", "IllegalArgumentException"),
        ("PUT", "/a?op=MKDIRS&permission=9", "IllegalArgumentException"),
        ("PUT", "/a?op=SETOWNER", "IllegalArgumentException"),
        ("DELETE", "/a?op=DELETE&recursive=maybe", "IllegalArgumentException"),
        ("GET", "", "UnsupportedOperationException"),
        ("GET", "/f?op=OPEN", "UnsupportedOperationException"),
        ("PUT", "/f?op=CREATE", "UnsupportedOperationException"),
        ("POST", "/f?op=APPEND", "UnsupportedOperationException"),
        ("PUT", "/a:b?op=MKDIRS", "InvalidPathException"),
    ] {
        assert_eq!(web.fails(method, target, "me", 400).await.0, exception, "{method} {target}");
    }
    assert_eq!(web.fails("GET", "/?op=GETFILESTATUS", "1%2F2", 400).await.0, "IllegalArgumentException");
    let long = "u".repeat(1_025);
    let (_, words) = web.fails("GET", "/?op=GETFILESTATUS", &long, 400).await;
    assert!(words.ends_with("A user name of 1025 bytes, the limit is 1024"), "{words}");
    let (exception, words) = web.fails("GET", "/?op=GETFILESTATUS&doas=root2", "me", 403).await;
    assert_eq!(
        (exception.as_str(), words.as_str()),
        ("AuthorizationException", "User: me is not allowed to impersonate root2")
    );
    for target in ["/%?op=GETFILESTATUS", "/%ff?op=GETFILESTATUS", "/?op=%"] {
        assert_eq!(web.ask("GET", target, "me").await.0, 400, "{target}");
    }
    assert_eq!(web.ask("PATCH", "/?op=GETFILESTATUS", "me").await.0, 405);
    web.cluster.shutdown().await;
}
