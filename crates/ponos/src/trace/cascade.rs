//! The tree, and the views through which it is read.

use std::sync::Arc;

use ponos_core::id::{MessageId, Tid, Timestamp};
use ponos_core::journal::{AttemptRecord, HandMade, Origin as Instance};
use ponos_core::name::AppName;

use super::job::JobState;
use super::surroundings::{Gap, Surroundings};

/// The tree of one transaction: messages, the jobs that they became, and what the handlers of those published.
///
/// `Display` is a plain text for tests; see the [module](super).
#[derive(Debug, Clone)]
pub struct Cascade {
    pub(super) tid: Option<Tid>,
    /// All messages. The tree is made of indices and not of boxes: a loop of events that nobody stopped is as deep
    /// as it is long, and a recursion over it would end the process.
    pub(super) messages: Vec<Message>,
    pub(super) roots: Vec<usize>,
    /// The messages depth first, each before what it caused.
    pub(super) order: Vec<usize>,
    /// What is known besides the records.
    pub(super) around: Surroundings,
}

/// One message of the tree.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: MessageId,
    /// `None` when only attempts at it are recorded.
    pub(super) published: Option<Publication>,
    pub(super) origin: Origin,
    pub(super) parent: Option<usize>,
    pub(super) depth: usize,
    /// By the queue's name.
    pub(super) jobs: Vec<JobData>,
    /// Messages that name this one as their cause and no queue: published outside a handler.
    pub(super) outside: Vec<usize>,
    /// Why it was not published, and whether it may have been after all.
    pub(super) unpublished: Option<(Arc<str>, bool)>,
}

/// What the record of its publishing says about a message. The order is the one in which the first of several counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Publication {
    pub(super) at: Timestamp,
    pub(super) name: Arc<str>,
    pub(super) event: bool,
    pub(super) app: Option<AppName>,
    pub(super) cause: Option<MessageId>,
    pub(super) by: Option<Arc<str>>,
    pub(super) queues: u32,
}

#[derive(Debug, Clone)]
pub(super) struct JobData {
    pub(super) queue: String,
    pub(super) state: JobState,
    pub(super) attempts: Vec<AttemptRecord>,
    /// Who made each attempt, where that is known.
    pub(super) by: Vec<Option<Arc<Instance>>>,
    pub(super) children: Vec<usize>,
    /// How often it came again and was recognised.
    pub(super) duplicates: u32,
    /// Whether it was suspected of killing its process.
    pub(super) suspected: bool,
    /// What was done with it by hand, in order.
    pub(super) by_hand: Vec<(Timestamp, HandMade)>,
    /// Whether what its handler published may be missing.
    pub(super) childless: bool,
}

impl JobData {
    pub(super) fn new(queue: String, state: JobState) -> Self {
        Self {
            queue,
            state,
            attempts: Vec::new(),
            by: Vec::new(),
            children: Vec::new(),
            duplicates: 0,
            suspected: false,
            by_hand: Vec::new(),
            childless: false,
        }
    }
}

impl Message {
    pub(super) fn name(&self) -> Option<&str> {
        self.published.as_ref().map(|published| &*published.name)
    }

    pub(super) fn kind(&self) -> Kind {
        match &self.published {
            Some(published) if published.event => Kind::Event,
            Some(_) => Kind::Task,
            None => Kind::Unknown,
        }
    }

    pub(super) fn queues(&self) -> u32 {
        self.published.as_ref().map_or(0, |published| published.queues)
    }

    /// A task's job in the queue that has its name; it is shown on the task's own line.
    pub(super) fn own_job(&self) -> Option<usize> {
        if self.kind() != Kind::Task {
            return None;
        }
        self.jobs.iter().position(|job| Some(job.queue.as_str()) == self.name())
    }

    /// Queues that have the message and of which nothing else is known, not even the name.
    pub(super) fn unseen(&self) -> u32 {
        let seen = u32::try_from(self.jobs.len()).unwrap_or(u32::MAX);
        self.queues().saturating_sub(seen)
    }

    pub(super) fn children(&self) -> impl DoubleEndedIterator<Item = usize> {
        let of_jobs = self.jobs.iter().flat_map(|job| &job.children);
        of_jobs.chain(&self.outside).copied()
    }
}

impl Cascade {
    /// The transaction; `None` without records.
    #[must_use]
    pub fn tid(&self) -> Option<&Tid> {
        self.tid.as_ref()
    }

