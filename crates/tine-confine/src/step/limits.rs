//! Resource limits. setrlimit(2).

use std::io;

use tine_os::limit::{Resource, Rlimit};

/// The pairs that a child sets: those that differ from what the master had when the plan was prepared, and the one that a
/// master changes for itself afterwards.
pub(crate) type Limits = Vec<(Resource, Rlimit)>;

pub(crate) fn enter(limits: &Limits) -> io::Result<()> {
    limits.iter().try_for_each(|(resource, limit)| tine_os::limit::set(*resource, *limit))
}
