//! `cream` takes payments.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    ponos_example_payments::cream::main().await
}
