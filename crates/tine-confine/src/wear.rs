//! What all children of a service give up alike: worn once, by the process that they are forked from, and inherited.
//!
//! Putting a filter on takes a hundred microseconds, a network namespace half a millisecond; to inherit them takes nothing. What must
//! be each child's own (its domain, its user, its pid namespace, its `/tmp`) is in [`crate::Prepared::enter`].

use std::cell::{Cell, OnceCell};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tine_os::landlock::{About, Ruleset, files, scopes};
use tine_os::namespace::{self, Namespaces, Range};
use tine_os::seccomp::{self, Instruction, Key, Watch};
use tine_os::{cgroup, identity};
use tine_os::{mount, privilege};

use crate::ability::{Abilities, Missing};
use crate::filter::{Denial, Is, Opening, Rule, Test, compile, watched};
use crate::opens::Connect;
use crate::plan::{Plan, PlanError};
use crate::profile::Layer;
use crate::report::{Failure, Step};
use crate::world::Plot;

/// The layers of a plan, checked and laid out.
#[derive(Debug)]
pub(crate) struct Wear {
    /// Whether it has been put on in this process, or in one that it was forked from.
    worn: Cell<bool>,
    privileged: bool,
    /// Namespaces of the process that children are forked from, which they share.
    pub shared: Namespaces,
    /// Namespaces of each child's own.
    pub own: Namespaces,
    pub users: Option<(Vec<Range>, Vec<Range>)>,
    pub plot: Option<Plot>,
    /// Whether privileges are given up.
    pub privileges: bool,
    pub about: About,
    paths: Vec<(PathBuf, u64)>,
    ports: Vec<(u16, u64)>,
    domain: OnceCell<Ruleset>,
    rules: Vec<Rule>,
    /// File systems in memory of each child's own: where, and with which options.
    pub memories: Vec<(CString, CString)>,
    /// Whether each child mounts `/proc`.
    pub processes: bool,
    /// The first of the users that children have, one each.
    pub first_user: Option<u32>,
    /// Whether the first process of each pid namespace is one of ours.
    pub init: bool,
    /// Whether nobody can leave the control group that he was born in.
    pub stays: bool,
}

/// Users of children, one for each slot, begin here: above all that useradd(8) and systemd give to anybody, and below where the kernel
/// takes numbers for signed ones (systemd, docs/UIDS-GIDS).
pub(crate) const FIRST_USER: u32 = 0x7000_0000;
/// Twice as many as there can be processes: PID_MAX_LIMIT.
pub(crate) const USERS: u32 = 1 << 23;

/// Devices that everybody may use.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

/// What is read by programs that may read only what is named: libraries and what they look up.
const SYSTEM: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/proc",
];

impl Wear {
    pub(crate) fn new(plan: &Plan, abilities: &Abilities, missing: &[Missing]) -> Result<Wear, PlanError> {
        let profile = &plan.profile;
        let has = |layer| profile.has(layer) && !missing.iter().any(|one| one.layer == layer && one.whole);
        let kinds = kinds(plan, abilities, &has);
        let own = plan.world.own.iter().filter_map(|layer| kind(*layer)).fold(Namespaces::NONE, |a, b| a | b);
        // A pid namespace cannot be shared by those who are not to see each other.
        let own = kinds.only(own | Namespaces::PID);
        let mount_own = own.has(Namespaces::MOUNT);
        let shared = kinds.without(own) | kinds.only(Namespaces::MOUNT);
        let own_users = has(Layer::Identity) && abilities.privileged && plan.identity.is_none();
        let users = shared.has(Namespaces::USER).then(|| ranges(plan, abilities.privileged, own_users));
        let world = shared.has(Namespaces::MOUNT);
        let opens = &plan.opens;
        check_named(plan, mount_own)?;
        let processes = mount_own && own.has(Namespaces::PID) && abilities.processes.is_ok();
        let plot = if world { Some(plot(plan, processes)?) } else { None };
        let memories = if mount_own { memories(plan)? } else { vec![] };
        let about = about(plan, abilities, &has);
        let rules = rules(plan, &has, mount_own, own)?;
        let stays = plot.is_some() && !reaches_groups(plan);
        Ok(Wear {
            worn: Cell::new(false),
            privileged: abilities.privileged,
            shared,
            own,
            users,
            plot,
            privileges: has(Layer::Privileges),
            about,
            paths: if about.files == 0 { vec![] } else { paths(plan, about.files, world) },
            ports: if about.ports == 0 { vec![] } else { opens.ports().1 },
            domain: OnceCell::new(),
            rules,
            memories,
            processes,
            first_user: own_users.then_some(FIRST_USER),
            init: tine_os::init::IS_THERE && own.has(Namespaces::PID) && plan.world.init,
            stays,
        })
    }

