//! Tree: all that a connection's child has started, which ends with the connection.
//!
//! Where a control group can be had (cgroups(7), version 2), each child begins in a leaf of its own, from a pool: whatever
//! it starts is in it too, whichever session or parent that finds itself, and cgroup.kill ends all of it at once.
//! A plan that limits all of a connection together ([`Group`]) takes such leaves, with controllers, and then it is made ready for
//! them as `tine_os::cgroup::Delegated` says. Elsewhere each child is the subreaper of what it starts (prctl(2), PR_SET_CHILD_SUBREAPER): orphans become its
//! children, and when it ends, ours, which are found and killed one generation after the other. The first is airtight; the
//! second is outrun by a program that forks faster than it is looked for.
//!
//! What is left when a child ends may be finishing: ucspi-tcp's `recordio` has its program as the child, and passes the
//! last answer on when that has ended. So it has [`Trees::GRACE`], unless the connection was ended by force.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use tine_confine::Group;
use tine_os::cgroup::{self, Delegated, Leaf, Memory, Parent, Setting};
use tine_os::signal::{self, Signal};
use tine_os::{Pid, orphan};

/// How the processes of a connection are held together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Keep {
    /// By a control group where one can be had, else by subreapers.
    #[default]
    Auto,
    /// By a control group; without one the server does not start.
    Cgroup,
    /// By subreapers.
    Subreaper,
}

/// What becomes of children when the master is killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Orphans {
    /// They finish.
    #[default]
    Finish,
    /// They die: with control groups they and all that they have started, else they alone.
    Die,
}

/// The trees of a server.
#[derive(Debug)]
pub(crate) struct Trees {
    by: By,
    /// Those that are left of connections whose child has ended, and until when they may stay.
    left: Left,
    /// When to look at them again.
    look: Option<Instant>,
    /// Among how many they were looked for last.
    looked_at: usize,
    /// What each connection may use in all.
    group: Group,
    /// Where leaves can have limits, if they are to have any. Behind `by`, whose groups are in it and go first.
    delegated: Option<Delegated>,
}

#[derive(Debug)]
enum By {
    Cgroup(Pool),
    Subreaper,
    Nothing,
}

/// Leaves that may be used again: making one costs ten times as much.
#[derive(Debug)]
struct Pool {
    parent: Parent,
    /// The process that has made it.
    owner: Pid,
    /// Those that nobody is in, the last used last; the first few of them are open.
    free: Vec<(u32, Option<Leaf>)>,
    free_open: usize,
    /// The youngest leaves that somebody is in, open, and how many of them at most.
    young: VecDeque<(u32, Leaf)>,
    young_most: usize,
    /// Numbers of leaves that were killed and removed since: to be made again.
    gone: Vec<u32>,
    /// Leaves in which something was killed, and in which no child can be born any more: see [`Parent::open_leaf`].
    spent: BTreeSet<u32>,
    /// Numbers that were given out so far.
    known: u32,
    /// What a leaf is set to when it is made.
    settings: Vec<Setting>,
    /// Whether a leaf is made anew for each child: the memory that one has come to is its connection's own then, and nothing of
    /// another's counts against its limit.
    anew: bool,
}

/// Who is left, by leaf or by process.
#[derive(Debug, Default)]
struct Left {
    leaves: VecDeque<(u32, Instant)>,
    orphans: BTreeMap<Pid, Instant>,
    strangers: BTreeSet<Pid>,
    /// Until when those may stay who are found next. It cannot be told whose they were, so it is as long as what any of those
    /// has left may stay that have ended since the last look; `None`: nobody has.
    heirs: Option<Instant>,
    /// Those who were below something when it was killed, and until when that is remembered: they have no time, whoever
    /// else has ended since.
    doomed: BTreeMap<Pid, Instant>,
}

/// How the names of our groups begin.
const GROUPS: &str = "tine-";

/// The place of one child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Branch {
    /// Leaf number.
    Leaf(u32),
    /// It is its own subreaper.
    Own,
}

