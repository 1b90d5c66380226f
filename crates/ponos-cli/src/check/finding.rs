//! What `ponos check` finds.

use serde::Serialize;

/// What kind of fault it is. Scripts rely on these words; none changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Code {
    /// What is sent cannot be read.
    SchemaBreaking,
    /// Some of what is sent cannot be read, or a field that was read is gone.
    SchemaNarrowing,
    /// A payload changed, and who reads it is not known.
    SchemaChanged,
    /// An event is heard that nobody publishes.
    EventUnpublished,
    /// An event is published that nobody hears.
    EventUnheard,
    /// A task is created that nobody performs.
    TaskUnowned,
    /// An application performs or creates another's task.
    TaskForeign,
    /// Two applications perform one task.
    TaskTwoOwners,
    /// Two manifests of one application and version contradict each other.
    AppConflict,
    /// Two handlers would share a queue.
    QueueCollision,
    /// Messages beget each other and no reaction can end it.
    CycleUnguarded,
    /// A chain is longer than an application allows.
    HopLimit,
    /// A name breaks the rules of names.
    NameInvalid,
    /// An event's name is not in the past tense, or a task's is.
    NameTense,
    /// A policy cannot mean what it says.
    PolicyContradiction,
    /// Jobs become too old before their retries are used up.
    RetriesCutShort,
    /// An attempt may take longer than RabbitMQ waits for its end.
    TimeoutTooLong,
}

/// How bad it is: errors end with exit code 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Error,
    Warning,
}

/// One fault. Names in its texts are [`quoted`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) code: Code,
    /// The event, task, queue or application that it is about.
    pub(super) subject: String,
    pub(super) message: String,
    /// The way out.
    pub(super) help: String,
    /// The applications that cannot read what is sent.
    pub(super) breaks: Vec<String>,
}

impl Code {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::SchemaBreaking => "schema-breaking",
            Self::SchemaNarrowing => "schema-narrowing",
            Self::SchemaChanged => "schema-changed",
            Self::EventUnpublished => "event-unpublished",
            Self::EventUnheard => "event-unheard",
            Self::TaskUnowned => "task-unowned",
            Self::TaskForeign => "task-foreign",
            Self::TaskTwoOwners => "task-two-owners",
            Self::AppConflict => "app-conflict",
            Self::QueueCollision => "queue-collision",
            Self::CycleUnguarded => "cycle-unguarded",
            Self::HopLimit => "hop-limit",
            Self::NameInvalid => "name-invalid",
            Self::NameTense => "name-tense",
            Self::PolicyContradiction => "policy-contradiction",
            Self::RetriesCutShort => "retries-cut-short",
            Self::TimeoutTooLong => "timeout-too-long",
        }
    }

    const fn severity(self) -> Severity {
        match self {
            Self::SchemaBreaking
            | Self::TaskUnowned
            | Self::TaskForeign
            | Self::TaskTwoOwners
            | Self::AppConflict
            | Self::QueueCollision
            | Self::CycleUnguarded
            | Self::HopLimit
            | Self::NameInvalid
            | Self::PolicyContradiction => Severity::Error,
            Self::SchemaNarrowing
            | Self::SchemaChanged
            | Self::EventUnpublished
            | Self::EventUnheard
            | Self::NameTense
            | Self::RetriesCutShort
            | Self::TimeoutTooLong => Severity::Warning,
        }
    }
}

impl Finding {
    pub(super) fn new(
        code: Code,
        subject: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            severity: code.severity(),
            code,
            subject: subject.into(),
            message: message.into(),
            help: help.into(),
            breaks: Vec::new(),
        }
    }
}

/// A name between backticks, which it cannot end itself.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "'"))
}

/// `a`, `b` and `c`.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names: Vec<String> = names.into_iter().map(quoted).collect();
    match (names.pop(), names.is_empty()) {
        (None, _) => "nobody".to_owned(),
        (Some(only), true) => only,
        (Some(last), false) => format!("{} and {last}", names.join(", ")),
    }
}