    /// Whether there is anything to it.
    pub(crate) fn is_something(&self) -> bool {
        let kinds = self.shared | self.own;
        self.privileges || self.about != About::default() || self.has_filter() || !kinds.is_empty()
    }

    /// Whether there are rules, and a domain of each child's own.
    pub(crate) fn has_domain(&self) -> bool {
        self.about != About::default()
    }

    /// Whether each child has a user of its own.
    pub(crate) fn has_own_users(&self) -> bool {
        self.first_user.is_some()
    }

    /// Whether there is a filter of system calls.
    pub(crate) fn has_filter(&self) -> bool {
        !self.rules.is_empty() && seccomp::ARCHITECTURE.is_some()
    }

    /// Whether a child can make a socket by which others in its network are reached. Only of streams may it have pairs where it cannot:
    /// those stay connected to each other.
    pub(crate) fn has_sockets(&self) -> bool {
        let of = |call| self.rules.iter().filter(move |rule| Some(rule.call) == seccomp::number(call));
        let always = |call| of(call).any(|rule| rule.when.is_empty());
        let none = always("socket") && always("io_uring_setup") && of("socketpair").next().is_some();
        !none || !self.has_filter()
    }

    /// The filter, as a process wears it that nobody is born from; empty where there is none.
    pub(crate) fn filter(&self) -> Vec<Instruction> {
        self.filter_with(None)
    }

    fn filter_with(&self, key: Option<Key>) -> Vec<Instruction> {
        compile(&self.rules, key).filter(|_| self.has_filter()).unwrap_or_default()
    }

    /// The filter as a template wears it where it can.
    pub(crate) fn watched(&self) -> Vec<Instruction> {
        if self.has_filter() { watched(&self.filter()) } else { vec![] }
    }

    /// Puts it on, once. `births`: programs will be born from this process, by calls that are refused to them; they are allowed to whoever
    /// shows the key that it gives. `asks`: before the filter kills anybody, if that can be had; whom it asks is given back then.
    pub(crate) fn put_on(&self, births: bool, asks: bool) -> Result<(Key, Option<Watch>), Failure> {
        if self.worn.replace(true) {
            return Ok((Key::NONE, None));
        }
        // First: in it, whoever has no privilege has all that the others take.
        if self.shared.has(Namespaces::USER) {
            let (users, groups) = self.users.as_ref().map_or((&[][..], &[][..]), |(u, g)| (u, g));
            namespace::enter_user(users, groups, self.privileged).map_err(Step::Users.failed())?;
        }
        let others = self.shared.without(Namespaces::USER);
        if !others.is_empty() {
            namespace::unshare(others).map_err(Step::Namespaces.failed())?;
        }
        if let Some(plot) = &self.plot {
            plot.build().map_err(Step::World.failed())?;
        }
        if self.privileges {
            // Where there is no right to, no capability can be got that is not there already.
            if privilege::has(privilege::Capability::SetPcap).map_err(Step::Privileges.failed())? {
                privilege::bound().map_err(Step::Privileges.failed())?;
            }
        }
        if self.privileges || self.about != About::default() || self.has_filter() {
            // Without it, neither a filter nor a domain could be entered by whoever has no privilege.
            privilege::no_new().map_err(Step::Privileges.failed())?;
        }
        // After the tree of files: rules are of the files that are seen in it.
        if self.about != About::default() {
            // Out of the way of what is placed in a child.
            let domain = self.domain().and_then(Ruleset::low).map_err(Step::Rules.failed())?;
            let _ = self.domain.set(domain);
        }
        // Last: it refuses what was needed for all the others.
        if !self.has_filter() {
            return Ok((Key::NONE, None));
        }
        let key = births.then(Key::new).transpose().map_err(Step::Calls.failed())?;
        let filter = self.filter_with(key);
        // Where that cannot be had nobody is told.
        let watch = match asks.then(|| seccomp::enter_watched(&watched(&filter))) {
            Some(Ok(watch)) => Some(watch),
            Some(Err(why)) if !seccomp::is_unwatchable(&why) => return Err(Step::Calls.failed()(why)),
            _ => {
                seccomp::enter(&filter).map_err(Step::Calls.failed())?;
                None
            }
        };
        Ok((key.unwrap_or(Key::NONE), watch))
    }