impl Trees {
    /// How long those who are left may take.
    pub(crate) const GRACE: Duration = Duration::from_secs(2);

    /// How many leaves stay open that somebody is in, and as many that nobody is in; two descriptors each.
    pub(crate) const OPEN_MOST: usize = 32;

    /// How often they are looked at.
    const LOOKING: Duration = Duration::from_millis(50);

    /// How much later for each child that lives, where it takes a look at all of them to find one that is left: so that it never
    /// takes more than a few hundredths of the time, however many there are.
    const LOOKING_EACH: Duration = Duration::from_micros(100);

    /// How long the first process of a namespace may stay whose acceptor has died: as long as any client.
    const NAMESPACE: Duration = Duration::from_secs(1 << 30);

    /// How often, while they are being killed.
    const KILLING: Duration = Duration::from_millis(5);

    /// Makes ready for children, which are programs or not. Also gives why there is no control group, where there might have
    /// been one.
    ///
    /// Where connections have limits, this process is moved to another control group; what cannot be limited is an error.
    pub(crate) fn new(keep: Keep, programs: bool, group: Group) -> io::Result<(Trees, Option<io::Error>)> {
        let delegated = match limits_of(keep, programs, group)? {
            Some(controllers) => Some(Delegated::take(&name(), GROUPS, &controllers)?),
            None => None,
        };
        Trees::within(keep, programs, group, delegated)
    }

    /// As [`Trees::new`], for a process that was forked by the one that these are of, and bears children of its own.
    pub(crate) fn of_another(&mut self, keep: Keep, programs: bool) -> io::Result<Trees> {
        let delegated = self.delegated.take().inspect(Delegated::lend);
        Trees::within(keep, programs, self.group, delegated).map(|(trees, _)| trees)
    }

    /// The trees of a process that has others bear children, in place of those that were to show that it can be done.
    pub(crate) fn left_to_others(mut self, programs: bool) -> io::Result<Trees> {
        // Its own groups go now; where others make theirs stays.
        self.by = By::Nothing;
        Trees::within(Keep::Subreaper, programs, self.group, self.delegated.take()).map(|(trees, _)| trees)
    }

    fn within(
        keep: Keep,
        programs: bool,
        group: Group,
        delegated: Option<Delegated>,
    ) -> io::Result<(Trees, Option<io::Error>)> {
        let pool = || Pool::new(delegated.as_ref(), group);
        let (by, why) = match keep {
            Keep::Subreaper => (By::Subreaper, None),
            // A handler's child is made by the C library's fork, which knows no groups, and moving it afterwards can take
            // twenty milliseconds: see `tine_os::fork::fork_with`.
            Keep::Cgroup if !programs => {
                let why = "control groups are for the children of programs, not of handlers";
                return Err(io::Error::new(io::ErrorKind::Unsupported, why));
            }
            Keep::Auto if !programs => (By::Subreaper, None),
            Keep::Cgroup => (By::Cgroup(pool()?), None),
            Keep::Auto => match pool() {
                Ok(pool) => (By::Cgroup(pool), None),
                // There are limits to be kept.
                Err(why) if group.is_limited() => return Err(why),
                Err(why) => (By::Subreaper, Some(why)),
            },
        };
        let mut trees = Trees { by, left: Left::default(), look: None, looked_at: 0, group, delegated };
        if let By::Subreaper = trees.by {
            // Whoever was a child of this process before the server began is no orphan of any connection.
            let mut strangers = Vec::new();
            match orphan::become_subreaper().and_then(|()| orphan::children(&mut strangers)) {
                Ok(()) => trees.left.strangers.extend(strangers),
                // A kernel without CONFIG_PROC_CHILDREN: the child's own group is all that can be reached.
                Err(why) if keep == Keep::Auto => {
                    trees.by = By::Nothing;
                    return Ok((trees, Some(why)));
                }
                Err(why) => return Err(why),
            }
        }
        Ok((trees, why))
    }

