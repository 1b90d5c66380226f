//! Which webhook is which event.

use ponos::prelude::*;
use ponos::{PublishError, Receipt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The application. It has no tasks: all its events start with a webhook.
#[app(
    "hooks",
    emits(
        GithubPushed,
        GithubBranchCreated,
        GithubBranchDeleted,
        GithubTagCreated,
        GithubTagDeleted,
        PullRequestOpened,
        PullRequestClosed,
        PullRequestReopened,
        PullRequestEdited,
        PullRequestSynchronized,
        PullRequestAssigned,
        PullRequestUnassigned,
        PullRequestLabeled,
        PullRequestUnlabeled,
        PullRequestLocked,
        PullRequestUnlocked,
        PullRequestReviewRequested,
        PullRequestReviewRequestRemoved,
        PullRequestMarkedReadyForReview,
        PullRequestConvertedToDraft,
    )
)]
#[derive(Debug)]
pub struct Hooks;

/// What is wrong with a webhook of a kind that we know.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed(pub(super) String);

/// Commits, a branch or a tag were pushed.
#[event("github.pushed")]
#[derive(Debug, PartialEq)]
pub(super) struct GithubPushed {
    repo: String,
    r#ref: String,
    /// The commit that the reference points to now; zeros after a deletion.
    commit: String,
    created: bool,
    deleted: bool,
    by: Option<String>,
}