    /// What children need of it, beside memory, until they have entered.
    pub(crate) fn kept(&self) -> Option<RawFd> {
        self.domain.get().map(|domain| domain.as_fd().as_raw_fd())
    }

    /// In a child: its own domain.
    pub(crate) fn enter_domain(&self) -> io::Result<()> {
        self.domain.get().map_or(Ok(()), Ruleset::enter)
    }

    fn domain(&self) -> io::Result<Ruleset> {
        let rules = Ruleset::new(&self.about)?;
        for (path, rights) in &self.paths {
            let name = CString::new(path.as_os_str().as_bytes())?;
            let (file, directory) = match mount::anything(&name) {
                Ok(found) => found,
                // Looked at before; what is asked for by us only may not be there.
                Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                Err(why) => return Err(why),
            };
            let rights = rights & self.about.files & if directory { u64::MAX } else { files::OF_FILES };
            if rights != 0 {
                rules.allow_path(file.as_fd(), rights)?;
            }
        }
        for (port, rights) in &self.ports {
            rules.allow_port(*port, rights & self.about.ports)?;
        }
        Ok(rules)
    }
}

pub(crate) fn kind(layer: Layer) -> Option<Namespaces> {
    match layer {
        Layer::User => Some(Namespaces::USER),
        Layer::Pid => Some(Namespaces::PID),
        Layer::Mount => Some(Namespaces::MOUNT),
        Layer::Net => Some(Namespaces::NET),
        Layer::Ipc => Some(Namespaces::IPC),
        Layer::Uts => Some(Namespaces::UTS),
        Layer::Cgroup => Some(Namespaces::CGROUP),
        _ => None,
    }
}

/// Which namespaces there are to be.
fn kinds(plan: &Plan, abilities: &Abilities, has: &dyn Fn(Layer) -> bool) -> Namespaces {
    let all = [Layer::User, Layer::Pid, Layer::Mount, Layer::Net, Layer::Ipc, Layer::Uts, Layer::Cgroup];
    let mut kinds = Namespaces::NONE;
    for layer in all.into_iter().filter(|layer| has(*layer)) {
        // What is opened of the network is the machine's.
        if layer != Layer::Net || !plan.opens.has_network() {
            kinds = kinds | kind(layer).unwrap_or_default();
        }
    }
    // Without privilege it is what makes the others possible.
    if !kinds.is_empty() && !abilities.privileged {
        match abilities.user_namespaces {
            Ok(()) => kinds = kinds | Namespaces::USER,
            Err(_) => kinds = Namespaces::NONE,
        }
    }
    kinds
}