    /// By what they are held together: `cgroup`, `subreaper` or `nothing`.
    pub(crate) fn name(&self) -> &'static str {
        match self.by {
            By::Cgroup(_) => "cgroup",
            By::Subreaper => "subreaper",
            By::Nothing => "nothing",
        }
    }

    /// A place for the next child.
    pub(crate) fn grow(&mut self) -> io::Result<Branch> {
        match &mut self.by {
            By::Cgroup(pool) => pool.take().map(Branch::Leaf),
            _ => Ok(Branch::Own),
        }
    }

    /// The group that a child is to be born in, for whom its place was just grown.
    pub(crate) fn group(&self, branch: Branch) -> Option<BorrowedFd<'_>> {
        match (&self.by, branch) {
            (By::Cgroup(pool), Branch::Leaf(leaf)) => {
                pool.young.back().filter(|(n, _)| *n == leaf).map(|(_, open)| open.as_fd())
            }
            _ => None,
        }
    }

    /// The place of whoever has started a process, where a group holds it there.
    pub(crate) fn branch_of(&self, process: Pid) -> Option<Branch> {
        match &self.by {
            By::Cgroup(pool) => pool.parent.leaf_of(process).ok()?.map(Branch::Leaf),
            _ => None,
        }
    }

    /// Leaves may stay open, as many as [`Trees::OPEN_MOST`]: their descriptors are little to copy where a birth copies nothing else.
    pub(crate) fn keep_open(&mut self) {
        if let By::Cgroup(pool) = &mut self.by {
            pool.young_most = Trees::OPEN_MOST;
        }
    }

    /// The place of a child that was not born after all.
    pub(crate) fn spare(&mut self, branch: Branch) {
        if let (By::Cgroup(pool), Branch::Leaf(leaf)) = (&mut self.by, branch) {
            let open = pool.grown_up(leaf);
            pool.rest(leaf, open);
        }
    }

    /// The descriptor by which all groups can be reached.
    pub(crate) fn descriptor(&self) -> Option<RawFd> {
        match &self.by {
            By::Cgroup(pool) => Some(pool.parent.descriptor()),
            _ => None,
        }
    }

    /// Whether a child of this branch is to inherit the orphans of what it starts: it becomes a subreaper then.
    pub(crate) fn inherits(&self, branch: Branch) -> bool {
        matches!((&self.by, branch), (By::Subreaper, Branch::Own))
    }

    /// Kills all of a connection whose child has not ended. What the child is not the parent of in any way goes when it
    /// has ended: see [`Trees::ended`].
    pub(crate) fn kill(&mut self, branch: Branch, child: Pid) -> io::Result<()> {
        match (&mut self.by, branch) {
            (By::Cgroup(pool), Branch::Leaf(leaf)) => pool.kill(leaf),
            (By::Nothing, _) => signal::send_group(child, Signal::KILL),
            _ => {
                let doomed = self.left.doom(child, Instant::now());
                signal::send_group(child, Signal::KILL).and(doomed)
            }
        }
    }

    /// What memory a connection has come to with all that it has started, where that is limited. To be asked before
    /// [`Trees::ended`]; what is left of it afterwards is on nobody's bill.
    pub(crate) fn memory(&self, branch: Branch) -> io::Result<Option<Memory>> {
        match (&self.by, branch) {
            (By::Cgroup(pool), Branch::Leaf(leaf)) if self.group.memory.is_some() => {
                pool.parent.memory_of_leaf(leaf).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A child has ended and was waited for; what it has left may stay for a moment, or not, when it was ended `by_force`. Gives whether
    /// it is certain that there is nothing.
    pub(crate) fn ended(&mut self, branch: Branch, by_force: bool, now: Instant) -> io::Result<bool> {
        let until = if by_force { now } else { now + Trees::GRACE };
        match (&mut self.by, branch) {
            (By::Cgroup(pool), Branch::Leaf(leaf)) => {
                let open = pool.grown_up(leaf);
                let populated = match &open {
                    Some(open) => open.is_populated(),
                    None => pool.parent.is_populated(leaf),
                };
                if let Ok(false) = populated {
                    return pool.give_back(leaf, open).map(|()| true);
                }
                // Not known is looked at again, as somebody there is.
                self.left.leaves.push_back((leaf, until));
                let killed = if by_force { pool.kill(leaf) } else { Ok(()) };
                self.look_soon(by_force, now);
                return populated.and(killed).map(|()| false);
            }
            (By::Nothing, _) => return Ok(false),
            _ => self.left.heirs = self.left.heirs.max(Some(until)),
        }
        self.look_soon(by_force, now);
        Ok(false)
    }

    /// Looks after those who are left. `known`: whether a child is one of the master's own. Adds the orphans that were
    /// found, whose deaths are to be watched for, whatever else could not be done.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        known: impl Fn(Pid) -> bool,
        found: &mut Vec<Pid>,
    ) -> io::Result<()> {
        if self.look.is_none_or(|look| look > now) {
            return Ok(());
        }
        self.look = None;
        let done = match &mut self.by {
            By::Cgroup(pool) => self.left.tend_leaves(pool, now),
            By::Subreaper => {
                let mut all = Vec::new();
                let listed = orphan::children(&mut all);
                self.looked_at = all.len();
                listed.and_then(|()| self.left.find_orphans(all, now, known, found))
            }
            By::Nothing => Ok(()),
        };
        if !self.is_empty() {
            self.look_soon(self.left.is_killing(now), now);
        }
        done
    }

    /// One that was found is no orphan after all. `false`: it had not been found.
    pub(crate) fn claims(&mut self, pid: Pid) -> bool {
        self.left.orphans.remove(&pid).is_some()
    }

    /// An orphan has ended and was waited for. `false`: it was none.
    pub(crate) fn buried(&mut self, pid: Pid, now: Instant) -> bool {
        let Some(until) = self.left.orphans.remove(&pid) else { return false };
        // What it has started in turn is ours now, and may stay as long as it might have.
        self.left.heirs = self.left.heirs.max(Some(until));
        self.look_soon(until <= now, now);
        true
    }

    /// Those who are left have no more time.
    pub(crate) fn hurry(&mut self, now: Instant) {
        self.left.leaves.iter_mut().for_each(|(_, until)| *until = now);
        self.left.orphans.values_mut().for_each(|until| *until = now);
        self.left.heirs = self.left.heirs.map(|_| now);
        if !self.is_empty() {
            self.look = Some(now);
        }
    }

    /// When to tick next.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.look
    }

    /// Whether nobody is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.left.leaves.is_empty() && self.left.orphans.is_empty() && self.left.heirs.is_none()
    }

    /// In a process that outlives the master: kills all there is, and takes the groups away.
    pub(crate) fn fell(&self) -> io::Result<()> {
        match &self.by {
            By::Cgroup(pool) => pool.parent.kill_all(),
            _ => Ok(()),
        }
    }

    /// Takes away what groups processes of ours have left that have died; those that are in use stay.
    pub(crate) fn sweep() {
        // Where there are none, or they cannot be seen, nothing was left either.
        let _ = cgroup::sweep(GROUPS);
    }

    /// Takes the groups away, when nobody is in them any more.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let cleared = match &self.by {
            By::Cgroup(pool) => pool.parent.remove(),
            _ => Ok(()),
        };
        cleared.and(self.delegated.as_ref().map_or(Ok(()), Delegated::leave))
    }

    fn look_soon(&mut self, killing: bool, now: Instant) {
        let among = match self.by {
            By::Subreaper => Trees::LOOKING_EACH * u32::try_from(self.looked_at).unwrap_or(u32::MAX),
            _ => Duration::ZERO,
        };
        let at = now + among + if killing { Trees::KILLING } else { Trees::LOOKING };
        self.look = Some(self.look.map_or(at, |look| look.min(at)));
    }
}

