//! What stands between the client and what it is served with: read by the child, before anything else.

pub(crate) mod introduction;
pub mod proxy;
