//! What a child does with a prepared plan: the steps, in the order that they need.

use std::ffi::CString;
use std::io;

use crate::Identity;
use crate::report::{Failure, Step};
use crate::step::{self, limits::Limits};

/// A plan that was checked and is ready to be entered, any number of times, by a child each.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) identity: Option<Identity>,
    pub(crate) directory: Option<CString>,
    pub(crate) umask: u32,
    pub(crate) limits: Limits,
    pub(crate) signals: Vec<i32>,
}

impl Prepared {
    /// Whether a child becomes another user, or takes other groups.
    pub fn changes_identity(&self) -> bool {
        self.identity.is_some()
    }

    /// Gives it all up. `descriptors` is the caller's: it places what the child keeps and closes the rest.
    ///
    /// # Errors
    /// The first step that failed; the child must end then, for it is less confined than was asked.
    pub fn enter(&self, descriptors: impl FnOnce() -> io::Result<()>) -> Result<(), Failure> {
        // First, so that a signal to the master's group no longer reaches this child as well.
        step::session::enter().map_err(Step::Session.failed())?;
        // Before anything of the master could be misused: from here on it is out of reach.
        descriptors().map_err(Step::Descriptors.failed())?;
        // Before the identity: raising a limit to what was asked may need root.
        step::limits::enter(&self.limits).map_err(Step::Limits.failed())?;
        // Before the directory: it must be one that the user may enter, not one that root could.
        step::identity::enter(self.identity.as_ref()).map_err(Step::Identity.failed())?;
        step::directory::enter(self.directory.as_deref()).map_err(Step::Directory.failed())?;
        step::umask::enter(self.umask);
        // Last: a signal sent to the child meanwhile waits until it is what it is going to be.
        step::signals::enter(&self.signals).map_err(Step::Signals.failed())
    }
}
