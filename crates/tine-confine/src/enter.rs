//! What a child does with a prepared plan: the steps, in the order that they need.

use std::cell::Cell;
use std::ffi::CString;
use std::io;
use std::os::fd::RawFd;

use tine_os::namespace::Namespaces;
use tine_os::seccomp::{Key, Watch};

use crate::Identity;
use crate::ability::Missing;
use crate::report::{Failure, Step};
use crate::step::{self, limits::Limits};
use crate::wear::Wear;

/// A plan that was checked and is ready to be entered, any number of times, by a child each.
///
/// What all children give up alike can be worn by the process that they are forked from ([`Prepared::wear`]), and costs
/// them nothing then. A child of a process that does not wear it puts it on itself.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) identity: Option<Identity>,
    pub(crate) directory: Option<CString>,
    pub(crate) umask: u32,
    pub(crate) limits: Limits,
    pub(crate) signals: Vec<i32>,
    /// Whether the process that children are forked from has set what it could of these two for them.
    pub(crate) inherited: Cell<bool>,
    pub(crate) wear: Wear,
    pub(crate) missing: Vec<Missing>,
    pub(crate) profile: String,
}

impl Prepared {
    /// Whether a child becomes another user whom others may be as well.
    pub fn becomes_known_user(&self) -> bool {
        self.identity.is_some()
    }

    /// Whether there is something that can be worn by the process that children are forked from.
    pub fn confines(&self) -> bool {
        self.wear.is_something()
    }

    /// The namespaces that each child is to be born into. Whoever is not has those of its parent.
    pub fn own_namespaces(&self) -> Namespaces {
        self.wear.own
    }

    /// Those of them that are as new when nobody is left in them: a network only as long as nobody in it may set it up.
    pub fn own_namespaces_to_use_again(&self) -> Namespaces {
        let network = if self.wear.privileges { Namespaces::NET } else { Namespaces::NONE };
        self.wear.own.only(Namespaces::PID | network)
    }

    /// Whether each child has a user of its own, told by its slot.
    pub fn has_own_users(&self) -> bool {
        self.wear.has_own_users()
    }

    /// Whether the first process of each child's pid namespace is to be one of ours, and the program is born beside it.
    pub fn wants_init(&self) -> bool {
        self.wear.init
    }

    /// Whether nobody can leave the control group that a child was born in, so that nobody is left of it where nobody is in there.
    pub fn stays_in_group(&self) -> bool {
        self.wear.stays
    }

    /// Whether a child can make a socket by which whoever has it reaches others in its network.
    pub fn has_sockets(&self) -> bool {
        self.wear.has_sockets()
    }

    /// The name of the profile that it was made from.
    pub fn profile(&self) -> &str {
        &self.profile
    }

    /// What of the plan cannot be had on this system.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// A descriptor that must be left open in a child until it has entered, in a process that wears the plan; it is close-on-exec.
    pub fn kept(&self) -> Option<RawFd> {
        self.wear.kept()
    }

    /// In a process that children will be forked from: gives up what all of them give up. `births` says that they become programs, and are
    /// born by calls that a filter may refuse to those: these are allowed to whoever shows the key that is given then.
    ///
    /// # Errors
    /// The step that failed; the process must end then, since part of it is done.
    pub fn wear(&self, births: bool) -> Result<Key, Failure> {
        self.wear_as(births, false).map(|(key, _)| key)
    }

    /// As [`Prepared::wear`], but that somebody is asked before anybody is killed for a call: whoever reads the [`Watch`], who is to
    /// kill. Nobody who wears the plan must have it, who could let calls be done; and when it is closed, such calls fail as unknown
    /// and kill nobody. `None` where it cannot be had, or there is no filter: the kernel kills then.
    ///
    /// # Errors
    /// As [`Prepared::wear`].
    pub fn wear_watched(&self, births: bool) -> Result<(Key, Option<Watch>), Failure> {
        self.wear_as(births, true)
    }

    fn wear_as(&self, births: bool, asks: bool) -> Result<(Key, Option<Watch>), Failure> {
        // First: raising a limit to what was asked may need root, and a filter may refuse what changes one.
        step::limits::wear(&self.limits).map_err(Step::Limits.failed())?;
        step::signals::wear(&self.signals).map_err(Step::Signals.failed())?;
        self.inherited.set(true);
        self.wear.put_on(births, asks)
    }

    /// In a process that keeps a namespace for children and does nothing else: has no rights in it.
    ///
    /// # Errors
    /// What capset(2) says.
    pub fn keep(&self) -> Result<(), Failure> {
        step::capabilities::enter(&self.wear).map_err(Step::Capabilities.failed())
    }

    /// Gives up all the rest. `slot` tells children apart that are alive at the same time, `descriptors` is the caller's: it places
    /// what the child keeps and closes the rest. Asks for no memory where the plan is worn.
    ///
    /// # Errors
    /// The first step that failed; the child must end then, for it is less confined than was asked.
    pub fn enter(&self, slot: u32, descriptors: impl FnOnce() -> io::Result<()>) -> Result<(), Failure> {
        // First, so that a signal to the master's group no longer reaches this child as well.
        step::session::enter().map_err(Step::Session.failed())?;
        // Before anything of the master could be misused: from here on it is out of reach.
        descriptors().map_err(Step::Descriptors.failed())?;
        // Nothing to do where it was forked from a process that wears it.
        self.wear.put_on(false, false).map(drop)?;
        // While there is the capability for it.
        step::mounts::enter(&self.wear).map_err(Step::Mounts.failed())?;
        // Before the identity: raising a limit to what was asked may need root.
        step::limits::enter(&self.limits, self.inherited.get()).map_err(Step::Limits.failed())?;
        // Before the directory: it must be one that the user may enter, not one that root could.
        match self.wear.first_user {
            Some(first) => step::identity::become_own(first, slot).map_err(Step::Identity.failed())?,
            None => step::identity::enter(self.identity.as_ref()).map_err(Step::Identity.failed())?,
        }
        step::directory::enter(self.directory.as_deref()).map_err(Step::Directory.failed())?;
        step::umask::enter(self.umask);
        // After the identity and the mounts, which take some.
        step::capabilities::enter(&self.wear).map_err(Step::Capabilities.failed())?;
        // After the directory, which need not be one that may be read; a domain of its own, even where all have the same rules.
        self.wear.enter_domain().map_err(Step::Domain.failed())?;
        // Last: a signal sent to the child meanwhile waits until it is what it is going to be.
        step::signals::enter(&self.signals, self.inherited.get()).map_err(Step::Signals.failed())
    }
}
