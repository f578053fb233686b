//! Resource limits and the file mode mask. getrlimit(2), umask(2).

use std::io;

pub use rustix::process::{Resource, Rlimit};
use rustix::process::{getrlimit, setrlimit};

use crate::fault;

/// Every resource with the name that `ulimit` and setrlimit(2) know it by, in lower case.
pub const RESOURCES: [(&str, Resource); 15] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// The limit in force; `None` is unlimited.
pub fn get(resource: Resource) -> Rlimit {
    getrlimit(resource)
}

/// Sets soft and hard limit.
///
/// # Errors
/// EPERM when the hard limit would rise without the privilege, EINVAL when the soft one is above it.
pub fn set(resource: Resource, limit: Rlimit) -> io::Result<()> {
    fault::point("setrlimit")?;
    Ok(setrlimit(resource, limit)?)
}

/// Whether the kernel would let this process, and so a child of it, set this limit: it is set and taken back.
pub fn may_set(resource: Resource, limit: Rlimit) -> bool {
    let now = get(resource);
    // Only the hard limit takes a privilege, and only the soft one is in force meanwhile.
    let raised = Rlimit { current: now.current, maximum: limit.maximum };
    if !soft_fits(raised) {
        return true;
    }
    let may = setrlimit(resource, raised).is_ok();
    // Back to where it was, which takes none.
    let _ = setrlimit(resource, now);
    may
}

/// Whether the soft limit is not above the hard one, as the kernel wants it.
fn soft_fits(limit: Rlimit) -> bool {
    limit.current.unwrap_or(u64::MAX) <= limit.maximum.unwrap_or(u64::MAX)
}

/// Makes room for `wanted` open descriptors, as far as the hard limit allows; gives the soft limit that results.
///
/// # Errors
/// What setrlimit(2) says.
pub fn raise_nofile(wanted: u64) -> io::Result<u64> {
    let now = get(Resource::Nofile);
    let soft = now.current.unwrap_or(u64::MAX);
    if soft >= wanted {
        return Ok(soft);
    }
    let room = now.maximum.unwrap_or(u64::MAX).min(wanted);
    if room > soft {
        set(Resource::Nofile, Rlimit { current: Some(room), maximum: now.maximum })?;
    }
    Ok(room.max(soft))
}

/// Sets the mask of file modes: the permission bits that new files do not get.
pub fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}
