//! The plan: what a child gives up, as data. It makes no system call; `prepare` only looks.

use std::cell::Cell;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{error, fmt, io};

use tine_os::identity::{self, Identity};
use tine_os::limit::{self, RESOURCES, Resource, Rlimit};
use tine_os::signal;

use crate::ability::{Abilities, Missing};
use crate::enter::Prepared;
use crate::group::{Group, GroupError};
use crate::opens::Opens;
use crate::profile::{Layer, Profile};
use crate::wear::Wear;
use crate::world::World;

/// What a child gives up. The default is the child contract without anything that the operator must choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who the child becomes; `None` leaves it who the master is.
    pub identity: Option<Identity>,
    /// Its working directory; `None` leaves the master's.
    pub directory: Option<PathBuf>,
    /// Its mask of file modes.
    pub umask: u32,
    /// Limits that differ from the contract's.
    pub limits: Vec<Limit>,
    /// The layers of its confinement.
    pub profile: Profile,
    /// What is opened up of them.
    pub opens: Opens,
    /// The tree of files that it sees, where it is not the machine's.
    pub world: World,
    /// What becomes of a server whose plan cannot be had in full.
    pub when_missing: WhenMissing,
    /// Whether it answers datagrams of Unix sockets: their peers may have abstract names, which it must be able to send to then.
    pub answers_abstract: bool,
    /// The programs that it becomes: they can be seen and executed whatever else can.
    pub programs: Vec<PathBuf>,
    /// Limits for it and all that it starts together. They are those of the group that it is born in, so there is nothing that
    /// it does about them itself.
    pub group: Group,
}

/// What becomes of a server whose plan cannot be had in full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenMissing {
    /// It does not start.
    #[default]
    Refuse,
    /// It does without the layers that are missing, and says so.
    Warn,
}

/// A limit on one resource, soft and hard; `None` is unlimited. The numbers are those of setrlimit(2): bytes for sizes,
/// seconds for `cpu`, counts for the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The resource's name: `nofile`, `core`, `as` ...
    pub resource: &'static str,
    /// The limit in force.
    pub soft: Option<u64>,
    /// What the child itself may raise it to.
    pub hard: Option<u64>,
}

/// The contract's own limits; every other soft limit is raised to its hard one, so that an odd shell's leftovers do not
/// reach a program. A limit that was inherited lower stays lower: somebody meant it.
const CONTRACT: [Limit; 3] = [
    // 1, not 0: a core_pattern that is a pipe ignores 0 and takes 1 for "do not run" (core(5)).
    Limit { resource: "core", soft: Some(1), hard: Some(1) },
    // What select(2) can take, and room for those who know that they need more.
    Limit { resource: "nofile", soft: Some(1024), hard: Some(4096) },
    // An unlimited stack changes how the kernel lays out memory; this is the kernel's own default.
    Limit { resource: "stack", soft: Some(8 << 20), hard: None },
];

/// ENOTDIR: errno(3).
const NOT_A_DIRECTORY: i32 = 20;

/// What is wrong with a plan.
#[derive(Debug)]
#[non_exhaustive]
pub enum PlanError {
    /// No resource has this name.
    Resource(String),
    /// A soft limit above its hard one.
    SoftAboveHard(&'static str),
    /// A hard limit above the inherited one, without the privilege to raise it.
    AboveInherited(&'static str, u64),
    /// The directory cannot be used.
    Directory(PathBuf, io::Error),
    /// Becoming somebody else takes root.
    NotRoot(u32),
    /// Leaving this group, which the process is in, takes root.
    NotRootGroups(u32),
    /// The process cannot tell its own groups.
    Groups(io::Error),
    /// The mask has bits beyond 0777.
    Umask(u32),
    /// The process cannot tell what it does at signals.
    Signals(io::Error),
    /// Something that is to be opened up, or seen, cannot be.
    Path(PathBuf, io::Error),
    /// No call has this name, or no filter is written about it.
    Call(String),
    /// Layers that cannot be had here.
    Missing(Vec<Missing>),
    /// A limit for a child and all that it starts that none could keep to.
    Group(GroupError),
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            identity: None,
            directory: None,
            umask: 0o077,
            limits: Vec::new(),
            profile: Profile::default(),
            opens: Opens::default(),
            world: World::default(),
            when_missing: WhenMissing::default(),
            answers_abstract: false,
            programs: Vec::new(),
            group: Group::default(),
        }
    }
}

impl Limit {
    /// A limit by the resource's name.
    ///
    /// # Errors
    /// [`PlanError::Resource`] for a name that is none, [`PlanError::SoftAboveHard`].
    pub fn new(resource: &str, soft: Option<u64>, hard: Option<u64>) -> Result<Limit, PlanError> {
        let known = RESOURCES.iter().find(|(name, _)| *name == resource);
        let (resource, _) = known.ok_or_else(|| PlanError::Resource(resource.to_owned()))?;
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(PlanError::SoftAboveHard(resource));
        }
        Ok(Limit { resource, soft, hard })
    }
}

