//! `deploy` builds what was pushed.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    ponos_example_payments::deploy::main().await
}
