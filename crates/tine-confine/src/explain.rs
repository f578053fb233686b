//! A plan in words: each step, in the order in which they are carried out, with its figures, its reason, and whether it is enforced.
//!
//! Nothing is opened, entered or changed. What the template wears, and what each child does, is told by the same functions that
//! prepare it, so that what is told is what is done.

use std::fmt;

use serde::Serialize;
use tine_os::landlock::{files, ports, scopes};
use tine_os::limit::{self, RESOURCES, Rlimit};
use tine_os::namespace::Namespaces;
use tine_os::seccomp;

use crate::ability::{Abilities, Missing};
use crate::filter::{Denial, Is, Opening, Rule, Test};
use crate::plan::{Plan, PlanError, WhenMissing};
use crate::profile::Layer;
use crate::report::Step;
use crate::wear::{Wear, interpreters, kind, paths};

/// A plan in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The profile's name.
    pub profile: String,
    /// What it promises.
    pub about: String,
    /// Whether a server with this plan starts here.
    pub starts: bool,
    /// The steps, in the order in which they are carried out.
    pub steps: Vec<Explained>,
    /// All that cannot be had.
    pub missing: Vec<Missing>,
}

/// One step of a plan; a step of several layers is there once for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Explained {
    /// Who does it.
    pub by: By,
    /// Which step.
    pub step: Step,
    /// What it does.
    pub what: String,
    /// Each thing that it does it with.
    pub items: Vec<Item>,
    /// Why.
    pub reason: Option<String>,
    /// Whether this system holds children to it.
    pub enforced: Enforced,
    /// What is missing of it.
    pub missing: Vec<Missing>,
}

/// Who carries a step out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum By {
    /// The template, once for all children.
    Template,
    /// Each child.
    Child,
}

/// Whether a step is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Enforced {
    /// In full.
    Full,
    /// But for what is missing.
    Partly,
    /// Not at all.
    Not,
}

/// One thing of a step: a limit, a path, calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Item {
    /// What it is about.
    pub names: Vec<String>,
    /// What becomes of that.
    pub what: String,
    /// Of calls: on which condition; none is always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which flags open it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opened_by: Vec<String>,
}

impl Item {
    /// What becomes of something.
    pub fn new(names: &[&str], what: impl Into<String>) -> Item {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Item { names, what: what.into(), ..Item::default() }
    }

    fn because(self, reason: Option<&str>) -> Item {
        Item { reason: reason.map(str::to_owned), ..self }
    }
}

impl Explained {
    fn new(by: By, step: Step, what: impl Into<String>, reason: Option<&str>) -> Explained {
        let (what, reason) = (what.into(), reason.map(str::to_owned));
        Explained { by, step, what, items: vec![], reason, enforced: Enforced::Full, missing: vec![] }
    }

    fn with(self, items: impl IntoIterator<Item = Item>) -> Explained {
        Explained { items: items.into_iter().collect(), ..self }
    }

    /// What is missing of it, and so how far it is enforced.
    fn lacking(mut self, missing: &[Missing], of: impl Fn(&Missing) -> bool) -> Explained {
        self.missing = missing.iter().filter(|one| of(one)).cloned().collect();
        self.enforced = match &self.missing[..] {
            [] => Enforced::Full,
            some if some.iter().any(|one| one.whole) => Enforced::Not,
            _ => Enforced::Partly,
        };
        self
    }
}

