//! A session and process group of the child's own. setsid(2), credentials(7).
//!
//! What the child starts can then be signalled as one, and nothing that it sends to its group reaches anybody else. A
//! controlling terminal of the master's, and with it TIOCSTI, stays behind.

use std::io;

pub(crate) fn enter() -> io::Result<()> {
    tine_os::fork::new_session()
}
