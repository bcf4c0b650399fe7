//! How long work on images tells a person how far it is. Knows nothing of terminals: the command line renders it.

/// Told from several threads at once; every method returns at once.
pub trait Progress: Send + Sync {
    /// A new phase begins ("downloading", "unpacking", "installing packages"); earlier totals no longer count.
    fn phase(&self, name: &str);
    /// Size of the phase, in `unit`; may be raised while it runs. Never called when the size is unknown.
    fn total(&self, amount: u64, unit: Unit);
    /// More of the phase is done, in the unit of its total (bytes when no total was named).
    fn advance(&self, amount: u64);
    /// What is being worked on right now, one short line.
    fn detail(&self, _line: &str) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Steps,
}

/// For callers that show nothing.
pub struct Silent;

impl Progress for Silent {
    fn phase(&self, _name: &str) {}
    fn total(&self, _amount: u64, _unit: Unit) {}
    fn advance(&self, _amount: u64) {}
}
