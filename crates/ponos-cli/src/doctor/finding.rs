//! What `ponos doctor` finds, and what it could not look at.

use serde::Serialize;

/// What kind of fault it is. Scripts rely on these words; none changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Code {
    /// The broker cannot be reached or used.
    BrokerUnreachable,
    /// The broker's disk is nearly full.
    DiskFull,
    /// Others on this machine may use the broker's files.
    FilesOpen,
    /// A clock is ahead of this machine's.
    ClockSkew,
    /// Nothing tells what happened.
    NoRecords,
    /// Records are missing.
    RecordsLost,
    /// Jobs wait, and nobody works their queue.
    QueueUnworked,
    /// A consumer could take jobs and is given none.
    ConsumerStalled,
    /// A queue's application has not been seen for long.
    OwnerGone,
    /// An instance fell silent with jobs in its hands.
    InstanceSilent,
    /// Versions of an application that differ are at work together.
    VersionsMixed,
    /// An event is published that nobody hears.
    EventUnheard,
    /// A chain is longer than an application allows.
    HopLimit,
    /// An attempt may take longer than RabbitMQ waits for its end.
    TimeoutTooLong,
    /// A circuit has been open for long.
    CircuitOpen,
    /// An order stands.
    OrderStands,
    /// An order stands, and a service does not follow any.
    OrdersIgnored,
    /// Jobs have failed and wait for somebody.
    JobsFailed,
    /// What exists on RabbitMQ cannot be used by a service.
    DeclaredUnusable,
    /// What exists on RabbitMQ is not as a service declares it.
    DeclaredDiffers,
    /// A user may do more than it needs.
    PermissionsWide,
}

/// How bad it is: errors end with exit code 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    Error,
    Warning,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) code: Code,
    /// The queue, event, application, instance or broker that it is about.
    pub(crate) subject: String,
    pub(crate) message: String,
    /// The way out.
    pub(crate) help: String,
}

/// Something that could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Unseen {
    pub(crate) what: String,
    pub(crate) why: String,
}

/// All that was found.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Report {
    /// What was looked at and is well, in a line each.
    pub(crate) fine: Vec<String>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) unseen: Vec<Unseen>,
}

impl Code {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::BrokerUnreachable => "broker-unreachable",
            Self::DiskFull => "disk-full",
            Self::FilesOpen => "files-open",
            Self::ClockSkew => "clock-skew",
            Self::NoRecords => "no-records",
            Self::RecordsLost => "records-lost",
            Self::QueueUnworked => "queue-unworked",
            Self::ConsumerStalled => "consumer-stalled",
            Self::OwnerGone => "owner-gone",
            Self::InstanceSilent => "instance-silent",
            Self::VersionsMixed => "versions-mixed",
            Self::EventUnheard => "event-unheard",
            Self::HopLimit => "hop-limit",
            Self::TimeoutTooLong => "timeout-too-long",
            Self::CircuitOpen => "circuit-open",
            Self::OrderStands => "order-stands",
            Self::OrdersIgnored => "orders-ignored",
            Self::JobsFailed => "jobs-failed",
            Self::DeclaredUnusable => "declared-unusable",
            Self::DeclaredDiffers => "declared-differs",
            Self::PermissionsWide => "permissions-wide",
        }
    }
}

impl Report {
    /// Notes a fault that loses, holds up or endangers jobs.
    pub(crate) fn error(&mut self, code: Code, subject: impl Into<String>, message: String, help: String) {
        self.findings.push(Finding {
            severity: Severity::Error,
            code,
            subject: subject.into(),
            message,
            help,
        });
    }

    /// Notes a fault that somebody should know of.
    pub(crate) fn warning(&mut self, code: Code, subject: impl Into<String>, message: String, help: String) {
        self.findings.push(Finding {
            severity: Severity::Warning,
            code,
            subject: subject.into(),
            message,
            help,
        });
    }

    pub(crate) fn fine(&mut self, text: String) {
        self.fine.push(text);
    }

    pub(crate) fn unseen(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.unseen.push(Unseen { what: what.into(), why: why.into() });
    }

    pub(crate) fn count(&self, severity: Severity) -> u64 {
        self.findings.iter().filter(|finding| finding.severity == severity).count() as u64
    }
}
