//! Which step failed, and why: what a child tells the master when it cannot start.

use std::{error, fmt, io};

use serde::Serialize;

/// One step on the way from fork to the client, in the order in which they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
#[non_exhaustive]
pub enum Step {
    /// A session of its own.
    Session = 1,
    /// Descriptors placed and closed.
    Descriptors = 2,
    /// Resource limits.
    Limits = 3,
    /// Groups, group and user.
    Identity = 4,
    /// The working directory.
    Directory = 5,
    /// Signals back to their defaults.
    Signals = 6,
    /// The program executed.
    Exec = 7,
    /// A place where all that the child starts is held together; before everything else.
    Tree = 8,
    /// To end when the parent does; after the identity.
    Parent = 9,
    /// Whom a balancer speaks for; the last before the client is served.
    Introduction = 10,
    /// The client of a child that was born before it came.
    Client = 11,
    /// A user namespace, and who is who in it; in the process that children are forked from.
    Users = 12,
    /// The other namespaces; there too.
    Namespaces = 13,
    /// The tree of files put together; there too.
    World = 14,
    /// The bounds of what privilege can ever be got; there too.
    Privileges = 15,
    /// Rights over files, ports and others made ready; there too.
    Rules = 16,
    /// The filter of system calls; there too.
    Calls = 17,
    /// File systems of the child's own.
    Mounts = 18,
    /// Capabilities given up; after the identity, which takes some.
    Capabilities = 19,
    /// The child's own domain: files, ports, others.
    Domain = 20,
    /// The mask of file modes. It cannot fail, and is here to be told of.
    Umask = 21,
}

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub step: Step,
    /// What the kernel said.
    pub error: io::Error,
}

impl Step {
    /// The step with this number, where there is one.
    pub fn from_number(number: u8) -> Option<Step> {
        let all = [
            Step::Session,
            Step::Descriptors,
            Step::Limits,
            Step::Identity,
            Step::Directory,
            Step::Signals,
            Step::Exec,
            Step::Tree,
            Step::Parent,
            Step::Introduction,
            Step::Client,
            Step::Users,
            Step::Namespaces,
            Step::World,
            Step::Privileges,
            Step::Rules,
            Step::Calls,
            Step::Mounts,
            Step::Capabilities,
            Step::Domain,
            Step::Umask,
        ];
        all.into_iter().find(|step| *step as u8 == number)
    }

    /// Makes an error into a failure of this step.
    pub fn failed(self) -> impl FnOnce(io::Error) -> Failure {
        move |error| Failure { step: self, error }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Session => "session",
            Step::Descriptors => "descriptors",
            Step::Limits => "limits",
            Step::Identity => "identity",
            Step::Directory => "directory",
            Step::Signals => "signals",
            Step::Exec => "exec",
            Step::Tree => "tree",
            Step::Parent => "parent",
            Step::Introduction => "introduction",
            Step::Client => "client",
            Step::Users => "users",
            Step::Namespaces => "namespaces",
            Step::World => "world",
            Step::Privileges => "privileges",
            Step::Rules => "rules",
            Step::Calls => "calls",
            Step::Mounts => "mounts",
            Step::Capabilities => "capabilities",
            Step::Domain => "domain",
            Step::Umask => "umask",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.error)
    }
}

impl error::Error for Failure {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_number_of_its_own_and_no_other_number_is_a_step() {
        let known: Vec<_> = (0..=u8::MAX).filter_map(Step::from_number).collect();
        assert_eq!(known.len(), 21);
        assert!(known.iter().all(|step| Step::from_number(*step as u8) == Some(*step)));
        let all: Vec<_> = std::iter::successors(Some(Step::Session), after).collect();
        assert_eq!(all, known, "a step is not in `from_number`");
    }

    /// A step that is new is missed here by the compiler, and by the test above in `from_number`. That there is something that makes it
    /// fail is asked for by crates/tine-cli/tests/fault_steps.rs.
    fn after(step: &Step) -> Option<Step> {
        Some(match step {
            Step::Session => Step::Descriptors,
            Step::Descriptors => Step::Limits,
            Step::Limits => Step::Identity,
            Step::Identity => Step::Directory,
            Step::Directory => Step::Signals,
            Step::Signals => Step::Exec,
            Step::Exec => Step::Tree,
            Step::Tree => Step::Parent,
            Step::Parent => Step::Introduction,
            Step::Introduction => Step::Client,
            Step::Client => Step::Users,
            Step::Users => Step::Namespaces,
            Step::Namespaces => Step::World,
            Step::World => Step::Privileges,
            Step::Privileges => Step::Rules,
            Step::Rules => Step::Calls,
            Step::Calls => Step::Mounts,
            Step::Mounts => Step::Capabilities,
            Step::Capabilities => Step::Domain,
            Step::Domain => Step::Umask,
            Step::Umask => return None,
        })
    }
}
