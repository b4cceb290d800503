//! stub
/// a
#[derive(Clone, Debug, clap::Args)]
pub struct BenchArgs {}
/// b
pub async fn run(_env: mobula_net::Env, _args: BenchArgs) -> anyhow::Result<()> {
    Ok(())
}