impl Plan {
    /// The plan in words, as it would be carried out where `abilities` were found. A plan that a server would not start with is told
    /// as well; what is missing of it says why.
    ///
    /// # Errors
    /// As those of [`Plan::prepare`] that are no [`PlanError::Missing`].
    pub fn explain(&self, abilities: &Abilities) -> Result<Explanation, PlanError> {
        let mut as_here = Plan { when_missing: WhenMissing::Warn, ..self.clone() };
        // Whoever asks need not be the one who is going to serve.
        let (prepared, stays) = match as_here.prepare_for(abilities) {
            Err(why @ (PlanError::NotRoot(_) | PlanError::NotRootGroups(_))) => {
                as_here.identity = None;
                (as_here.prepare_for(abilities)?, Some(why.to_string()))
            }
            other => (other?, None),
        };
        let missing = self.missing(abilities);
        let wear = &prepared.wear;
        let telling = Telling { plan: self, abilities, missing: &missing, wear };
        let mut steps = Vec::new();
        if prepared.confines() {
            telling.template(&mut steps);
        }
        telling.birth(&mut steps);
        steps.push(Explained::new(
            By::Child,
            Step::Session,
            "a session and a process group of its own",
            Some("what it starts can be signalled as one, and no terminal of tine's reaches it"),
        ));
        steps.push(Explained::new(
            By::Child,
            Step::Descriptors,
            "what is placed for it stays open, and nothing else",
            Some("listeners, other clients and tine's own files are out of reach from here on"),
        ));
        telling.mounts(&mut steps);
        let limits = RESOURCES.iter().map(|(name, resource)| {
            let inherited = limit::get(*resource);
            let limit =
                self.limit(name, inherited, wear.has_own_users(), |asked| limit::may_set(*resource, asked));
            limit.map(|limit| (*name, limit))
        });
        steps.push(self.told_limits(&limits.collect::<Result<Vec<_>, _>>()?, wear.has_own_users()));
        let who = prepared.identity.as_ref().or(self.identity.as_ref());
        let (what, reason) = match (who, wear.first_user) {
            (_, Some(first)) => {
                let what =
                    format!("a user and a group of its own: {first}, and for each child at once one more");
                (what, self.profile.reason(Layer::Identity))
            }
            (Some(who), None) => {
                let groups = who.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
                (format!("user {}, group {}, groups {groups}", who.uid, who.gid), stays.as_deref())
            }
            (None, None) => {
                let uid = tine_os::identity::effective_uid();
                (format!("it stays the user that tine is, {uid}"), None)
            }
        };
        let enforced = if stays.is_some() { Enforced::Not } else { Enforced::Full };
        steps.push(Explained { enforced, ..Explained::new(By::Child, Step::Identity, what, reason) });
        let what = match prepared.directory.as_deref() {
            Some(directory) => directory.to_string_lossy().into_owned(),
            None => "it stays where tine was started".to_owned(),
        };
        steps.push(Explained::new(By::Child, Step::Directory, what, None));
        let reason = "what it makes is its user's alone unless it says otherwise";
        let reason = (self.umask & 0o077 == 0o077).then_some(reason);
        steps.push(Explained::new(By::Child, Step::Umask, format!("{:03o}", self.umask), reason));
        telling.last(&mut steps);
        steps.push(Explained::new(
            By::Child,
            Step::Signals,
            "every signal has its default action, SIGPIPE too, and none is blocked",
            Some("what tine does at signals is not the program's affair"),
        ));
        if !self.programs.is_empty() {
            let items = self.programs.iter().map(|program| {
                let through: Vec<_> =
                    interpreters(program).iter().map(|path| path.display().to_string()).collect();
                let what = if through.is_empty() {
                    String::new()
                } else {
                    format!("by way of {}", through.join(", "))
                };
                Item::new(&[&program.display().to_string()], what)
            });
            steps.push(Explained::new(By::Child, Step::Exec, "it becomes the program", None).with(items));
        }
        let had = self.when_missing == WhenMissing::Warn || !missing.iter().any(|one| one.refuses);
        let starts = had && stays.is_none() && telling.without_controllers().is_empty();
        let (profile, about) = (self.profile.name.clone(), self.profile.about.clone());
        Ok(Explanation { profile, about, starts, steps, missing })
    }

    fn told_limits(&self, limits: &[(&str, Rlimit)], own_users: bool) -> Explained {
        let items = limits.iter().filter_map(|(name, limit)| {
            let number = |value: Option<u64>| value.map_or("unlimited".to_owned(), |value| value.to_string());
            let (soft, hard) = (number(limit.current), number(limit.maximum));
            let what = if soft == hard { soft } else { format!("{soft}; it may raise that to {hard}") };
            let asked = self.limits.iter().any(|asked| asked.resource == *name);
            let of_profile = self.profile.limits.iter().rev().find(|bound| {
                bound.resource == *name && (bound.only != Some(Layer::Identity) || own_users)
            });
            let reason = match (asked, of_profile) {
                (true, _) => Some("asked for"),
                (false, Some(bound)) => Some(bound.reason.as_str()),
                (false, None) => match *name {
                    "core" => Some("a dump has what the client sent; 1 and not 0, which a core_pattern that is a pipe takes for no limit"),
                    "nofile" => Some("select(2) can take so many"),
                    "stack" => Some("an unlimited one changes how memory is laid out"),
                    _ if limit.current.is_none() && limit.maximum.is_none() => return None,
                    _ => Some("as it was inherited"),
                },
            };
            Some(Item::new(&[name], what).because(reason))
        });
        Explained::new(By::Child, Step::Limits, "limits on resources; all others are unlimited", None)
            .with(items)
    }
}

/// What the parts of a plan are told from.
struct Telling<'a> {
    plan: &'a Plan,
    abilities: &'a Abilities,
    missing: &'a [Missing],
    wear: &'a Wear,
}

const KINDS: [Layer; 7] =
    [Layer::User, Layer::Mount, Layer::Net, Layer::Pid, Layer::Ipc, Layer::Uts, Layer::Cgroup];

