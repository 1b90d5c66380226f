/// How patient the policies are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pace {
    /// For work: a provider that is down for an hour costs nobody a mail.
    #[default]
    Production,
    /// For an audience: the same policies, with times and counts short enough to be watched.
    Demo,
}
