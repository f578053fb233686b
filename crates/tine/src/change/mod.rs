//! What alters a running server.

pub(crate) mod drain;
