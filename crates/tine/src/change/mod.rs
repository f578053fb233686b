//! What alters a running server.

pub(crate) mod control;
pub(crate) mod drain;
