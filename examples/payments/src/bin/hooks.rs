//! `hooks` takes GitHub's webhooks.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    ponos_example_payments::hooks::main().await
}