macro_rules! reference_events {
    ($($(#[$doc:meta])* $Event:ident = $name:tt,)+) => {
        $(
            $(#[$doc])*
            #[event($name)]
            #[derive(Debug, PartialEq)]
            pub(super) struct $Event {
                repo: String,
                name: String,
                by: Option<String>,
            }

            impl From<Reference> for $Event {
                fn from(reference: Reference) -> Self {
                    let Reference { r#ref, repository, sender, .. } = reference;
                    Self { repo: repository.full_name, name: r#ref, by: sender.map(|sender| sender.login) }
                }
            }
        )+
    };
}

reference_events! {
    /// A branch has come.
    GithubBranchCreated = "github.branch.created",
    /// A branch has gone.
    GithubBranchDeleted = "github.branch.deleted",
    /// A tag has come.
    GithubTagCreated = "github.tag.created",
    /// A tag has gone.
    GithubTagDeleted = "github.tag.deleted",
}

macro_rules! pull_request_events {
    ($($Event:ident = $name:tt if $action:literal,)+) => {
        $(
            #[doc = concat!("GitHub's `pull_request` with the action `", $action, "`.")]
            #[event($name)]
            #[derive(Debug, PartialEq)]
            pub(super) struct $Event {
                repo: String,
                number: u64,
                title: String,
                by: Option<String>,
            }
        )+

        /// What a webhook has become.
        #[derive(Debug, PartialEq)]
        pub(super) enum GithubEvent {
            Pushed(GithubPushed),
            BranchCreated(GithubBranchCreated),
            BranchDeleted(GithubBranchDeleted),
            TagCreated(GithubTagCreated),
            TagDeleted(GithubTagDeleted),
            $($Event($Event),)+
        }

        impl GithubEvent {
            /// The event's name.
            pub(super) fn name(&self) -> &'static str {
                match self {
                    Self::Pushed(_) => GithubPushed::NAME,
                    Self::BranchCreated(_) => GithubBranchCreated::NAME,
                    Self::BranchDeleted(_) => GithubBranchDeleted::NAME,
                    Self::TagCreated(_) => GithubTagCreated::NAME,
                    Self::TagDeleted(_) => GithubTagDeleted::NAME,
                    $(Self::$Event(_) => $Event::NAME,)+
                }
            }

            /// Emits it.
            pub(super) async fn emit(self, publisher: &Publisher<Hooks>) -> Result<Receipt, PublishError> {
                match self {
                    Self::Pushed(event) => publisher.emit(event).await,
                    Self::BranchCreated(event) => publisher.emit(event).await,
                    Self::BranchDeleted(event) => publisher.emit(event).await,
                    Self::TagCreated(event) => publisher.emit(event).await,
                    Self::TagDeleted(event) => publisher.emit(event).await,
                    $(Self::$Event(event) => publisher.emit(event).await,)+
                }
            }

            fn of_pull_request(payload: Map<String, Value>) -> Result<Option<Self>, Malformed> {
                let Action { action } = read("pull_request", Value::Object(payload.clone()))?;
                Ok(Some(match action.as_str() {
                    $($action => {
                        let PullRequest { number, pull_request, repository, sender } =
                            read("pull_request", Value::Object(payload))?;
                        Self::$Event($Event {
                            repo: repository.full_name,
                            number,
                            title: pull_request.title,
                            by: sender.map(|sender| sender.login),
                        })
                    })+
                    _ => return Ok(None),
                }))
            }
        }
    };
}

pull_request_events! {
    PullRequestOpened = "github.pull-request.opened" if "opened",
    PullRequestClosed = "github.pull-request.closed" if "closed",
    PullRequestReopened = "github.pull-request.reopened" if "reopened",
    PullRequestEdited = "github.pull-request.edited" if "edited",
    PullRequestSynchronized = "github.pull-request.synchronized" if "synchronize",
    PullRequestAssigned = "github.pull-request.assigned" if "assigned",
    PullRequestUnassigned = "github.pull-request.unassigned" if "unassigned",
    PullRequestLabeled = "github.pull-request.labeled" if "labeled",
    PullRequestUnlabeled = "github.pull-request.unlabeled" if "unlabeled",
    PullRequestLocked = "github.pull-request.locked" if "locked",
    PullRequestUnlocked = "github.pull-request.unlocked" if "unlocked",
    PullRequestReviewRequested = "github.pull-request.review-requested" if "review_requested",
    PullRequestReviewRequestRemoved = "github.pull-request.review-request-removed" if "review_request_removed",
    PullRequestMarkedReadyForReview = "github.pull-request.marked-ready-for-review" if "ready_for_review",
    PullRequestConvertedToDraft = "github.pull-request.converted-to-draft" if "converted_to_draft",
}

impl GithubEvent {
    /// The event that a webhook is; `None` for one that we do not speak of.
    pub(super) fn of(kind: &str, payload: Map<String, Value>) -> Result<Option<Self>, Malformed> {
        match kind {
            "push" => Self::of_push(payload).map(Some),
            "create" | "delete" => Self::of_reference(kind, payload),
            "pull_request" => Self::of_pull_request(payload),
            _ => Ok(None),
        }
    }

    fn of_push(payload: Map<String, Value>) -> Result<Self, Malformed> {
        let Push { r#ref, after, created, deleted, repository, pusher } =
            read("push", Value::Object(payload))?;
        let by = pusher.map(|pusher| pusher.name);
        Ok(Self::Pushed(GithubPushed {
            repo: repository.full_name,
            r#ref,
            commit: after,
            created,
            deleted,
            by,
        }))
    }

    fn of_reference(kind: &str, payload: Map<String, Value>) -> Result<Option<Self>, Malformed> {
        let reference: Reference = read(kind, Value::Object(payload))?;
        Ok(Some(match (kind, reference.ref_type.as_str()) {
            ("create", "branch") => Self::BranchCreated(reference.into()),
            ("delete", "branch") => Self::BranchDeleted(reference.into()),
            ("create", "tag") => Self::TagCreated(reference.into()),
            ("delete", "tag") => Self::TagDeleted(reference.into()),
            _ => return Ok(None),
        }))
    }
}

/// Reads the fields that an event needs; the many others are left alone.
fn read<T: DeserializeOwned>(kind: &str, payload: Value) -> Result<T, Malformed> {
    serde_json::from_value(payload)
        .map_err(|error| Malformed(format!("this is no webhook of the kind `{kind}`: {error}")))
}

#[derive(Deserialize)]
struct Push {
    r#ref: String,
    after: String,
    #[serde(default)]
    created: bool,
    #[serde(default)]
    deleted: bool,
    repository: Repository,
    pusher: Option<Pusher>,
}

#[derive(Deserialize)]
struct Reference {
    r#ref: String,
    ref_type: String,
    repository: Repository,
    sender: Option<Sender>,
}

#[derive(Deserialize)]
struct Action {
    action: String,
}

#[derive(Deserialize)]
struct PullRequest {
    number: u64,
    pull_request: PullRequestBody,
    repository: Repository,
    sender: Option<Sender>,
}

#[derive(Deserialize)]
struct PullRequestBody {
    title: String,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

#[derive(Deserialize)]
struct Sender {
    login: String,
}

#[derive(Deserialize)]
struct Pusher {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The real ones.
    fn webhooks() -> impl Iterator<Item = (String, Map<String, Value>)> {
        super::super::REAL_WEBHOOKS.lines().map(|line| {
            let mut line: Map<String, Value> = serde_json::from_str(line).unwrap();
            let (Some(Value::String(kind)), Some(Value::Object(payload))) =
                (line.remove("event"), line.remove("payload"))
            else {
                panic!("not of the form")
            };
            (kind, payload)
        })
    }

    #[test]
    fn each_real_webhook_is_the_event_that_it_should_be() {
        let mut names: Vec<_> = webhooks()
            .map(|(kind, payload)| GithubEvent::of(&kind, payload).unwrap().unwrap().name())
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(
            names,
            [
                "github.pull-request.closed",
                "github.pull-request.marked-ready-for-review",
                "github.pull-request.opened",
                "github.pull-request.review-request-removed",
                "github.pull-request.review-requested",
                "github.pull-request.synchronized",
                "github.pushed",
                "github.tag.created",
                "github.tag.deleted",
            ]
        );
    }

    #[test]
    fn what_an_event_needs_is_taken_over() {
        let (_, push) = webhooks().find(|(kind, _)| kind == "push").unwrap();
        let Some(GithubEvent::Pushed(push)) = GithubEvent::of("push", push).unwrap() else { panic!() };
        assert_eq!(
            push,
            GithubPushed {
                repo: "Codertocat/Hello-World".into(),
                r#ref: "refs/tags/simple-tag".into(),
                commit: "6113728f27ae82c7b1a177c8d03f9e96e0adf246".into(),
                created: true,
                deleted: false,
                by: Some("Codertocat".into()),
            }
        );
    }

    #[test]
    fn without_any_of_what_it_needs_it_is_malformed_and_the_text_says_why() {
        for (kind, field) in [
            ("push", "ref"),
            ("push", "repository"),
            ("push", "after"),
            ("create", "ref_type"),
            ("pull_request", "number"),
        ] {
            let (_, mut payload) = webhooks().find(|(k, _)| k == kind).unwrap();
            payload.remove(field);
            let Malformed(why) = GithubEvent::of(kind, payload).unwrap_err();
            assert_eq!(why, format!("this is no webhook of the kind `{kind}`: missing field `{field}`"));
        }
        let Malformed(why) = GithubEvent::of("pull_request", Map::new()).unwrap_err();
        assert!(why.ends_with("missing field `action`"), "{why}");
    }

    #[test]
    fn the_kinds_that_we_do_not_speak_of_are_nothing() {
        for (kind, payload) in [
            ("ping", serde_json::json!({ "zen": "Design for failure." })),
            ("pull_request", serde_json::json!({ "action": "milestoned" })),
            (
                "create",
                serde_json::json!({ "ref": "a", "ref_type": "wiki", "repository": { "full_name": "a/b" } }),
            ),
        ] {
            let Value::Object(payload) = payload else { unreachable!() };
            assert_eq!(GithubEvent::of(kind, payload), Ok(None), "{kind}");
        }
    }
}