/// The controllers that limits take, if there are any; and whether there can be.
fn limits_of(keep: Keep, programs: bool, group: Group) -> io::Result<Option<Vec<&'static str>>> {
    let refused = |why: &'static str| Err(io::Error::new(io::ErrorKind::Unsupported, why));
    match keep {
        _ if !group.is_limited() => Ok(None),
        _ if !programs => refused(
            "they need a control group for each connection, and handlers and datagrams' workers have none: serve a program, or \
             limit what one process may use (Plan::limits)",
        ),
        Keep::Subreaper => refused(
            "they need a control group for each connection, and connections are to be held together by subreapers: leave out \
             --trees subreaper (Keep::Subreaper)",
        ),
        Keep::Auto | Keep::Cgroup => Ok(Some(group.controllers())),
    }
}

/// The name of this process's groups.
fn name() -> String {
    format!("{GROUPS}{}", Pid::own())
}

impl Pool {
    fn new(delegated: Option<&Delegated>, group: Group) -> io::Result<Pool> {
        let (parent, settings) = match delegated {
            None => (Parent::find_and_make(&name())?, Vec::new()),
            Some(delegated) => (Parent::make_in(delegated.path(), &name())?, group.settings()),
        };
        let enabled = if delegated.is_some() { parent.enable(&group.controllers()) } else { Ok(()) };
        if let Err(why) = enabled.and_then(|()| parent.works(&settings)) {
            // Nobody is in it: there is nothing more to be said than why it does not work.
            let _ = parent.remove();
            return Err(why);
        }
        // What others have left is not ours to worry about, should it not go.
        let _ = parent.sweep(GROUPS);
        Ok(Pool {
            parent,
            owner: Pid::own(),
            free: Vec::new(),
            free_open: 0,
            young: VecDeque::new(),
            young_most: 1,
            gone: Vec::new(),
            spent: BTreeSet::new(),
            known: 0,
            settings,
            anew: group.memory.is_some(),
        })
    }