impl Telling<'_> {
    fn has(&self, layer: Layer) -> bool {
        self.plan.profile.has(layer)
    }

    fn reason(&self, layer: Layer) -> Option<&str> {
        self.plan.profile.reason(layer)
    }

    /// Whether namespaces were asked for, and none can be made.
    fn is_without_namespaces(&self) -> bool {
        (self.wear.shared | self.wear.own).is_empty()
    }

    /// What all children wear, put on once.
    fn template(&self, steps: &mut Vec<Explained>) {
        self.namespaces(steps);
        if self.has(Layer::Privileges) {
            let what = "user id 0 is an ordinary one from here on, no capability can be got, and nothing that is executed gives a privilege";
            let items = [
                Item::new(&["no_new_privs"], "on"),
                Item::new(&["capability bounding set"], "emptied, where there is CAP_SETPCAP"),
                Item::new(&["securebits"], "SECBIT_NOROOT, SECBIT_NOROOT_LOCKED, where there is CAP_SETPCAP"),
            ];
            steps.push(
                Explained::new(By::Template, Step::Privileges, what, self.reason(Layer::Privileges))
                    .with(items),
            );
        } else if self.wear.has_filter() || self.wear.has_domain() {
            let reason =
                "without it, neither a filter nor a domain can be entered by whoever has no privilege";
            let what = "nothing that is executed gives a privilege (no_new_privs)";
            steps.push(Explained::new(By::Template, Step::Privileges, what, Some(reason)));
        }
        self.files(steps);
        self.ports(steps);
        self.scope(steps);
        self.calls(steps);
        self.sockets(steps);
    }

    fn namespaces(&self, steps: &mut Vec<Explained>) {
        if !KINDS.into_iter().any(|layer| self.has(layer)) {
            return;
        }
        let of_kinds = |one: &Missing| KINDS.contains(&one.layer) && one.whole;
        if self.is_without_namespaces() {
            let what = "user, mount, network and other namespaces";
            let items = KINDS.iter().filter(|layer| self.has(**layer));
            let items =
                items.map(|layer| Item::new(&[&layer.to_string()], "not made").because(self.reason(*layer)));
            steps.push(
                Explained::new(By::Template, Step::Namespaces, what, None)
                    .with(items)
                    .lacking(self.missing, of_kinds),
            );
            return;
        }
        if let Some((users, groups)) = &self.wear.users {
            let what = match self.abilities.privileged {
                true => {
                    "a user namespace; everybody in it is outside who he is inside, and nobody else is in it"
                }
                false => "a user namespace, in which there is nobody but the user that tine is",
            };
            let range = |first: u32, count: u32| match count {
                1 => first.to_string(),
                more => format!("{first} to {}", first + (more - 1)),
            };
            let told = |ranges: &[tine_os::namespace::Range]| {
                ranges.iter().map(|one| range(one.inside, one.count)).collect::<Vec<_>>().join(", ")
            };
            let items = [Item::new(&["users"], told(users)), Item::new(&["groups"], told(groups))];
            steps.push(Explained::new(By::Template, Step::Users, what, self.reason(Layer::User)).with(items));
        }
        let shared = self.wear.shared.without(Namespaces::USER);
        let mut items: Vec<_> = KINDS
            .into_iter()
            .filter(|layer| kind(*layer).is_some_and(|kind| !kind.is_empty() && shared.has(kind)))
            .map(|layer| Item::new(&[&layer.to_string()], shared_words(layer)).because(self.reason(layer)))
            .collect();
        if self.has(Layer::Net) && self.plan.opens.has_network() {
            items.push(Item::new(&["net"], "not made: what is opened of the network is the machine's"));
        }
        let what = "these are shared by all children of the service";
        steps.push(
            Explained::new(By::Template, Step::Namespaces, what, None)
                .with(items)
                .lacking(self.missing, of_kinds),
        );
        if let Some(plot) = &self.wear.plot {
            let what = "a tree of files, in memory, put together of parts of the machine's; it becomes the root, and nothing can be made or \
                        changed in it but where a piece says write";
            let items = plot.told().into_iter().map(|(names, what)| Item { names, what, ..Item::default() });
            steps
                .push(Explained::new(By::Template, Step::World, what, self.reason(Layer::Mount)).with(items));
        }
    }

    fn files(&self, steps: &mut Vec<Explained>) {
        if !self.has(Layer::Files) {
            return;
        }
        let wanted = files::all(u32::MAX);
        let (rights, of) = match files::all(self.abilities.landlock) {
            0 => (wanted, "in the newest ABI of Landlock".to_owned()),
            some => (some, format!("in ABI {} of Landlock", self.abilities.landlock)),
        };
        let world = self.wear.plot.is_some();
        let mut over: Vec<(String, u64)> = Vec::new();
        for (path, right) in paths(self.plan, rights, world) {
            let about = std::fs::metadata(&path);
            if !world && about.as_ref().is_err() {
                continue;
            }
            // In a tree of its own what is there is not what is there now.
            let of_file = about.is_ok_and(|about| !about.is_dir());
            let right = right & rights & if of_file { files::OF_FILES } else { u64::MAX };
            let path = path.display().to_string();
            match over.iter_mut().find(|(other, _)| *other == path) {
                Some((_, all)) => *all |= right,
                None => over.push((path, right)),
            }
        }
        let mut items: Vec<Item> = Vec::new();
        for (path, right) in over.into_iter().filter(|(_, right)| *right != 0) {
            let what = words(right);
            match items.iter_mut().find(|item| item.what == what) {
                Some(item) => item.names.push(path),
                None => items.push(Item { names: vec![path], what, ..Item::default() }),
            }
        }
        let and = if world && !self.wear.memories.is_empty() {
            "; what may be written to in its tree, the tree's pieces say, since no rule can name what each child mounts itself"
        } else {
            ""
        };
        let what = format!(
            "no right over any file but these, with all beneath them (rights {of}: {}){and}",
            words(rights)
        );
        let of_files = |one: &Missing| one.layer == Layer::Files;
        let told = Explained::new(By::Template, Step::Rules, what, self.reason(Layer::Files)).with(items);
        steps.push(told.lacking(self.missing, of_files));
    }

    fn ports(&self, steps: &mut Vec<Explained>) {
        let (given_up, open) = self.plan.opens.ports();
        if !self.has(Layer::Network) || given_up == 0 {
            return;
        }
        let what = match (given_up & ports::BIND != 0, given_up & ports::CONNECT != 0) {
            (true, true) if open.is_empty() => "no TCP port is bound to or connected to",
            (true, true) => "no TCP port is bound to, and none but these connected to, at any host",
            (true, false) => "no TCP port is bound to",
            _ if open.is_empty() => "no TCP port is connected to",
            _ => "no TCP port but these is connected to, at any host",
        };
        let items = open.iter().map(|(port, _)| Item::new(&[&port.to_string()], "connect"));
        let told = Explained::new(By::Template, Step::Rules, what, self.reason(Layer::Network)).with(items);
        let mut told = told.lacking(self.missing, |one| one.layer == Layer::Network && !one.whole);
        if self.abilities.landlock < 4 {
            // Nothing is missing where no socket can be had: that is the filter's doing.
            told.what += ": not done here, since Landlock knows ports from ABI 4 on (Linux 6.7); the filter refuses sockets";
            told.enforced = if told.missing.is_empty() { Enforced::Partly } else { Enforced::Not };
        }
        steps.push(told);
    }

    fn scope(&self, steps: &mut Vec<Explained>) {
        if !self.has(Layer::Scope) {
            return;
        }
        let open =
            self.plan.opens.connect.iter().any(|to| matches!(to, crate::Connect::All | crate::Connect::Unix));
        let there = self.wear.about.scopes;
        let is = |bit| if there & bit != 0 { "refused" } else { "not refused here" };
        let mut items = vec![
            Item::new(
                &["ptrace, memory and descriptors of others, most of /proc/PID"],
                if self.abilities.landlock > 0 { "refused" } else { "not refused here" },
            ),
            Item::new(&["signals to others"], is(scopes::SIGNALS)),
        ];
        items.push(match open {
            false if there == 0 && self.has(Layer::Network) => Item::new(
                &["abstract Unix sockets of others"],
                "not refused here; the filter refuses all Unix sockets but pairs",
            ),
            false => Item::new(&["abstract Unix sockets of others"], is(scopes::ABSTRACT_SOCKETS)),
            true => Item::new(&["abstract Unix sockets of others"], "allowed: --connect names them"),
        });
        let told = Explained::new(
            By::Template,
            Step::Rules,
            "each child's domain is apart from all others",
            self.reason(Layer::Scope),
        );
        steps.push(told.with(items).lacking(self.missing, |one| one.layer == Layer::Scope));
    }

    fn calls(&self, steps: &mut Vec<Explained>) {
        if !self.has(Layer::Calls) {
            return;
        }
        let mut before = "";
        let items = self.plan.profile.denials.iter().flat_map(|denial| {
            // In the profile a line may lean on the one before it.
            if denial.reason != "as above" {
                before = &denial.reason;
            }
            self.denial(denial, before)
        });
        let mut items: Vec<_> = items.collect();
        let length = self.wear.watched().len();
        let size = if length > 0 {
            items.push(supervisor());
            format!(", by a program of {length} instructions")
        } else {
            String::new()
        };
        let what = format!(
            "these calls are refused{size}; one by the numbers of another architecture kills. The kernel asks tine before a call \
             kills, and the log tells which it was; where it cannot ask it kills by SIGSYS and tells nobody"
        );
        let told = Explained::new(By::Template, Step::Calls, what, self.reason(Layer::Calls)).with(items);
        steps.push(told.lacking(self.missing, |one| one.layer == Layer::Calls));
    }

    /// A line about calls, as it comes out: what is opened, and what a child needs itself, is told beside it.
    fn denial(&self, denial: &Denial, reason: &str) -> Vec<Item> {
        let opens = &self.plan.opens;
        let reason = Some(reason);
        let mounts = self.wear.own.has(Namespaces::MOUNT);
        if denial.opened_by == Some(Opening::Write) && (mounts || !opens.write.is_empty()) {
            let by =
                if opens.write.is_empty() { "in a /tmp of its own it may do as it likes" } else { "--write" };
            return vec![Item {
                names: denial.calls.clone(),
                what: format!("allowed: {by}"),
                ..Item::default()
            }];
        }
        let (open, shut): (Vec<String>, Vec<String>) =
            denial.calls.iter().cloned().partition(|call| opens.calls.contains(call));
        let mut all = Vec::new();
        if !open.is_empty() {
            all.push(Item { names: open, what: "allowed: --syscall".into(), ..Item::default() });
        }
        let mut opened_by = vec!["--syscall NAME".to_owned()];
        opened_by.extend((denial.opened_by == Some(Opening::Write)).then(|| "--write PATH".to_owned()));
        let (needed, shut): (Vec<String>, Vec<String>) =
            shut.into_iter().partition(|call| mounts && call == "mount");
        if !needed.is_empty() {
            let what = "allowed by the filter, since each child mounts what is its own; refused by the kernel to whoever has no capability";
            all.push(Item { names: needed, what: what.into(), ..Item::default() });
        }
        let (births, shut): (Vec<String>, Vec<String>) =
            shut.into_iter().partition(|call| !self.wear.own.is_empty() && call == "clone");
        if !births.is_empty() {
            let when = "argument 0 has a bit of CLONE_NEWUSER; the other namespaces take a capability that no child has".to_owned();
            let (what, opened_by) = (denial.answer.to_string(), opened_by.clone());
            all.push(
                Item { names: births, what, when: Some(when), opened_by, ..Item::default() }.because(reason),
            );
        }
        if !shut.is_empty() {
            let when = denial.argument.map(|argument| condition(argument, denial));
            let what = denial.answer.to_string();
            all.push(Item { names: shut, what, when, opened_by, ..Item::default() }.because(reason));
        }
        all
    }

    fn sockets(&self, steps: &mut Vec<Explained>) {
        if !self.has(Layer::Network) {
            return;
        }
        let opens = &self.plan.opens;
        let mut items: Vec<Item> = Vec::new();
        for rule in opens.sockets() {
            let Some(name) = seccomp::name(rule.call) else { continue };
            if opens.calls.iter().any(|open| open == name) {
                items.push(Item::new(&[name], "allowed: --syscall"));
                continue;
            }
            let by: &[&str] = match name {
                "socket" | "connect" => &["--connect PORT", "--connect unix", "--connect all", "--listen-ok"],
                "socketpair" => &["--connect unix", "--connect all"],
                _ => &["--listen-ok"],
            };
            let by = by.iter().chain(&["--syscall NAME"]).map(|flag| (*flag).to_owned()).collect();
            let (what, when) =
                (rule.answer.to_string(), (!rule.when.is_empty()).then(|| told_condition(&rule)));
            match items.iter_mut().find(|item| item.what == what && item.when == when && item.opened_by == by)
            {
                Some(item) => item.names.push(name.to_owned()),
                None => {
                    items.push(Item { names: vec![name.to_owned()], what, when, reason: None, opened_by: by })
                }
            }
        }
        // Of the whole filter; told where there is more of it.
        items.extend((!self.has(Layer::Calls) && self.wear.has_filter()).then(supervisor));
        let what = "these calls about sockets are refused";
        let told = Explained::new(By::Template, Step::Calls, what, self.reason(Layer::Network)).with(items);
        steps.push(told.lacking(self.missing, |one| one.layer == Layer::Network && one.whole));
    }

    /// Controllers that the limits of its group take, and that are not there.
    fn without_controllers(&self) -> Vec<&'static str> {
        let there = &self.abilities.controllers;
        let taken = self.plan.group.controllers().into_iter();
        taken.filter(|name| !there.iter().any(|other| other == name)).collect()
    }

    /// Where a child is born.
    fn birth(&self, steps: &mut Vec<Explained>) {
        let group = &self.plan.group;
        if group.is_limited() {
            let items = group.settings().into_iter().map(|setting| Item::new(&[setting.file], setting.value));
            let lacks = self.without_controllers();
            let mut what =
                "born in a control group of its own, with limits for it and all that it starts together"
                    .to_owned();
            let mut told = Explained::new(By::Child, Step::Tree, "", Some("asked for")).with(items);
            if !lacks.is_empty() {
                let lacks = lacks.join(", ");
                what += &format!(
                    ": not from where tine is now, whose group hands no {lacks} down; tine doctor says what to do"
                );
                told.enforced = Enforced::Not;
            }
            steps.push(Explained { what, ..told });
        }
        let own = self.wear.own;
        if own.is_empty() {
            return;
        }
        let kinds = KINDS.into_iter().filter(|layer| kind(*layer).is_some_and(|kind| own.has(kind)));
        let items =
            kinds.map(|layer| Item::new(&[&layer.to_string()], own_words(layer)).because(self.reason(layer)));
        let what = match self.wear.init {
            true => {
                "born in namespaces of its own; a process of tine's is the first among its processes, and the program is born beside it"
            }
            false => "born in namespaces of its own, the first process in them",
        };
        steps.push(Explained::new(By::Child, Step::Namespaces, what, None).with(items));
    }

    fn mounts(&self, steps: &mut Vec<Explained>) {
        let wear = self.wear;
        let of_proc = |one: &Missing| one.layer == Layer::Mount && !one.whole;
        let lacks = self.missing.iter().any(of_proc);
        if wear.memories.is_empty() && !wear.processes && !lacks {
            return;
        }
        let mut items: Vec<_> = wear
            .memories
            .iter()
            .map(|(at, options)| {
                Item::new(
                    &[&at.to_string_lossy()],
                    format!("tmpfs, nosuid, nodev, {}", options.to_string_lossy().replace(',', ", ")),
                )
            })
            .collect();
        if wear.processes {
            items.push(Item::new(&["/proc"], "proc, nosuid, nodev, noexec, subset=pid, hidepid=invisible"));
        } else if lacks {
            items.push(Item::new(&["/proc"], "not mounted here"));
        }
        let what = "file systems of the child's own are mounted";
        let reason = "nothing of one client is left for the next, and no client sees another's";
        steps.push(
            Explained::new(By::Child, Step::Mounts, what, Some(reason))
                .with(items)
                .lacking(self.missing, of_proc),
        );
    }

    /// What is given up when nothing is needed any more.
    fn last(&self, steps: &mut Vec<Explained>) {
        if self.has(Layer::Privileges) {
            let what = "every capability is given up: effective, permitted, inheritable and ambient";
            steps.push(Explained::new(By::Child, Step::Capabilities, what, self.reason(Layer::Privileges)));
        }
        if self.wear.has_domain() {
            let what = "a domain of its own, by the rules that the template made";
            let reason = "in one domain children could trace each other, and signal each other";
            steps.push(Explained::new(By::Child, Step::Domain, what, Some(reason)));
        }
    }
}