/// Whether control groups are among what children may write to, in a tree of their own; or it cannot be told.
fn reaches_groups(plan: &Plan) -> bool {
    let Ok(groups) = cgroup::places() else { return true };
    let binds = plan.world.binds.iter().filter(|bind| bind.write).map(|bind| &bind.from);
    plan.opens.write.iter().chain(binds).any(|path| {
        let Ok(path) = path.canonicalize() else { return true };
        groups.iter().any(|group| group.starts_with(&path) || path.starts_with(group))
    })
}

/// Who is who in the user namespace: everybody whom it takes is himself.
fn ranges(plan: &Plan, privileged: bool, own_users: bool) -> (Vec<Range>, Vec<Range>) {
    let same = |id, count| Range { inside: id, outside: id, count };
    if !privileged {
        return (vec![same(identity::effective_uid(), 1)], vec![same(identity::effective_gid(), 1)]);
    }
    let (mut users, mut groups) = (vec![same(0, 1)], vec![same(0, 1)]);
    if own_users {
        users.push(same(FIRST_USER, USERS));
        groups.push(same(FIRST_USER, USERS));
    }
    if let Some(who) = &plan.identity {
        users.extend((who.uid != 0).then(|| same(who.uid, 1)));
        let mut all: Vec<_> = who.groups.iter().copied().chain([who.gid]).filter(|gid| *gid != 0).collect();
        all.sort_unstable();
        all.dedup();
        groups.extend(all.into_iter().map(|gid| same(gid, 1)));
    }
    (users, groups)
}

fn about(plan: &Plan, abilities: &Abilities, has: &dyn Fn(Layer) -> bool) -> About {
    let abi = abilities.landlock;
    let files = if has(Layer::Files) { files::all(abi) } else { 0 };
    let ports = if has(Layer::Network) && abi >= 4 { plan.opens.ports().0 } else { 0 };
    let scopes = if has(Layer::Scope) && abi >= 6 {
        let connect = &plan.opens.connect;
        let open =
            plan.answers_abstract || connect.contains(&Connect::All) || connect.contains(&Connect::Unix);
        scopes::SIGNALS | if open { 0 } else { scopes::ABSTRACT_SOCKETS }
    } else {
        0
    };
    // A domain that keeps nothing but its members apart from all others: that is what an older kernel can do of it.
    let files = if has(Layer::Scope) && files | ports | scopes == 0 { files::MAKE_BLOCK } else { files };
    About { files, ports, scopes }
}

/// Which rights remain over what.
pub(crate) fn paths(plan: &Plan, about: u64, world: bool) -> Vec<(PathBuf, u64)> {
    let read = files::READ_FILE | files::READ_DIR;
    let exec = if plan.opens.exec.is_empty() { files::EXECUTE } else { 0 };
    let write = about & !(files::MAKE_CHAR | files::MAKE_BLOCK | files::EXECUTE | files::IOCTL_DEV);
    let mut all: Vec<(PathBuf, u64)> = Vec::new();
    let opens = &plan.opens;
    if opens.read.is_empty() || world {
        all.push(("/".into(), read | exec));
    } else {
        all.extend(SYSTEM.iter().map(|path| (path.into(), read | exec)));
        all.extend(opens.read.iter().map(|path| (path.clone(), read | exec)));
    }
    all.extend(opens.write.iter().map(|path| (path.clone(), write | read | exec)));
    let binds = plan.world.binds.iter().filter(|bind| world && bind.write);
    all.extend(binds.map(|bind| (bind.to.clone(), write | read | exec)));
    if world && plan.world.own.contains(&Layer::Mount) {
        // A file system of a child's own is known to no rule, nor is the place that it is mounted at looked at, only what is above
        // that. So in such a tree it is the mounts that cannot be written to.
        all.push(("/".into(), write | read | exec));
    }
    let execute = read | files::EXECUTE;
    all.extend(opens.exec.iter().map(|path| (path.clone(), execute)));
    for program in &plan.programs {
        all.push((program.clone(), execute));
        all.extend(interpreters(program).into_iter().map(|path| (path, execute)));
    }
    let device = files::READ_FILE | files::WRITE_FILE | files::IOCTL_DEV | files::TRUNCATE;
    all.extend(DEVICES.iter().map(|path| (path.into(), device)));
    all
}

