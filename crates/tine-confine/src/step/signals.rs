//! Signals: every disposition default, SIGPIPE's too, and nothing blocked. signal(7).

use std::io;

pub(crate) fn enter() -> io::Result<()> {
    tine_os::signal::reset()
}
