//! The benchmark: a load generator of our own, and what runs it against tine, its peers and bare loops.
//!
//! Nothing here is shipped, and nothing here is part of a server that is measured, but for `bin/handler.rs`, which is
//! one that uses the library. The generator uses no code of tine's.

#![forbid(unsafe_code)]

pub mod chart;
pub mod experiments;
pub mod goals;
pub mod load;
pub mod machine;
pub mod page;
pub mod procfs;
pub mod repeat;
pub mod results;
pub mod running;
pub mod servers;
pub mod stats;