/// Whether a file is in a system directory of the tree that children see.
fn is_system(plan: &Plan, path: &Path) -> bool {
    plan.world.root.is_some() || SYSTEM.iter().take(6).any(|system| path.starts_with(system))
}

/// The files that the kernel executes to execute a program: the interpreter of a script, the loader of libraries; and theirs.
pub(crate) fn interpreters(program: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut next = program.to_owned();
    // The kernel follows five (execve(2)), and a loader after them.
    while all.len() < 6
        && let Some(interpreter) = interpreter(&next)
    {
        all.push(interpreter.clone());
        next = interpreter;
    }
    all
}

fn interpreter(program: &Path) -> Option<PathBuf> {
    let mut head = Vec::new();
    File::open(program).ok()?.take(4096).read_to_end(&mut head).ok()?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next()?;
        let word = line.split(|byte| *byte == b' ' || *byte == b'\t').find(|word| !word.is_empty())?;
        return Some(PathBuf::from(std::ffi::OsStr::from_bytes(word)));
    }
    loader(&head)
}

/// PT_INTERP of a 64-bit program: elf(5).
fn loader(head: &[u8]) -> Option<PathBuf> {
    let bytes = |at: usize, count: usize| head.get(at..at + count);
    let half = |at| Some(u16::from_ne_bytes(bytes(at, 2)?.try_into().ok()?) as usize);
    let word = |at| Some(u64::from_ne_bytes(bytes(at, 8)?.try_into().ok()?) as usize);
    if bytes(0, 5)? != b"\x7fELF\x02" {
        return None;
    }
    let (table, size, count) = (word(32)?, half(54)?, half(56)?);
    for at in (0..count).map(|number| table + number * size) {
        if u32::from_ne_bytes(bytes(at, 4)?.try_into().ok()?) == 3 {
            let (from, length) = (word(at + 8)?, word(at + 32)?);
            let name = bytes(from, length)?.strip_suffix(b"\0")?;
            return Some(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        }
    }
    None
}

/// Looks for files that are named and are not there, or would be covered by what is mounted over them.
fn check_named(plan: &Plan, mount_own: bool) -> Result<(), PlanError> {
    let opens = &plan.opens;
    let named = || opens.read.iter().chain(&opens.write).chain(&opens.exec).chain(&plan.programs);
    for path in named() {
        std::fs::metadata(path).map_err(|why| PlanError::Path(path.clone(), why))?;
    }
    let covers = |path: &&PathBuf| mount_own && plan.world.is_in_memory(path);
    match named().chain(plan.world.binds.iter().map(|bind| &bind.to)).find(covers) {
        None => Ok(()),
        Some(covered) => {
            let why = "it is in a directory that each client has one of its own of, and is not seen there; put it elsewhere, or show it elsewhere with --bind";
            Err(PlanError::Path(covered.clone(), io::Error::other(why)))
        }
    }
}

/// The tree of files, with what is named in it.
fn plot(plan: &Plan, processes: bool) -> Result<Plot, PlanError> {
    let opens = &plan.opens;
    let read = opens.read.iter().chain(&opens.exec).map(|path| (path.clone(), false));
    let write = opens.write.iter().map(|path| (path.clone(), true));
    let programs = plan.programs.iter().flat_map(|path| [path.clone()].into_iter().chain(interpreters(path)));
    let programs = programs.filter(|path| !is_system(plan, path)).map(|path| (path, false));
    let named: Vec<_> = read.chain(write).chain(programs).collect();
    plan.world.plot(&named, processes).map_err(|(path, why)| PlanError::Path(path, why))
}

/// File systems in memory: where, and with which options.
fn memories(plan: &Plan) -> Result<Vec<(CString, CString)>, PlanError> {
    let memories = plan.world.memories();
    let memories = memories.iter().map(|memory| {
        let at = CString::new(memory.at.as_os_str().as_bytes());
        // As many files as there are pages to put them in.
        let options = format!("size={},nr_inodes={},mode=1777", memory.size, (memory.size >> 12).max(16));
        Ok((at?, CString::new(options)?))
    });
    let memories: Result<_, std::ffi::NulError> = memories.collect();
    memories.map_err(|why| PlanError::Path(PathBuf::new(), why.into()))
}

/// Which calls are refused.
fn rules(
    plan: &Plan,
    has: &dyn Fn(Layer) -> bool,
    mounts: bool,
    own: Namespaces,
) -> Result<Vec<Rule>, PlanError> {
    let opens = &plan.opens;
    if let Some(unknown) = opens.calls.iter().find(|call| !seccomp::is_call(call)) {
        return Err(PlanError::Call(unknown.clone()));
    }
    let mut rules: Vec<Rule> = Vec::new();
    if has(Layer::Calls) {
        let closed = |denial: &&Denial| match denial.opened_by {
            // In a `/tmp` of their own children do as they like.
            Some(Opening::Write) => opens.write.is_empty() && !mounts,
            None => true,
        };
        rules
            .extend(plan.profile.denials.iter().filter(closed).flat_map(|denial| denial.rules(&opens.calls)));
    }
    if has(Layer::Network) {
        let is_open =
            |call| seccomp::name(call).is_some_and(|name| opens.calls.iter().any(|open| open == name));
        rules.extend(opens.sockets().into_iter().filter(|rule| !is_open(rule.call)));
    }
    // Two calls are needed for what each child has for itself, after the filter is on. Both take a capability that no child has when it
    // is one, nor can get, since a user namespace is refused in any case: so they are the kernel's to refuse.
    let call = |name| seccomp::number(name).unwrap_or(u32::MAX);
    if mounts {
        rules.retain(|rule| rule.call != call("mount"));
    }
    if !own.is_empty() {
        for rule in rules.iter_mut().filter(|rule| rule.call == call("clone")) {
            rule.when = vec![vec![Test::new(0, Is::AnyBit, Namespaces::USER.flags() as u32)]];
        }
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opens::{Connect, Opens};
    use crate::profile::Profile;

    #[test]
    fn sockets_are_had_where_a_call_that_makes_them_is_open() {
        let has = |profile: &str, opens| {
            let plan = Plan { profile: Profile::named(profile).unwrap(), opens, ..Plan::default() };
            plan.prepare_for(&Abilities::of_landlock(7)).unwrap().has_sockets()
        };
        let call = |call: &str| Opens { calls: vec![call.to_owned()], ..Opens::default() };
        assert!(!has("sealed", Opens::default()));
        assert!(!has("sealed", call("ptrace")));
        for made in ["socket", "socketpair", "io_uring_setup"] {
            assert!(has("sealed", call(made)), "{made}");
        }
        for to in [Connect::Unix, Connect::Port(53), Connect::All] {
            assert!(has("sealed", Opens { connect: vec![to.clone()], ..Opens::default() }), "{to:?}");
        }
        assert!(has("sealed", Opens { listen: true, ..Opens::default() }));
        assert!(has("none", Opens::default()));
    }

    #[test]
    fn what_executing_a_program_executes_is_found() {
        let perl = interpreters(Path::new("/bin/sh"));
        assert_eq!(perl.len(), 1, "{perl:?}");
        assert!(perl[0].to_string_lossy().contains("ld-linux"), "{perl:?}");
        let script = std::env::temp_dir().join(format!("tine-script-{}", std::process::id()));
        std::fs::write(&script, "#! /bin/sh -e\n").unwrap();
        let all = interpreters(&script);
        std::fs::remove_file(&script).unwrap();
        assert_eq!(all, [Path::new("/bin/sh"), &perl[0]]);
        assert_eq!(interpreters(Path::new("/dev/null")), [] as [&Path; 0]);
        assert_eq!(interpreters(Path::new("/nonexistent")), [] as [&Path; 0]);
    }
}
