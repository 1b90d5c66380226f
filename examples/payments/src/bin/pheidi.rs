//! `pheidi` sends mail.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    ponos_example_payments::pheidi::main().await
}
