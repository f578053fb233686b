//! The steps, one a file; `enter` says in which order and why.

pub(crate) mod capabilities;
pub(crate) mod directory;
pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod session;
pub(crate) mod signals;
pub(crate) mod umask;
