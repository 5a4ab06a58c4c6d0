//! Guards that a simulation takes away, to see that its checks notice.

/// What is left out. A server never does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Planted {
    /// Messages do not wait until what they promise is durable.
    SendsEarly,
    /// A leader's messages do not wait until its term is durable.
    LeadsEarly,
    /// A leader answers reads before it has committed an entry of its own term.
    ReadsBeforeCommit,
    /// A leader answers reads without asking whether it still leads.
    ReadsUnconfirmed,
    /// Commands are taken that were meant for the leader of another term.
    TakesOldForwards,
    /// A change of the members does not wait for the one before.
    ChangesTogether,
    /// A new leader does not bear with the one before.
    EndsAtOnce,
}
