//! What this kernel, and this process in it, can hold children to; and what of a plan it cannot.

use std::fmt;
use std::io;

use serde::Serialize;
use tine_os::privilege::{self, Capability};
use tine_os::seccomp::{self, answer};
use tine_os::{cgroup, identity, landlock, namespace};

use crate::opens::{Connect, Opens};
use crate::profile::{Layer, Profile};
use crate::wear::{FIRST_USER, USERS};

/// What was found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Abilities {
    /// Landlock's ABI; 0 is none.
    pub landlock: u32,
    /// Whether filters can be put on, and are written for this architecture.
    pub filters: bool,
    /// Whether this process may do what takes root: make namespaces, become other users.
    pub privileged: bool,
    /// Whether user namespaces can be made with others in them, or why not.
    pub user_namespaces: io::Result<()>,
    /// Whether a pid namespace can have a `/proc` of its own, or why not.
    pub processes: io::Result<()>,
    /// Controllers that groups of children could have, seen from the group that this process is in.
    pub controllers: Vec<String>,
}

/// Something that a plan asks for and that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Missing {
    /// Of which layer.
    pub layer: Layer,
    /// What is not kept from children, or cannot be done.
    pub what: String,
    /// What can be done about it.
    pub advice: String,
    /// Whether the layer is not there at all; or else it is, and does not do this.
    pub whole: bool,
    /// Whether a server does not start without it, unless it was told to ([`crate::WhenMissing`]).
    pub refuses: bool,
}

/// What has to be done where parts of `/proc` are hidden.
const PROC: &str = "a /proc of which nothing is covered (docker: --security-opt systempaths=unconfined; podman: --security-opt unmask=ALL; \
     Kubernetes: procMount: Unmasked, with hostUsers: false; systemd: ProtectKernelTunables=no, ProtectKernelLogs=no, ProtectProc=default), \
     or --own pid, which does without a /proc and a /tmp";

/// Layers that are namespaces; the one that makes the others possible without privilege is the first.
const KINDS: [Layer; 7] =
    [Layer::User, Layer::Pid, Layer::Mount, Layer::Net, Layer::Ipc, Layer::Uts, Layer::Cgroup];

impl Abilities {
    /// Looks. To learn of user namespaces a child is born that tries, where this process may fork.
    pub fn look() -> Abilities {
        Abilities::look_at(true)
    }

    /// Looks at what a profile needs: for one without namespaces nobody is born.
    pub(crate) fn look_for(profile: &Profile) -> Abilities {
        Abilities::look_at(KINDS.into_iter().any(|layer| profile.has(layer)))
    }

    fn look_at(namespaces: bool) -> Abilities {
        let filters = seccomp::ARCHITECTURE.is_some() && seccomp::knows(answer::KILL);
        let may = |what| privilege::has(what).unwrap_or(false);
        // Root of a user namespace in which the children's users are nobody is root in name.
        let privileged = identity::effective_uid() == 0
            && namespace::maps(FIRST_USER, USERS)
            && [Capability::SysAdmin, Capability::SetUid, Capability::SetPcap].into_iter().all(may);
        let user_namespaces = if namespaces { namespace::try_user() } else { Ok(()) };
        // One question has one answer: without the first there cannot be the second.
        let asks = namespaces && user_namespaces.is_ok();
        let processes = if asks { namespace::try_processes() } else { Ok(()) };
        // Only a group that nobody else is in hands controllers down, but for the root of all.
        let hands_down = |found: &cgroup::Standing| found.delegated && (found.root || found.others == 0);
        let controllers =
            cgroup::standing().ok().filter(hands_down).map_or(vec![], |found| found.controllers);
        Abilities { landlock: landlock::abi(), filters, privileged, user_namespaces, processes, controllers }
    }

    /// The same as if they had been found on another machine: Linux with this ABI of Landlock, and nothing in the way of the rest.
    pub fn of_landlock(landlock: u32) -> Abilities {
        let controllers = ["cpu", "memory", "pids"].map(str::to_owned).into();
        let (user_namespaces, processes) = (Ok(()), Ok(()));
        Abilities { landlock, filters: true, privileged: false, user_namespaces, processes, controllers }
    }