/// What every filter refuses that asks before it kills.
fn supervisor() -> Item {
    let when = Some("argument 1 has SECCOMP_FILTER_FLAG_NEW_LISTENER".to_owned());
    let reason = "whoever was asked itself about the calls that kill could let them be done";
    Item { when, ..Item::new(&["seccomp"], "EBUSY") }.because(Some(reason))
}

/// What a namespace that children share is.
fn shared_words(layer: Layer) -> &'static str {
    match layer {
        Layer::Mount => "mounts: the tree of files that follows",
        Layer::Net => "one empty network",
        Layer::Ipc => "System V objects and message queues: none",
        Layer::Uts => "a host name",
        Layer::Cgroup => "this control group is the root",
        _ => "shared",
    }
}

/// What a namespace of a child's own is.
fn own_words(layer: Layer) -> &'static str {
    match layer {
        Layer::Pid => "no process but its own",
        Layer::Mount => "a copy of the template's tree, for file systems of its own",
        Layer::Net => "an empty network of its own",
        Layer::Ipc => "System V objects and message queues of its own",
        Layer::Uts => "a host name of its own",
        _ => "of its own",
    }
}

/// Rights over files.
fn words(rights: u64) -> String {
    let devices = files::MAKE_CHAR | files::MAKE_BLOCK;
    let all = [
        (files::READ_FILE, "read"),
        (files::READ_DIR, "list"),
        (files::EXECUTE, "execute"),
        (files::WRITE_FILE, "write"),
        (files::TRUNCATE, "truncate"),
        (files::MAKE & !devices, "make"),
        (devices, "make devices"),
        (files::REMOVE_DIR | files::REMOVE_FILE, "remove"),
        (files::REFER, "move"),
        (files::IOCTL_DEV, "ioctl of devices"),
    ];
    all.iter().filter(|(bits, _)| rights & bits != 0).map(|(_, word)| *word).collect::<Vec<_>>().join(", ")
}