    /// Messages that start a chain, then those whose cause is not known ([`Node::origin`] says why), by name.
    pub fn roots(&self) -> impl Iterator<Item = Node<'_>> {
        self.roots.iter().map(|&index| self.node(index))
    }

    /// All messages, each before what it caused, in the order of the text.
    #[must_use]
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes { cascade: self, order: self.order.iter() }
    }

    /// The first message with this name, in the order of the text.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Node<'_>> {
        self.all(name).next()
    }

    /// All messages with this name, in the order of the text.
    pub fn all(&self, name: &str) -> impl Iterator<Item = Node<'_>> {
        self.nodes().filter(move |node| node.name() == Some(name))
    }

    /// All jobs that are known by their queue, in the order of the text. What an event's other queues hold is
    /// counted by [`Node::not_yet`].
    #[must_use]
    pub fn jobs(&self) -> Jobs<'_> {
        Jobs { cascade: self, rest: self.order.iter(), current: None }
    }

    /// How the transaction stands.
    #[must_use]
    pub fn outcome(&self) -> CascadeOutcome {
        let tally = self.tally();
        if self.messages.is_empty() {
            CascadeOutcome::Empty
        } else if tally.pending() > 0 {
            CascadeOutcome::Pending
        } else if tally.failed > 0 {
            CascadeOutcome::Failed
        } else if tally.unrecorded + tally.unknown > 0
            || self.gaps().next().is_some()
            || self.nodes().any(|node| node.origin().is_gap())
        {
            CascadeOutcome::Incomplete
        } else {
            CascadeOutcome::Done
        }
    }

    /// Counts the jobs by their state.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        for message in &self.messages {
            tally.not_yet += u64::from(message.unseen());
            for job in &message.jobs {
                match job.state {
                    JobState::Done => tally.done += 1,
                    JobState::Failed { recovered, .. } => {
                        tally.failed += 1;
                        tally.recovered += u64::from(recovered);
                    }
                    JobState::Waiting { .. } => tally.waiting += 1,
                    JobState::Recovering => tally.recovering += 1,
                    JobState::NotYet => tally.not_yet += 1,
                    JobState::Lost => tally.lost += 1,
                    JobState::Unrecorded => tally.unrecorded += 1,
                    JobState::Running { .. } => tally.running += 1,
                    JobState::Unknown => tally.unknown += 1,
                }
            }
        }
        tally
    }

    /// The earliest and the latest moment that a record names, on the clocks of those who wrote them.
    #[must_use]
    pub fn extent(&self) -> Option<(Timestamp, Timestamp)> {
        let published = self.messages.iter().filter_map(|m| m.published.as_ref());
        let attempts = self.messages.iter().flat_map(|m| &m.jobs).flat_map(|job| &job.attempts);
        let moments =
            published.map(|p| (p.at, p.at)).chain(attempts.map(|a| (a.started, a.started + a.took)));
        moments.reduce(|(first, last), (start, end)| (first.min(start), last.max(end)))
    }

    /// Lost entries that may belong to this transaction: they were written in its time.
    pub fn gaps(&self) -> impl Iterator<Item = &Gap> {
        let extent = self.extent().map(|(from, until)| {
            let open =
                self.messages.iter().flat_map(|message| &message.jobs).any(|job| !job.state.is_final());
            (from, if open { until.max(self.around.now) } else { until })
        });
        self.around
            .gaps
            .iter()
            .filter(move |gap| extent.is_some_and(|(from, until)| gap.touches(from, until)))
    }

    pub(super) fn node(&self, index: usize) -> Node<'_> {
        Node { cascade: self, index }
    }
}

/// How a transaction stands, by its records. The first that applies counts, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CascadeOutcome {
    /// There are no records.
    Empty,
    /// Some job waits, is being recovered, or has not ended for another reason.
    Pending,
    /// Every job has ended, some in failure, recovered or not.
    Failed,
    /// Nothing is known to be pending or failed, but records are missing.
    Incomplete,
    /// Every job is done.
    Done,
}

impl CascadeOutcome {
    /// One lower-case word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Incomplete => "incomplete",
            Self::Done => "done",
        }
    }
}

/// How many jobs of a transaction are in which [state](JobState).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the fields are the states, which are documented there")]
pub struct Tally {
    pub done: u64,
    pub failed: u64,
    /// Of those that failed.
    pub recovered: u64,
    pub waiting: u64,
    pub recovering: u64,
    pub not_yet: u64,
    pub lost: u64,
    pub unrecorded: u64,
    pub running: u64,
    pub unknown: u64,
}

impl Tally {
    /// Jobs that have something ahead of them.
    #[must_use]
    pub const fn pending(&self) -> u64 {
        self.waiting + self.recovering + self.not_yet + self.lost + self.running
    }

    /// All jobs.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.done + self.failed + self.pending() + self.unrecorded + self.unknown
    }
}

/// Where a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// It started a chain.
    Start,
    /// Another message of the tree caused it.
    Caused,
    /// It names a cause, of which there is no record.
    CauseNotRecorded,
    /// Attempts at it are recorded, its publishing is not.
    NotRecorded,
    /// By the records it caused itself. Ids cannot do that: somebody's records are wrong.
    Circular,
}

impl Origin {
    /// Whether a record is missing or wrong.
    #[must_use]
    pub const fn is_gap(self) -> bool {
        matches!(self, Self::CauseNotRecorded | Self::NotRecorded | Self::Circular)
    }
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An event.
    Event,
    /// A task.
    Task,
    /// Its publishing is not recorded.
    Unknown,
}