    /// A leaf for a child, made if there is none, and open.
    fn take(&mut self) -> io::Result<u32> {
        let (leaf, open) = match self.free.pop() {
            Some(free) => free,
            None => (self.make()?, None),
        };
        self.free_open -= usize::from(open.is_some());
        match open.map_or_else(|| self.parent.open_leaf(leaf), Ok) {
            Ok(open) => self.young.push_back((leaf, open)),
            Err(why) => {
                self.rest(leaf, None);
                return Err(why);
            }
        }
        if self.young.len() > self.young_most {
            self.young.pop_front();
        }
        Ok(leaf)
    }

    fn make(&mut self) -> io::Result<u32> {
        let leaf = self.gone.last().copied().unwrap_or(self.known);
        self.parent.make_leaf(leaf)?;
        if let Err(why) = self.parent.set_leaf(leaf, &self.settings) {
            // Nobody is in it; should it stay all the same, the next one made says that there is one of this number.
            let _ = self.parent.remove_leaf(leaf);
            return Err(why);
        }
        if self.gone.pop().is_none() {
            self.known += 1;
        }
        Ok(leaf)
    }

    /// A leaf that is used no more for now, if it is open still.
    fn grown_up(&mut self, leaf: u32) -> Option<Leaf> {
        let at = self.young.iter().position(|(n, _)| *n == leaf)?;
        self.young.remove(at).map(|(_, open)| open)
    }

    /// Nobody is in it, and it may be used again.
    fn rest(&mut self, leaf: u32, open: Option<Leaf>) {
        let open = open.filter(|_| self.free_open < self.young_most);
        self.free_open += usize::from(open.is_some());
        self.free.push((leaf, open));
    }

    fn kill(&mut self, leaf: u32) -> io::Result<()> {
        self.spent.insert(leaf);
        self.parent.kill_leaf(leaf)
    }

    /// A leaf that nobody is in any more.
    fn give_back(&mut self, leaf: u32, open: Option<Leaf>) -> io::Result<()> {
        if !self.spent.remove(&leaf) && !self.anew {
            self.rest(leaf, open);
            return Ok(());
        }
        // One that cannot be removed, for groups that a program has made in it, is used no more; it goes with the others. Where that
        // would be one for each connection, those groups go too.
        let removed = match self.anew {
            true => self.parent.remove_leaf_and_below(leaf),
            false => self.parent.remove_leaf(leaf),
        };
        removed.map(|()| self.gone.push(leaf))
    }
}