/// On which argument of a call it depends.
fn condition(argument: u32, denial: &Denial) -> String {
    let list = |words: &[String]| words.join(", ");
    match (&denial.any[..], &denial.unless[..], &denial.bits[..]) {
        (any @ [_, ..], _, _) => format!("argument {argument} is one of {}", list(any)),
        (_, unless @ [_, ..], _) => format!("argument {argument} is none of {}", list(unless)),
        (_, _, bits) => format!("argument {argument} has a bit of {}", list(bits)),
    }
}

/// The same of a rule about sockets: any of these.
fn told_condition(rule: &Rule) -> String {
    let words = |tests: &Vec<Test>| {
        let mut parts: Vec<(u32, Is, Vec<String>)> = Vec::new();
        for test in tests {
            let value = value(test.argument, test.value);
            match parts.iter_mut().find(|(argument, is, _)| *argument == test.argument && *is == test.is) {
                Some((_, _, values)) => values.push(value),
                None => parts.push((test.argument, test.is, vec![value])),
            }
        }
        let parts = parts.iter().map(|(argument, is, values)| {
            let name = ["the family", "the type", "the protocol"][(*argument as usize).min(2)];
            let is = if *is == Is::Equal {
                "is"
            } else if values.len() == 1 {
                "is not"
            } else {
                "is none of"
            };
            format!("{name} {is} {}", values.join(", "))
        });
        parts.collect::<Vec<_>>().join(" and ")
    };
    rule.when.iter().map(words).collect::<Vec<_>>().join("; or ")
}

