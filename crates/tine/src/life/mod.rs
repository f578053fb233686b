//! The life of a connection, a stage a file: bind, admit, fork, serve, end, reap. (Confine is a crate of its own.)

pub mod admit;
pub(crate) mod bind;
pub(crate) mod end;
pub(crate) mod fork;
pub(crate) mod pause;
pub(crate) mod reap;
pub(crate) mod serve;
pub(crate) mod slot;
pub(crate) mod tree;
