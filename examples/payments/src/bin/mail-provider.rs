//! `mail-provider`: somebody else's mail provider, to be broken at will.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    ponos_example_payments::mail_provider::main().await
}
