//! What a child gives up before it meets its client: a [`Plan`] as data, made ready once, entered by each child.
//!
//! `Plan` says what is wanted. [`Plan::prepare`] checks it in the master, where a mistake can still be told to the
//! operator, and gives a [`Prepared`]. [`Prepared::enter`] is what a child does: an ordered list of steps, each a small
//! file in `step/`. A step that fails ends the matter with its name and the kernel's error: never a child less confined
//! than was asked. This crate knows no network and can be used by itself.
//!
//! What there is so far is the child contract, the same whatever the master inherited: session, signals, limits,
//! identity, directory, mask; and [`Group`], which the caller carries out, who makes the groups. Descriptors are placed by the caller, who knows them, with [`Step::Descriptors`] as name.
//!
//! ```
//! use tine_confine::Plan;
//!
//! let plan = Plan { umask: 0o027, ..Plan::default() };
//! let prepared = plan.prepare()?;
//! // ... fork, and in the child: prepared.enter()?
//! # let _ = prepared;
//! # Ok::<(), tine_confine::PlanError>(())
//! ```

#![forbid(unsafe_code)]

mod ability;
mod enter;
mod explain;
mod filter;
mod group;
mod opens;
mod plan;
mod profile;
mod report;
mod step;
mod wear;
mod world;

pub use ability::{Abilities, Missing};
pub use enter::Prepared;
pub use explain::{By, Enforced, Explained, Explanation, Item};
pub use filter::{Answer, Denial, Opening, Wrong};
pub use group::{Group, GroupError};
pub use opens::{Connect, Opens};
pub use plan::{Limit, Plan, PlanError, WhenMissing};
pub use profile::{Bound, Layer, Line, Profile, ProfileError};
pub use report::{Failure, Step};
pub use tine_os::identity::Identity;
pub use tine_os::namespace::Namespaces;
pub use tine_os::seccomp::{Call, Watch};
pub use world::{Bind, Memory, World};
