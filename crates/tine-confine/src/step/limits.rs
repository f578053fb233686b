//! Resource limits. setrlimit(2).

use std::io;

use tine_os::limit::{Resource, Rlimit};

/// The pairs that a child sets: those that differ from what the master had when the plan was prepared, and the one that a
/// master changes for itself afterwards.
pub(crate) type Limits = Vec<(Resource, Rlimit)>;

/// Those that do nothing to a process that gives birth and answers for it, and are inherited.
const WORN: [Resource; 5] =
    [Resource::Core, Resource::Fsize, Resource::Memlock, Resource::Msgqueue, Resource::Sigpending];

/// `worn`: the process that this one was forked from has set those that it could.
pub(crate) fn enter(limits: &Limits, worn: bool) -> io::Result<()> {
    set(limits.iter().filter(|(resource, _)| !(worn && WORN.contains(resource))))
}

/// In a process that children are forked from.
pub(crate) fn wear(limits: &Limits) -> io::Result<()> {
    set(limits.iter().filter(|(resource, _)| WORN.contains(resource)))
}

fn set<'a>(mut limits: impl Iterator<Item = &'a (Resource, Rlimit)>) -> io::Result<()> {
    limits.try_for_each(|(resource, limit)| tine_os::limit::set(*resource, *limit))
}
