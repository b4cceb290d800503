//! stub
use std::collections::BTreeMap;
use std::ffi::OsString;
/// What every verb is given.
pub struct FsContext {
    /// a
    pub client_options: mobula_client::ClientOptions,
    /// b
    pub default_fs: String,
    /// c
    pub settings: BTreeMap<String, String>,
    /// d
    pub env: mobula_net::Env,
}
/// e
pub async fn run(_context: FsContext, _args: Vec<OsString>) -> i32 {
    1
}