impl Drop for Pool {
    /// A server that does not come to serve leaves no groups; a child that was forked meanwhile removes none.
    fn drop(&mut self) {
        if self.owner == Pid::own() {
            let _ = self.parent.remove();
        }
    }
}

impl Left {
    fn tend_leaves(&mut self, pool: &mut Pool, now: Instant) -> io::Result<()> {
        for _ in 0..self.leaves.len() {
            let Some((leaf, until)) = self.leaves.pop_front() else { break };
            match pool.parent.is_populated(leaf) {
                Ok(false) => pool.give_back(leaf, None)?,
                Ok(true) => {
                    self.leaves.push_back((leaf, until));
                    if until <= now {
                        pool.kill(leaf)?;
                    }
                }
                Err(why) => {
                    self.leaves.push_back((leaf, until));
                    return Err(why);
                }
            }
        }
        Ok(())
    }

    /// Whether somebody has no more time.
    fn is_killing(&self, now: Instant) -> bool {
        let leaves = self.leaves.iter().map(|(_, until)| until);
        leaves.chain(self.orphans.values()).chain(&self.heirs).any(|until| *until <= now)
    }

    /// Remembers who is below a process that is about to be killed.
    fn doom(&mut self, process: Pid, now: Instant) -> io::Result<()> {
        let mut below = Vec::new();
        let found = orphan::descendants(process, &mut below);
        self.doomed.extend(below.into_iter().map(|pid| (pid, now + Trees::GRACE)));
        found
    }

    fn find_orphans(
        &mut self,
        all: Vec<Pid>,
        now: Instant,
        known: impl Fn(Pid) -> bool,
        found: &mut Vec<Pid>,
    ) -> io::Result<()> {
        self.doomed.retain(|_, until| *until > now);
        // Without an heir it is of a child that has ended, and that is not known yet.
        let until = self.heirs.take().unwrap_or(now + Trees::GRACE);
        for pid in all.into_iter().filter(|pid| !known(*pid) && !self.strangers.contains(pid)) {
            let until = match self.doomed.contains_key(&pid) {
                true => now,
                // What keeps a pid namespace goes when nobody is left there, and with it goes whoever is.
                false if pid.kin().is_ok_and(|kin| kin.is_first()) => now + Trees::NAMESPACE,
                false => until,
            };
            self.orphans.entry(pid).or_insert_with(|| {
                found.push(pid);
                until
            });
        }
        let due: Vec<_> =
            self.orphans.iter().filter(|(_, until)| **until <= now).map(|(pid, _)| *pid).collect();
        let mut done = Ok(());
        for orphan in due {
            let doomed = self.doom(orphan, now);
            let killed = match signal::send(orphan, Signal::KILL) {
                // Somebody else's by now, who may not be killed; or dead, and not waited for yet.
                Err(why) if why.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                other => other,
            };
            done = done.and(killed).and(doomed);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_take_a_control_group_and_where_none_can_be_it_is_said_why() {
        let limited = Group { pids: Some(3), cpu: Some(50), ..Group::default() };
        let said = |keep, programs| limits_of(keep, programs, limited).expect_err("it cannot be").to_string();
        assert!(said(Keep::Auto, false).contains("handlers"));
        assert!(said(Keep::Cgroup, false).contains("handlers"));
        assert!(said(Keep::Subreaper, true).contains("--trees subreaper"));
        for keep in [Keep::Auto, Keep::Cgroup] {
            assert_eq!(limits_of(keep, true, limited).unwrap(), Some(vec!["pids", "cpu"]));
        }
        for keep in [Keep::Auto, Keep::Cgroup, Keep::Subreaper] {
            assert_eq!(limits_of(keep, false, Group::default()).unwrap(), None);
        }
    }
}