impl Plan {
    /// Checks the plan against this process and makes it ready to be entered.
    ///
    /// To be called before the master raises any limit of its own: the limits found now are the ones that were inherited.
    ///
    /// # Errors
    /// What a child would fail of later.
    pub fn prepare(&self) -> Result<Prepared, PlanError> {
        self.prepare_for(&Abilities::look_for(&self.profile))
    }

    /// As [`Plan::prepare`], where this is what was found.
    pub(crate) fn prepare_for(&self, abilities: &Abilities) -> Result<Prepared, PlanError> {
        if self.umask & !0o777 != 0 {
            return Err(PlanError::Umask(self.umask));
        }
        self.group.check().map_err(PlanError::Group)?;
        let root = identity::effective_uid() == 0;
        if let Some(who) = self.identity.as_ref().filter(|_| !root) {
            if who.uid != identity::effective_uid() {
                return Err(PlanError::NotRoot(who.uid));
            }
            // Without the privilege a child keeps the groups that this process has: none that it is to be without.
            let (group, others) = identity::effective_groups().map_err(PlanError::Groups)?;
            let surplus = others.into_iter().find(|other| *other != who.gid && !who.groups.contains(other));
            if group != who.gid || surplus.is_some() {
                return Err(PlanError::NotRootGroups(surplus.unwrap_or(group)));
            }
        }
        let unworldly = !self.profile.has(Layer::Mount);
        let directory = match self.directory.as_deref() {
            // One in a tree that is not there yet cannot be looked at.
            Some(directory) if unworldly => Some(usable(directory)?),
            Some(directory) => Some(name(directory)?),
            None if unworldly => None,
            // The one that tine was started in is not in it.
            None => Some(c"/".to_owned()),
        };
        let missing = self.missing(abilities);
        if self.when_missing == WhenMissing::Refuse && missing.iter().any(|one| one.refuses) {
            return Err(PlanError::Missing(missing));
        }
        let wear = Wear::new(self, abilities, &missing)?;
        let mut limits = Vec::new();
        for (name, resource) in RESOURCES {
            let inherited = limit::get(resource);
            let limit =
                self.limit(name, inherited, wear.has_own_users(), |asked| limit::may_set(resource, asked))?;
            // A master raises this one for itself: see `limit::raise_nofile`.
            if limit != inherited || resource == Resource::Nofile {
                limits.push((resource, limit));
            }
        }
        let signals = signal::changed().map_err(PlanError::Signals)?;
        // Somebody who is who we want already needs no privilege, and no call that takes it.
        let identity = self.identity.clone().filter(|_| root);
        Ok(Prepared {
            identity,
            directory,
            umask: self.umask,
            limits,
            signals,
            inherited: Cell::new(false),
            wear,
            missing,
            profile: self.profile.name.clone(),
        })
    }

    /// What of it cannot be had where this was found.
    pub(crate) fn missing(&self, abilities: &Abilities) -> Vec<Missing> {
        let mut missing = abilities.missing(&self.profile, &self.opens);
        // Whoever has no mounts of its own has no use for a `/proc` of its own.
        let mounts = self.world.own.contains(&Layer::Mount);
        missing.retain(|one| mounts || one.layer != Layer::Mount || one.whole);
        missing
    }

    pub(crate) fn limit(
        &self,
        name: &'static str,
        inherited: Rlimit,
        own_users: bool,
        may_raise: impl Fn(Rlimit) -> bool,
    ) -> Result<Rlimit, PlanError> {
        let ceiling = inherited.maximum;
        if let Some(asked) = self.limits.iter().rev().find(|limit| limit.resource == name) {
            let limit = Rlimit { current: asked.soft, maximum: asked.hard };
            let above = asked.hard.unwrap_or(u64::MAX) > ceiling.unwrap_or(u64::MAX);
            return match ceiling {
                Some(most) if above && !may_raise(limit) => {
                    Err(PlanError::AboveInherited(asked.resource, most))
                }
                _ => Ok(limit),
            };
        }
        let profile = self
            .profile
            .limits
            .iter()
            .rev()
            .find(|limit| limit.resource == name && (limit.only != Some(Layer::Identity) || own_users));
        let contract = CONTRACT.iter().find(|limit| limit.resource == name);
        let ours = profile.map(|limit| (limit.soft, limit.hard));
        let (soft, hard) = ours.or(contract.map(|limit| (limit.soft, limit.hard))).unwrap_or((None, None));
        let maximum = least(hard, ceiling);
        Ok(Rlimit { current: least(soft, maximum), maximum })
    }
}