/// linux/socket.h, linux/net.h, linux/in.h
fn value(argument: u32, value: u32) -> String {
    let name = match (argument, value) {
        (0, 1) => "AF_UNIX",
        (0, 2) => "AF_INET",
        (0, 10) => "AF_INET6",
        (1, 1) => "SOCK_STREAM",
        (1, 2) => "SOCK_DGRAM",
        (1, 5) => "SOCK_SEQPACKET",
        (2, 6) => "IPPROTO_TCP",
        (2, 17) => "IPPROTO_UDP",
        _ => return value.to_string(),
    };
    name.to_owned()
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Enforced::Full => "in full",
            Enforced::Partly => "in part",
            Enforced::Not => "not at all",
        })
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            By::Template => "template",
            By::Child => "child",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{Connect, Opens, Profile};

    fn told(profile: &str, opens: Opens, abilities: &Abilities) -> Explanation {
        let plan = Plan { profile: Profile::named(profile).unwrap(), opens, ..Plan::default() };
        plan.explain(abilities).unwrap()
    }

    fn of(told: &Explanation, step: Step) -> Vec<&Explained> {
        told.steps.iter().filter(|one| one.step == step).collect()
    }

    #[test]
    fn none_has_the_contract_and_nothing_else() {
        let told = told("none", Opens::default(), &Abilities::of_landlock(0));
        let steps: Vec<_> = told.steps.iter().map(|one| (one.by, one.step)).collect();
        let contract = [
            Step::Session,
            Step::Descriptors,
            Step::Limits,
            Step::Identity,
            Step::Directory,
            Step::Umask,
            Step::Signals,
        ];
        assert_eq!(steps, contract.map(|step| (By::Child, step)));
        assert!(told.starts && told.missing.is_empty());
    }

    #[test]
    fn the_template_comes_before_the_children_and_each_of_its_steps_has_a_reason() {
        for profile in ["guarded", "sealed"] {
            let told = told(profile, Opens::default(), &Abilities::of_landlock(7));
            let first = told.steps.iter().position(|one| one.by == By::Child).unwrap();
            assert!(told.steps[first..].iter().all(|one| one.by == By::Child));
            for step in &told.steps[..first] {
                assert!(
                    step.reason.is_some() || step.items.iter().all(|item| item.reason.is_some()),
                    "{step:?}"
                );
                assert_eq!(step.enforced, Enforced::Full, "{step:?}");
            }
        }
    }

    #[test]
    fn every_call_that_the_filter_refuses_is_told_of() {
        for profile in ["guarded", "sealed"] {
            let all = told(profile, Opens::default(), &Abilities::of_landlock(7));
            let calls = of(&all, Step::Calls);
            for denial in &Profile::named(profile).unwrap().denials {
                for call in &denial.calls {
                    let known = |item: &Item| item.names.contains(call);
                    assert!(calls.iter().any(|one| one.items.iter().any(known)), "{profile}: {call}");
                }
            }
        }
    }

    #[test]
    fn what_is_opened_is_told_with_the_flag_that_opened_it() {
        let opens = Opens {
            write: vec!["/tmp".into()],
            calls: vec!["ptrace".into(), "listen".into()],
            connect: vec![Connect::Port(5432)],
            ..Opens::default()
        };
        let all = told("guarded", opens, &Abilities::of_landlock(7));
        let calls = of(&all, Step::Calls);
        let what = |call: &str| {
            let items = calls.iter().flat_map(|one| &one.items);
            items
                .filter(|item| item.names.iter().any(|name| name == call))
                .map(|item| item.what.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(what("ptrace"), ["allowed: --syscall"]);
        assert_eq!(what("bpf"), ["killed"]);
        assert_eq!(what("listen"), ["allowed: --syscall"]);
        assert_eq!(what("chmod"), ["allowed: --write"]);
        let rules = of(&all, Step::Rules);
        assert!(
            rules[0].items.iter().any(|item| item.names == ["/tmp"] && item.what.contains("write")),
            "{rules:?}"
        );
        assert_eq!(rules[1].items, [Item::new(&["5432"], "connect")]);
        let socket = calls[1].items.iter().find(|item| item.names == ["socket"]).unwrap();
        assert_eq!(
            socket.when.as_deref(),
            Some(
                "the family is none of AF_INET, AF_INET6; or the family is AF_INET and the type is not SOCK_STREAM; or the family is \
                  AF_INET and the protocol is none of 0, IPPROTO_TCP; or the family is AF_INET6 and the type is not SOCK_STREAM; or the \
                  family is AF_INET6 and the protocol is none of 0, IPPROTO_TCP"
            )
        );
    }

    #[test]
    fn an_older_landlock_enforces_a_part_and_none_nothing() {
        let enforced = |abi| {
            let all = told(
                "guarded",
                Opens { connect: vec![Connect::Port(80)], ..Opens::default() },
                &Abilities::of_landlock(abi),
            );
            of(&all, Step::Rules).iter().map(|one| one.enforced).collect::<Vec<_>>()
        };
        assert_eq!(enforced(7), [Enforced::Full; 3]);
        assert_eq!(enforced(2), [Enforced::Partly, Enforced::Not, Enforced::Partly]);
        let nothing = told("guarded", Opens::default(), &Abilities::of_landlock(0));
        assert!(!nothing.starts);
        assert_eq!(of(&nothing, Step::Rules)[0].enforced, Enforced::Not);
        assert!(of(&nothing, Step::Rules)[0].items.iter().any(|item| item.names == ["/"]));
    }

    #[test]
    fn where_there_is_no_namespace_sealed_says_so() {
        let none =
            Abilities { user_namespaces: Err(io::Error::from_raw_os_error(1)), ..Abilities::of_landlock(7) };
        let all = told("sealed", Opens::default(), &none);
        assert!(!all.starts);
        let namespaces = of(&all, Step::Namespaces);
        assert_eq!((namespaces.len(), namespaces[0].enforced), (1, Enforced::Not));
        assert!(of(&all, Step::World).is_empty() && of(&all, Step::Mounts).is_empty());
    }

    #[test]
    fn limits_of_a_group_take_controllers_that_are_handed_down() {
        let group = crate::Group { memory: Some(64 << 20), ..crate::Group::default() };
        let plan = Plan { group, ..Plan::default() };
        let told = |abilities: &Abilities| plan.explain(abilities).unwrap();
        let has = told(&Abilities::of_landlock(7));
        assert!(has.starts && has.steps[0].step == Step::Tree && has.steps[0].enforced == Enforced::Full);
        let has_not = told(&Abilities { controllers: vec!["pids".into()], ..Abilities::of_landlock(7) });
        assert!(!has_not.starts && has_not.steps[0].enforced == Enforced::Not);
        assert!(has_not.steps[0].what.contains("hands no memory down"), "{}", has_not.steps[0].what);
    }

    #[test]
    fn a_proc_that_is_covered_is_missing_where_one_is_wanted() {
        let covered =
            Abilities { processes: Err(io::Error::from_raw_os_error(1)), ..Abilities::of_landlock(7) };
        let all = told("sealed", Opens::default(), &covered);
        assert!(!all.starts);
        assert_eq!(of(&all, Step::Mounts)[0].enforced, Enforced::Partly);
        let mut plan = Plan { profile: Profile::named("sealed").unwrap(), ..Plan::default() };
        plan.world.own = vec![Layer::Pid];
        assert!(plan.explain(&covered).unwrap().starts);
    }
}
