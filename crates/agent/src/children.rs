//! The one owner of all waits. PID 1 inherits every orphan, so nobody may wait for a single child: this task collects all
//! that end and hands the status to whoever started them.
//!
//! A child may end before its starter knows its number, therefore statuses of unknown children are kept while a start is
//! under way. A start only takes a status that arrived after it began, so a reused number cannot deceive it.

use rustix::process::{WaitOptions, WaitStatus};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

#[derive(Default)]
pub struct Children(Mutex<Table>);

#[derive(Default)]
struct Table {
    waiting: HashMap<i32, oneshot::Sender<Exit>>,
    /// Ended children nobody has claimed yet, with the moment they were collected.
    early: HashMap<i32, (u64, Exit)>,
    starting: BTreeSet<u64>,
    moment: u64,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal { number: i32, core: bool },
}

impl Exit {
    /// As a shell reports it.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal { number, .. } => 128 + number,
        }
    }

    fn of(status: WaitStatus) -> Self {
        match status.terminating_signal() {
            Some(number) => Self::Signal { number, core: status.as_raw() & 0x80 != 0 },
            None => Self::Code(status.exit_status().unwrap_or(-1)),
        }
    }
}

/// A start under way. Dropping it without [`Starting::started`] means that there is no child.
pub struct Starting<'a> {
    table: &'a Children,
    began: u64,
}

impl Children {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before the child is made.
    pub fn starting(&self) -> Starting<'_> {
        let mut table = self.table();
        table.moment += 1;
        let began = table.moment;
        table.starting.insert(began);
        Starting { table: self, began }
    }

    /// Children that were started here and whose end nobody has been told yet.
    pub fn known(&self) -> HashSet<i32> {
        self.table().waiting.keys().copied().collect()
    }

    /// Collects every ended child there is. To be called on each SIGCHLD.
    pub fn collect(&self) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            self.ended(pid.as_raw_pid(), Exit::of(status));
        }
    }

    fn ended(&self, pid: i32, exit: Exit) {
        let mut table = self.table();
        if let Some(starter) = table.waiting.remove(&pid) {
            let _ = starter.send(exit);
        } else if !table.starting.is_empty() {
            table.moment += 1;
            let moment = table.moment;
            table.early.insert(pid, (moment, exit));
        }
    }
}

impl Starting<'_> {
    /// The child runs as `pid`; its end will come through the receiver.
    pub fn started(self, pid: i32) -> oneshot::Receiver<Exit> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table.table();
        match table.early.get(&pid) {
            Some(&(moment, exit)) if moment > self.began => {
                table.early.remove(&pid);
                let _ = sender.send(exit);
            }
            _ => {
                table.waiting.insert(pid, sender);
            }
        }
        receiver
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        let mut table = self.table.table();
        table.starting.remove(&self.began);
        let oldest = table.starting.first().copied();
        match oldest {
            Some(oldest) => table.early.retain(|_, (moment, _)| *moment > oldest),
            None => table.early.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_ends_before_it_is_known_is_not_lost() {
        let children = Children::default();
        let start = children.starting();
        children.ended(7, Exit::Code(3));
        assert_eq!(start.started(7).try_recv(), Ok(Exit::Code(3)));
        assert!(children.table().early.is_empty());
    }

    #[test]
    fn an_older_status_of_the_same_number_is_not_taken() {
        let children = Children::default();
        let slow = children.starting();
        children.ended(7, Exit::Code(1));
        let mut receiver = children.starting().started(7);
        assert!(receiver.try_recv().is_err());
        children.ended(7, Exit::Signal { number: 9, core: false });
        assert_eq!(receiver.try_recv().map(Exit::code), Ok(137));
        drop(slow);
        assert!(children.table().early.is_empty());
    }

    #[test]
    fn orphans_leave_nothing_behind() {
        let children = Children::default();
        children.ended(5, Exit::Code(0));
        assert!(children.table().early.is_empty());
    }
}
