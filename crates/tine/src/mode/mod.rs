//! Ways to put the stages of a connection's life together.

pub(crate) mod acceptors;
pub(crate) mod bench;
pub(crate) mod cell;
pub(crate) mod datagram;
pub(crate) mod each;
pub(crate) mod guard;
pub(crate) mod peer;
pub(crate) mod spare;
pub(crate) mod steer;
pub(crate) mod stock;
pub(crate) mod template;
pub(crate) mod worker;