fn least(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

/// A directory, as a child is going to name it to the kernel.
fn usable(directory: &Path) -> Result<CString, PlanError> {
    let fail = |why| PlanError::Directory(directory.to_owned(), why);
    if !std::fs::metadata(directory).map_err(fail)?.is_dir() {
        return Err(fail(io::Error::from_raw_os_error(NOT_A_DIRECTORY)));
    }
    name(directory)
}

fn name(path: &Path) -> Result<CString, PlanError> {
    CString::new(path.as_os_str().as_bytes()).map_err(|why| PlanError::Directory(path.to_owned(), why.into()))
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(name) => {
                let known: Vec<_> = RESOURCES.iter().map(|(name, _)| *name).collect();
                write!(f, "no resource limit is called '{name}'; there are {}", known.join(", "))
            }
            Self::SoftAboveHard(name) => write!(f, "limit {name}: the soft limit is above the hard one"),
            Self::AboveInherited(name, most) => write!(
                f,
                "limit {name}: above the hard limit of {most} that tine was started with, and tine may not raise it (CAP_SYS_RESOURCE, fs.nr_open)"
            ),
            Self::Directory(path, why) => write!(f, "directory {}: {why}", path.display()),
            Self::NotRoot(uid) => {
                write!(f, "becoming user {uid} needs root: start tine as root, or as that user")
            }
            Self::NotRootGroups(gid) => {
                write!(f, "leaving group {gid} needs root: start tine as root, or with the groups asked for")
            }
            Self::Groups(why) => write!(f, "ask for the groups of this process: {why}"),
            Self::Signals(why) => write!(f, "ask what this process does at signals: {why}"),
            Self::Path(path, why) => write!(f, "{}: {}", path.display(), tine_os::plain(why)),
            Self::Call(name) => write!(f, "no call is called '{name}' that a profile refuses"),
            Self::Missing(all) => {
                f.write_str("this system cannot confine children as asked")?;
                all.iter().filter(|one| one.refuses).try_for_each(|one| write!(f, "\n  {one}"))
            }
            Self::Group(why) => write!(f, "limits of a group: {why}"),
            Self::Umask(mask) => write!(f, "umask {mask:o}: a mask has nine bits, 0 to 777"),
        }
    }
}

impl error::Error for PlanError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Directory(_, why) | Self::Path(_, why) | Self::Groups(why) | Self::Signals(why) => {
                Some(why)
            }
            Self::Group(why) => Some(why),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits_of(plan: &Plan, name: &'static str, inherited: (Option<u64>, Option<u64>)) -> Rlimit {
        let inherited = Rlimit { current: inherited.0, maximum: inherited.1 };
        plan.limit(name, inherited, false, |_| true).unwrap()
    }

    #[test]
    fn an_odd_soft_limit_that_was_inherited_does_not_reach_the_child() {
        let plan = Plan::default();
        for odd in [Some(3), Some(300), None] {
            assert_eq!(
                limits_of(&plan, "nofile", (odd, None)),
                Rlimit { current: Some(1024), maximum: Some(4096) }
            );
            assert_eq!(limits_of(&plan, "fsize", (odd, None)), Rlimit { current: None, maximum: None });
        }
    }

    #[test]
    fn a_hard_limit_that_was_inherited_stays() {
        let low = limits_of(&Plan::default(), "nofile", (Some(20), Some(64)));
        assert_eq!(low, Rlimit { current: Some(64), maximum: Some(64) });
    }

    #[test]
    fn a_limit_above_the_inherited_one_is_refused_at_it_plus_one_without_the_privilege() {
        for (asked, fine) in [(63, true), (64, true), (65, false)] {
            let limits = vec![Limit::new("nofile", Some(1), Some(asked)).unwrap()];
            let plan = Plan { limits, ..Plan::default() };
            let inherited = Rlimit { current: Some(64), maximum: Some(64) };
            assert_eq!(plan.limit("nofile", inherited, false, |_| false).is_ok(), fine, "asked for {asked}");
        }
    }

    #[test]
    fn mistakes_are_told_before_there_is_a_child() {
        assert!(matches!(Limit::new("files", None, None), Err(PlanError::Resource(_))));
        assert!(matches!(Limit::new("core", None, Some(1)), Err(PlanError::SoftAboveHard("core"))));
        let nowhere = Plan { directory: Some("/nonexistent".into()), ..Plan::default() };
        assert!(matches!(nowhere.prepare(), Err(PlanError::Directory(..))));
        let file = Plan { directory: Some("/dev/null".into()), ..Plan::default() };
        assert!(matches!(file.prepare(), Err(PlanError::Directory(..))));
        assert!(matches!(Plan { umask: 0o1000, ..Plan::default() }.prepare(), Err(PlanError::Umask(_))));
    }
}
