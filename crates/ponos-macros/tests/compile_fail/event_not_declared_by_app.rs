//! Outside of handlers an application emits what it declares itself; what its tasks declare does not count.

use ponos::prelude::*;

#[event("github.repo.pushed")]
pub struct GithubRepoPushed {}

#[app("hooks")]
pub struct Hooks;

#[task("hooks.github.poll", app = Hooks, emits(GithubRepoPushed))]
pub struct GithubPoll {}

async fn webhook(publisher: Publisher<Hooks>) {
    let _ = publisher.emit(GithubRepoPushed {}).await;
}

fn main() {
    let _ = webhook;
}
