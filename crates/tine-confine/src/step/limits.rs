//! Resource limits. setrlimit(2).

use std::io;

use tine_os::limit::{Resource, Rlimit};

/// The pairs that a child sets.
pub(crate) type Limits = Vec<(Resource, Rlimit)>;

pub(crate) fn enter(limits: &Limits) -> io::Result<()> {
    limits.iter().try_for_each(|(resource, limit)| {
        // Only what differs: most limits are as they should be, and sixteen calls a child add up.
        if tine_os::limit::get(*resource) == *limit { Ok(()) } else { tine_os::limit::set(*resource, *limit) }
    })
}