    /// What of a profile with these openings cannot be had here.
    pub fn missing(&self, profile: &Profile, opens: &Opens) -> Vec<Missing> {
        let mut all = Vec::new();
        let mut put = |layer, (whole, refuses), what: &str, advice: &str| {
            if profile.has(layer) {
                all.push(Missing { layer, what: what.to_owned(), advice: advice.to_owned(), whole, refuses });
            }
        };
        if opens.connect.iter().any(|to| matches!(to, Connect::Host(..))) {
            put(
                Layer::Network,
                (false, true),
                "no kernel can hold a program to one host: --connect HOST:PORT would open that port of every host",
                "--connect PORT, which says so, and a firewall rule for the user of the program",
            );
        }
        let mut add = |layer, whole, what: &str, advice: &str| put(layer, (whole, whole), what, advice);
        const LANDLOCK: &str =
            "a kernel with CONFIG_SECURITY_LANDLOCK that was started with landlock among its lsm= parameters";
        match self.landlock {
            0 => {
                add(Layer::Files, true, "Landlock is not there: nothing keeps children from files", LANDLOCK);
                add(
                    Layer::Scope,
                    true,
                    "Landlock is not there: children can signal and trace each other",
                    LANDLOCK,
                );
            }
            abi => {
                let olds = [
                    (
                        2,
                        Layer::Files,
                        "files cannot be moved from one directory into another, even where they may be written to",
                        "Linux 5.19",
                    ),
                    (
                        3,
                        Layer::Files,
                        "files that may be read can be truncated by whoever owns them",
                        "Linux 6.2",
                    ),
                    (
                        5,
                        Layer::Files,
                        "devices that may be opened can be given any command (ioctl)",
                        "Linux 6.10",
                    ),
                    (
                        6,
                        Layer::Scope,
                        "children of one user, and tine if it is that user, can be sent signals",
                        "Linux 6.12, or a user for each: --confine sealed as root",
                    ),
                ];
                for (since, layer, what, advice) in olds {
                    // Where no other process can be named there is nobody to send a signal to.
                    if abi < since && !(layer == Layer::Scope && profile.has(Layer::Pid)) {
                        add(layer, false, what, advice);
                    }
                }
                if abi < 4 && !opens.ports().1.is_empty() {
                    add(
                        Layer::Network,
                        false,
                        "children can connect to every TCP port, not only to those of --connect",
                        "Linux 6.7",
                    );
                }
            }
        }
        if !self.filters {
            let advice = "a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or 64-bit Arm";
            add(Layer::Calls, true, "system calls cannot be refused", advice);
            add(Layer::Network, true, "sockets cannot be refused", advice);
        }
        // Without privilege it is the user namespace that makes the others possible.
        let first = KINDS.into_iter().find(|layer| profile.has(*layer));
        if let Some(layer) = first
            && let Err(why) = &self.user_namespaces
            && (layer == Layer::User || !self.privileged)
        {
            let what = format!("a user namespace with others in it cannot be made: {}", tine_os::plain(why));
            add(layer, true, &what, &namespace::advice(why));
        }
        if let Err(why) = &self.processes
            && namespace::is_shortage(why)
        {
            let what = format!("a pid namespace cannot be made: {}", tine_os::plain(why));
            put(Layer::Pid, (true, true), &what, &namespace::advice(why));
        } else if let Err(why) = &self.processes
            && profile.has(Layer::Pid)
        {
            let what = format!("a /proc of each child's own cannot be mounted: {}", tine_os::plain(why));
            put(Layer::Mount, (false, true), &what, PROC);
        }
        all
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (it takes: {})", self.layer, self.what, self.advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(landlock: u32) -> Abilities {
        Abilities::of_landlock(landlock)
    }

    fn told(abilities: &Abilities, profile: &str, opens: &Opens) -> Vec<(Layer, bool)> {
        let missing = abilities.missing(&Profile::named(profile).unwrap(), opens);
        missing.iter().map(|one| (one.layer, one.whole)).collect()
    }

    #[test]
    fn what_an_older_landlock_does_not_do_is_told_and_what_is_not_there_is_missing_whole() {
        let none = Opens::default();
        let count = |abi| told(&kernel(abi), "guarded", &none).len();
        assert_eq!([0, 1, 2, 3, 5, 6].map(count), [2, 4, 3, 2, 1, 0]);
        assert!(told(&kernel(0), "guarded", &none).iter().all(|(_, whole)| *whole));
        assert!(told(&kernel(1), "guarded", &none).iter().all(|(_, whole)| !whole));
        let ports = Opens { connect: vec![Connect::Port(80)], ..Opens::default() };
        assert!(told(&kernel(3), "guarded", &ports).contains(&(Layer::Network, false)));
        assert!(!told(&kernel(4), "guarded", &ports).contains(&(Layer::Network, false)));
    }

    #[test]
    fn nothing_is_missing_of_nothing() {
        let nothing = Abilities {
            landlock: 0,
            filters: false,
            privileged: false,
            user_namespaces: Err(io::Error::from_raw_os_error(1)),
            processes: Ok(()),
            controllers: vec![],
        };
        assert_eq!(told(&nothing, "none", &Opens::default()), []);
        let sealed = told(&nothing, "sealed", &Opens::default());
        assert!(sealed.contains(&(Layer::User, true)) && sealed.contains(&(Layer::Calls, true)));
    }

    #[test]
    fn a_host_is_a_promise_that_is_not_made() {
        let host = Opens { connect: vec![Connect::Host("db".into(), 5432)], ..Opens::default() };
        assert_eq!(told(&kernel(7), "guarded", &host), [(Layer::Network, false)]);
        assert!(kernel(7).missing(&Profile::named("guarded").unwrap(), &host)[0].refuses);
    }
}
