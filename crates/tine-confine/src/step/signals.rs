//! Signals: every disposition default, SIGPIPE's too, and nothing blocked. signal(7).

use std::io;

/// `changed`: those that were otherwise when the plan was prepared; nobody makes others so after that.
pub(crate) fn enter(changed: &[i32], worn: bool) -> io::Result<()> {
    tine_os::signal::reset(if worn { &[] } else { changed })
}

/// In a process that children are forked from: what is blocked stays so.
pub(crate) fn wear(changed: &[i32]) -> io::Result<()> {
    tine_os::signal::set_defaults(changed)
}