/// A message in a [`Cascade`].
#[derive(Clone, Copy)]
pub struct Node<'a> {
    cascade: &'a Cascade,
    index: usize,
}

impl std::fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).field("name", &self.name()).finish_non_exhaustive()
    }
}

impl<'a> Node<'a> {
    pub(super) fn data(self) -> &'a Message {
        &self.cascade.messages[self.index]
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.data().id
    }

    /// The event's or the task's name; `None` when the publishing is not recorded.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        self.data().name()
    }

    /// An event or a task.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.data().kind()
    }

    /// The application that published it.
    #[must_use]
    pub fn app(&self) -> Option<&'a AppName> {
        self.data().published.as_ref()?.app.as_ref()
    }

    /// When it was published.
    #[must_use]
    pub fn published_at(&self) -> Option<Timestamp> {
        self.data().published.as_ref().map(|published| published.at)
    }

    /// Where it comes from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.data().origin
    }

    /// How many queues it went to; 0 also when its publishing is not recorded.
    #[must_use]
    pub fn queues(&self) -> u32 {
        self.data().queues()
    }

    /// In how many of its queues no attempt has ended.
    #[must_use]
    pub fn not_yet(&self) -> u32 {
        let waiting = self.jobs().any(|job| job.state() == JobState::NotYet);
        self.data().unseen() + u32::from(waiting)
    }

    /// Whether it is an event that went to no queue.
    #[must_use]
    pub fn is_unheard(&self) -> bool {
        self.kind() == Kind::Event && self.queues() == 0 && self.data().jobs.is_empty()
    }

    /// The message that caused this one.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.data().parent.map(|index| self.cascade.node(index))
    }

    /// The jobs that the message became, by their queues' names. A task that no handler has taken yet has one too.
    pub fn jobs(&self) -> impl Iterator<Item = Job<'a>> + use<'a> {
        let node = *self;
        (0..self.data().jobs.len()).map(move |index| Job { node, index })
    }

    /// The job in this queue.
    #[must_use]
    pub fn job(&self, queue: &str) -> Option<Job<'a>> {
        self.jobs().find(|job| job.queue() == queue)
    }

    /// The state of a message with exactly one job, such as a task.
    #[must_use]
    pub fn state(&self) -> Option<JobState> {
        match self.data().jobs.as_slice() {
            [job] => Some(job.state),
            _ => None,
        }
    }

    /// What its handlers published, and what was published outside a handler on its account.
    pub fn children(&self) -> impl Iterator<Item = Self> + use<'a> {
        let cascade = self.cascade;
        self.data().children().map(|index| cascade.node(index))
    }
}

/// A message in one queue.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    node: Node<'a>,
    index: usize,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("message", &self.node)
            .field("queue", &self.queue())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl<'a> Job<'a> {
    fn data(self) -> &'a JobData {
        &self.node.data().jobs[self.index]
    }

    /// The message.
    #[must_use]
    pub fn message(&self) -> Node<'a> {
        self.node
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &'a str {
        &self.data().queue
    }

    /// How far it has come.
    #[must_use]
    pub fn state(&self) -> JobState {
        self.data().state
    }

    /// The attempts that are recorded, in the order in which they happened.
    #[must_use]
    pub fn attempts(&self) -> &'a [AttemptRecord] {
        &self.data().attempts
    }

    /// The instances that made the [attempts](Self::attempts), where they are known.
    #[must_use]
    pub fn instances(&self) -> &'a [Option<Arc<Instance>>] {
        &self.data().by
    }

    /// What was done with it by hand, in order.
    #[must_use]
    pub fn by_hand(&self) -> &'a [(Timestamp, HandMade)] {
        &self.data().by_hand
    }

    /// What its handler published.
    pub fn children(&self) -> impl Iterator<Item = Node<'a>> + use<'a> {
        let cascade = self.node.cascade;
        self.data().children.iter().map(|&index| cascade.node(index))
    }
}

/// The messages of a [`Cascade`]; see [`Cascade::nodes`].
#[derive(Debug, Clone)]
pub struct Nodes<'a> {
    cascade: &'a Cascade,
    order: std::slice::Iter<'a, usize>,
}

impl<'a> Iterator for Nodes<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        self.order.next().map(|&index| self.cascade.node(index))
    }
}

/// The jobs of a [`Cascade`]; see [`Cascade::jobs`].
#[derive(Debug, Clone)]
pub struct Jobs<'a> {
    cascade: &'a Cascade,
    rest: std::slice::Iter<'a, usize>,
    /// The message whose jobs are given out, and how many of them were.
    current: Option<(Node<'a>, usize)>,
}

impl<'a> Iterator for Jobs<'a> {
    type Item = Job<'a>;

    fn next(&mut self) -> Option<Job<'a>> {
        loop {
            if let Some((node, given)) = &mut self.current
                && *given < node.data().jobs.len()
            {
                *given += 1;
                return Some(Job { node: *node, index: *given - 1 });
            }
            self.current = Some((self.cascade.node(*self.rest.next()?), 0));
        }
    }
}
