//! stub
/// a
#[derive(Clone, Debug, clap::Args)]
pub struct AdminArgs {}
/// b
pub async fn run(_context: crate::fs::FsContext, _args: AdminArgs) -> anyhow::Result<i32> {
    Ok(1)
}
