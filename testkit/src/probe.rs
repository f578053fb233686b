//! The golden child: everything that a process can see about itself, as text to be compared with a committed
//! file.
//!
//! [`dump`] writes lines `key value` in a fixed order. What a machine decides (limits, capabilities, the
//! place in the control groups, but for the server's leaf that the child is in) is written as a comparison with the
//! parent, so that the file is the same on every machine; what a run decides (ports, pids, cookies, folders) is for [`normalise`].
//!
//! It reads /proc/self and makes system calls that change nothing. It is meant for a child of a server and
//! needs no thread, no signal and no memory that the child would not have. See proc_pid_status(5),
//! proc_pid_fdinfo(5).
//!
//! What it does not see: alarms and interval timers (getitimer(2)) and the session keyring, which have no
//! file in /proc that shows them, and nothing of what the process has not been given a way to read: that is
//! written as `unreadable`.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, getppid, pidfd_getfd, pidfd_open};

use crate::procfs;

/// Writes what this process sees of itself.
///
/// `own` says whose program this is. `true`: it was executed for this, so environment and arguments are
/// listed; of the signals those that Rust's start-up changes before `main` (PIPE ignored, SEGV and BUS
/// caught) cannot be told and are left out: serve `cat /proc/self/status` beside it, and compare [`signals`]
/// of that. `false`: it is a fork of the server's own program, so environment and arguments are compared with
/// the parent's, and signals are shown as they are.
pub fn dump(out: &mut impl Write, own: bool) -> io::Result<()> {
    // First of all, before any of the other reading opens something.
    let fds = procfs::fds(std::process::id()).unwrap_or_default();
    let me = Me::new();
    let mut lines = Vec::new();
    descriptors(&fds, &mut lines);
    lines.extend(signal_lines(&me.status, own));
    limits(&me, &mut lines);
    files(&me, &mut lines);
    identity(&me, &mut lines);
    surroundings(&me, &mut lines);
    scheduling(&me, &mut lines);
    if own {
        lines.extend(
            nul_separated("cmdline").iter().enumerate().map(|(i, arg)| (format!("argv.{i}"), shown(arg))),
        );
        lines.extend(environment());
    } else {
        lines.push(("argv".into(), me.same_as_parents("cmdline")));
        lines.push(("env".into(), me.same_as_parents("environ")));
    }
    let mut text = String::new();
    for (key, value) in lines {
        let value = if value.is_empty() { "\"\"" } else { &value };
        let _ = writeln!(text, "{key} {value}"); // a String takes everything
    }
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A line: its key, its value.
type Line = (String, String);

/// What several parts need.
struct Me {
    parent: Option<i32>,
    status: String,
    parents_status: String,
}

impl Me {
    fn new() -> Me {
        let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut me = Me { parent, status, parents_status: String::new() };
        me.parents_status = me.parents("status").unwrap_or_default();
        me
    }

    /// A file of the parent's in /proc, if it can be seen.
    fn parents(&self, file: &str) -> Option<String> {
        let bytes = fs::read(format!("/proc/{}/{file}", self.parent?)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A field of /proc/self/status.
    fn field(&self, name: &str) -> String {
        procfs::value_of(&self.status, name).map_or("unreadable".into(), plain)
    }

    /// The same field of the parent's.
    fn parents_field(&self, name: &str) -> Option<String> {
        procfs::value_of(&self.parents_status, name).map(plain)
    }

    /// On which processors the server may run: of an acceptor, which has one of them, its master.
    fn servers_processors(&self) -> Option<String> {
        let of = |status: &str, name| procfs::value_of(status, name).map(plain);
        let above = of(&self.parents_status, "PPid")
            .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
            .filter(|above| of(above, "Name") == of(&self.parents_status, "Name"));
        of(above.as_ref().unwrap_or(&self.parents_status), "Cpus_allowed")
    }

    /// Whether a file reads the same here and there.
    fn same_as_parents(&self, file: &str) -> String {
        let mine = fs::read(format!("/proc/self/{file}")).ok();
        compared(mine.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()), self.parents(file))
    }
}

/// `same`, `other` or `unreadable`.
fn compared(mine: Option<String>, parents: Option<String>) -> String {
    match (mine, parents) {
        (Some(mine), Some(parents)) if mine == parents => "same".into(),
        (Some(_), Some(_)) => "other".into(),
        _ => "unreadable".into(),
    }
}

/// A value as it is, or `parent` where it is not the plain one but was inherited: a machine may have its own.
fn unless_inherited(value: String, plain: &str, parents: Option<String>) -> String {
    if value != plain && Some(&value) == parents.as_ref() { "parent".into() } else { value }
}

/// One blank between words.
fn plain(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every open descriptor; then which of the first four are the same thing.
fn descriptors(fds: &std::collections::BTreeMap<i32, String>, lines: &mut Vec<Line>) {
    // A copy of any descriptor, got through a pidfd of our own: the only safe way to ask a socket by its
    // number.
    let own = pidfd_open(getpid(), PidfdFlags::empty()).ok();
    for (&fd, link) in fds {
        let copy = || pidfd_getfd(own.as_ref()?, fd, PidfdGetfdFlags::empty()).ok();
        let kind = if link.starts_with("socket:[") { socket(copy()) } else { kind(link) };
        lines.push((format!("fd.{fd}"), format!("{kind} {}", flags(fd))));
    }
    let id = |fd: i32| fs::metadata(format!("/proc/self/fd/{fd}")).ok().map(|meta| (meta.dev(), meta.ino()));
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        if let (true, true, Some(one), Some(other)) =
            (fds.contains_key(&a), fds.contains_key(&b), id(a), id(b))
        {
            lines.push((format!("same.{a}.{b}"), if one == other { "yes" } else { "no" }.into()));
        }
    }
}

/// `pipe:[4711]` is a `pipe`, `anon_inode:[eventfd]` an `anon:[eventfd]`, and a path is itself.
fn kind(link: &str) -> String {
    if let Some(name) = link.strip_prefix("anon_inode:") {
        return format!("anon:[{}]", name.trim_matches(['[', ']']));
    }
    match link.split_once(":[") {
        Some((kind, inode)) if inode.trim_end_matches(']').bytes().all(|b| b.is_ascii_digit()) => {
            kind.to_owned()
        }
        _ => shown(link.as_bytes()),
    }
}

/// `socket:inet:stream`, with `:listening` if it does.
fn socket(copy: Option<OwnedFd>) -> String {
    let Some(copy) = copy else { return "socket:unreadable".into() };
    let family = match sockopt::socket_domain(copy.as_fd()) {
        Ok(AddressFamily::UNIX) => "unix".into(),
        Ok(AddressFamily::INET) => "inet".into(),
        Ok(AddressFamily::INET6) => "inet6".into(),
        Ok(other) => format!("family-{}", other.as_raw()),
        Err(_) => "unreadable".into(),
    };
    let kind = match sockopt::socket_type(copy.as_fd()) {
        Ok(SocketType::STREAM) => "stream".into(),
        Ok(SocketType::DGRAM) => "datagram".into(),
        Ok(SocketType::SEQPACKET) => "seqpacket".into(),
        Ok(other) => format!("type-{}", other.as_raw()),
        Err(_) => "unreadable".into(),
    };
    let listening = if sockopt::socket_acceptconn(copy.as_fd()) == Ok(true) { ":listening" } else { "" };
    format!("socket:{family}:{kind}{listening}")
}

/// Access, blocking or not, and what else /proc/self/fdinfo tells of how it was opened.
fn flags(fd: i32) -> String {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let octal = procfs::value_of(&info, "flags").and_then(|flags| u32::from_str_radix(flags, 8).ok());
    let Some(flags) = octal else { return "unreadable".into() };
    let mut words = vec![["read", "write", "read+write", "no-access"][(flags & 3) as usize]];
    words.push(if flags & 0o4000 == 0 { "blocking" } else { "nonblocking" });
    let others = [(0o2000, "append"), (0o20000, "async"), (0o10000000, "path"), (0o2000000, "close-on-exec")];
    words.extend(others.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, word)| *word));
    words.join(" ")
}

/// The signal sets in a text like /proc/PID/status, as the lines that [`dump`] writes.
pub fn signals(status: &str) -> String {
    let lines = signal_lines(status, false).into_iter();
    lines.map(|(key, value)| format!("{key} {value}\n")).collect()
}

fn signal_lines(status: &str, own: bool) -> Vec<Line> {
    const PIPE: u64 = 1 << (13 - 1);
    const SEGV_BUS: u64 = 1 << (11 - 1) | 1 << (7 - 1);
    let sets = [
        ("blocked", "SigBlk", 0),
        ("ignored", "SigIgn", PIPE),
        ("caught", "SigCgt", SEGV_BUS),
        ("pending", "SigPnd", 0),
        ("pending-shared", "ShdPnd", 0),
    ];
    let line = |(word, field, by_rust): (&str, &str, u64)| {
        let set = procfs::value_of(status, field).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let value =
            set.map(|set| if own { set & !by_rust } else { set }).map_or("unreadable".into(), signal_names);
        (format!("signals.{word}"), value)
    };
    sets.into_iter().map(line).collect()
}

/// `none`, or names in the order of their numbers.
fn signal_names(set: u64) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let name =
        |number: usize| NAMES.get(number).map_or_else(|| (number + 1).to_string(), |name| (*name).to_owned());
    let names: Vec<String> = (0..64).filter(|number| set >> number & 1 == 1).map(name).collect();
    if names.is_empty() { "none".into() } else { names.join(" ") }
}

/// Each limit as `soft:hard`. A hard limit equal to the parent's is `parent`, and so is a soft one equal to
/// such a hard one: how much a machine allows is its own.
fn limits(me: &Me, lines: &mut Vec<Line>) {
    let mine = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let parents = me.parents("limits").unwrap_or_default();
    for (name, soft, hard) in mine.lines().skip(1).filter_map(limit) {
        let inherited =
            parents.lines().filter_map(limit).any(|(other, _, theirs)| other == name && theirs == hard);
        let hard_shown = if inherited { "parent" } else { hard };
        let soft_shown = if soft == hard { hard_shown } else { soft };
        lines.push((format!("limit.{}", name.replace(' ', "-")), format!("{soft_shown}:{hard_shown}")));
    }
}

/// `Max open files            1024                 4096                 files` in its three parts.
fn limit(line: &str) -> Option<(&str, &str, &str)> {
    let (name, values) = line.strip_prefix("Max ")?.split_once("  ")?;
    let mut values = values.split_whitespace();
    Some((name.trim(), values.next()?, values.next()?))
}

/// Where it is and what it may create.
fn files(me: &Me, lines: &mut Vec<Line>) {
    let link =
        |name: &str| fs::read_link(format!("/proc/self/{name}")).map_or("unreadable".into(), shown_path);
    lines.push(("umask".into(), me.field("Umask")));
    lines.push(("cwd".into(), link("cwd")));
    lines.push(("root".into(), link("root")));
    lines.push(("mounts".into(), me.same_as_parents("mountinfo")));
}

/// Who it is and what it may do.
fn identity(me: &Me, lines: &mut Vec<Line>) {
    lines.extend(["Uid", "Gid", "Groups"].map(|name| (name.to_lowercase(), me.field(name))));
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let value = unless_inherited(me.field(name), "0000000000000000", me.parents_field(name));
        lines.push((format!("capabilities.{}", name[3..].to_lowercase()), value));
    }
    for (key, name) in
        [("no-new-privs", "NoNewPrivs"), ("seccomp", "Seccomp"), ("seccomp-filters", "Seccomp_filters")]
    {
        lines.push((key.into(), unless_inherited(me.field(name), "0", me.parents_field(name))));
    }
    let or_unreadable = |value: Option<String>| value.unwrap_or_else(|| "unreadable".into());
    let bits = rustix::thread::capabilities_secure_bits().ok().map(|bits| format!("{:#x}", bits.bits()));
    lines.push(("securebits".into(), or_unreadable(bits)));
    let dumpable = rustix::process::dumpable_behavior().ok().map(|how| format!("{how:?}"));
    lines.push(("dumpable".into(), or_unreadable(dumpable)));
    let signal = rustix::process::parent_process_death_signal().ok();
    let signal = signal.map(|signal| signal.map_or("none".into(), |signal| format!("{signal:?}")));
    lines.push(("parent-death-signal".into(), or_unreadable(signal)));
}

/// Namespaces, cgroup, session, terminal.
fn surroundings(me: &Me, lines: &mut Vec<Line>) {
    for name in
        ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"]
    {
        let link = |of: String| fs::read_link(format!("/proc/{of}/ns/{name}")).ok().map(shown_path);
        let parents = me.parent.and_then(|pid| link(pid.to_string()));
        lines.push((format!("namespace.{}", name.replace('_', "-")), compared(link("self".into()), parents)));
    }
    let cgroup = fs::read_to_string("/proc/self/cgroup").ok().map(|text| without_leaf(&text, me.parent));
    lines.push(("cgroup".into(), compared(cgroup, me.parents("cgroup"))));
    lines.push(("parent".into(), if me.parent.is_some() { "visible" } else { "invisible" }.into()));
    let stat = stat_fields("self");
    let field = |number: usize| stat.get(number - 3).cloned().unwrap_or_else(|| "unreadable".into());
    let me_or = |number| if field(number) == std::process::id().to_string() { "leader" } else { "member" };
    lines.push(("process-group".into(), me_or(5).into()));
    lines.push(("session".into(), me_or(6).into()));
    lines.push(("terminal".into(), if field(7) == "0" { "none".into() } else { field(7) }));
}

/// A text like /proc/PID/cgroup without the leaf `tine-PARENT/N` that a server has its child in, below its own group: where
/// a machine lets it make none it has no such leaf, and the child is where its parent is.
fn without_leaf(text: &str, parent: Option<i32>) -> String {
    let Some(name) = parent.map(|pid| format!("tine-{pid}")) else { return text.to_owned() };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let home = |path: &str| {
        let (group, leaf) = path.rsplit_once('/')?;
        let (home, group) = group.rsplit_once('/')?;
        let rest = group.strip_prefix(&name)?;
        let own = rest.is_empty() || rest.strip_prefix('-').is_some_and(is_number);
        (own && is_number(leaf)).then(|| if home.is_empty() { "/".to_owned() } else { home.to_owned() })
    };
    let line = |line: &str| match line.strip_prefix("0::").and_then(home) {
        Some(home) => format!("0::{home}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// How it runs.
fn scheduling(me: &Me, lines: &mut Vec<Line>) {
    let file = |name: &str| {
        fs::read_to_string(format!("/proc/self/{name}")).map_or("unreadable".into(), |s| plain(&s))
    };
    let against = |name: &str, usual: &str| {
        unless_inherited(file(name), usual, me.parents(name).map(|value| plain(&value)))
    };
    lines.push(("oom-score-adjust".into(), against("oom_score_adj", "0")));
    let (stat, parents) =
        (stat_fields("self"), me.parent.map(|pid| stat_fields(&pid.to_string())).unwrap_or_default());
    for (key, number) in [("nice", 19), ("realtime-priority", 40), ("scheduling-policy", 41)] {
        let value = stat.get(number - 3).cloned().unwrap_or_else(|| "unreadable".into());
        lines.push((key.into(), unless_inherited(value, "0", parents.get(number - 3).cloned())));
    }
    let processors = compared(Some(me.field("Cpus_allowed")), me.servers_processors());
    lines.push(("processors".into(), processors));
    let slack = rustix::thread::current_timer_slack().map_or("unreadable".into(), |slack| slack.to_string());
    lines.push(("timer-slack-ns".into(), slack));
    let timers = fs::read_to_string("/proc/self/timers")
        .map(|text| text.lines().filter(|l| l.starts_with("ID:")).count());
    lines.push(("timers".into(), timers.map_or("unreadable".into(), |count| count.to_string())));
    lines.push(("personality".into(), file("personality")));
    lines.push(("core-dump-filter".into(), against("coredump_filter", "00000033")));
    lines.push(("threads".into(), me.field("Threads")));
}

/// The fields of a process's stat from the third on.
fn stat_fields(of: &str) -> Vec<String> {
    let pid = if of == "self" { std::process::id() } else { of.parse().unwrap_or(0) };
    procfs::stat(pid).map(|stat| stat.fields).unwrap_or_default()
}

/// The environment that the process was started with, sorted.
fn environment() -> Vec<Line> {
    let mut entries: Vec<Line> = nul_separated("environ")
        .iter()
        .map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=').unwrap_or(entry.len());
            (format!("env.{}", shown(&entry[..at])), shown(entry.get(at + 1..).unwrap_or_default()))
        })
        .collect();
    entries.sort();
    entries
}

fn nul_separated(file: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(format!("/proc/self/{file}")).unwrap_or_default();
    let mut entries: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    entries.pop_if(|last| last.is_empty()); // what comes after the last NUL
    entries
}

/// Text on one line, with everything but plain printable characters escaped.
fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"")
}

fn shown_path(path: std::path::PathBuf) -> String {
    shown(path.as_os_str().as_encoded_bytes())
}

/// `text` with each volatile value replaced by a name for it. Earlier pairs win; put longer values first
/// where one is part of another.
pub fn normalise(text: &str, names: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (value, name) in names.iter().filter(|(value, _)| !value.is_empty()) {
        text = text.replace(value, name);
    }
    text
}

/// Compares with a committed file, byte for byte; with `TINE_BLESS=1` in the environment rewrites the file
/// instead.
///
/// Panics with the lines that differ.
pub fn compare_golden(path: impl AsRef<Path>, actual: &str) {
    let path = path.as_ref();
    if std::env::var_os("TINE_BLESS").is_some_and(|value| value == "1") {
        fs::write(path, actual).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        return;
    }
    if let Err(difference) = golden_difference(path, actual) {
        panic!("{difference}\n(if this is right: run the test again with TINE_BLESS=1 and commit the file)");
    }
}

fn golden_difference(path: &Path, actual: &str) -> Result<(), String> {
    let expected = match fs::read(path) {
        Ok(bytes) if bytes == actual.as_bytes() => return Ok(()),
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => return Err(format!("read {}: {error}; the test has:\n{actual}", path.display())),
    };
    Err(format!("{} differs:\n{}", path.display(), line_diff(&expected, actual)))
}

/// The lines of both texts, `-` for those of the first only, `+` for those of the second only; others within
/// three lines of one.
fn line_diff(expected: &str, actual: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (expected.split('\n').collect(), actual.split('\n').collect());
    // The longest common subsequence, from the ends: texts of some hundred lines, so the table is small.
    let mut common = vec![vec![0_u32; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let skip = common[i + 1][j].max(common[i][j + 1]);
            common[i][j] = if old[i] == new[j] { common[i + 1][j + 1] + 1 } else { skip };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || i < old.len() && common[i + 1][j] >= common[i][j + 1] {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    let near =
        |at: usize| lines[at.saturating_sub(3)..lines.len().min(at + 4)].iter().any(|(mark, _)| *mark != ' ');
    let shown = (0..lines.len()).filter(|at| near(*at)).map(|at| format!("{}{}\n", lines[at].0, lines[at].1));
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dumped(own: bool) -> String {
        let mut out = Vec::new();
        dump(&mut out, own).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
    }

    #[test]
    fn a_dump_of_this_process_has_every_part() {
        let text = dumped(true);
        for key in [
            "fd.0",
            "fd.1",
            "fd.2",
            "signals.blocked",
            "signals.ignored",
            "limit.open-files",
            "limit.core-file-size",
            "umask",
            "cwd",
            "root",
            "mounts",
            "uid",
            "gid",
            "groups",
            "capabilities.eff",
            "capabilities.amb",
            "no-new-privs",
            "seccomp",
            "securebits",
            "dumpable",
            "parent-death-signal",
            "namespace.net",
            "cgroup",
            "process-group",
            "session",
            "terminal",
            "oom-score-adjust",
            "nice",
            "scheduling-policy",
            "processors",
            "timer-slack-ns",
            "timers",
            "personality",
            "threads",
            "argv.0",
            "env.PATH",
        ] {
            let value = value(&text, key);
            assert!(value.is_some_and(|value| value != "unreadable"), "{key}: {value:?} in\n{text}");
        }
        assert_eq!(value(&text, "cwd"), std::env::current_dir().unwrap().to_str());
    }

    #[test]
    fn descriptors_are_told_by_kind_and_flags() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (pair, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (pipe, _end) = io::pipe().unwrap();
        let null = fs::OpenOptions::new().append(true).open("/dev/null").unwrap();
        let text = dumped(true);
        use std::os::fd::AsRawFd;
        let line = |fd: i32| value(&text, &format!("fd.{fd}")).unwrap();
        assert_eq!(
            line(listener.as_raw_fd()),
            "socket:inet:stream:listening read+write nonblocking close-on-exec"
        );
        assert_eq!(line(pair.as_raw_fd()), "socket:unix:stream read+write blocking close-on-exec");
        assert_eq!(line(pipe.as_raw_fd()), "pipe read blocking close-on-exec");
        assert_eq!(line(null.as_raw_fd()), "/dev/null write blocking append close-on-exec");
    }

    #[test]
    fn two_dumps_of_an_executed_program_are_the_same_bytes() {
        let golden = || {
            let mut command = std::process::Command::new(crate::example("tine-testkit", "golden"));
            command.env_clear().env("B", "1\n2").env("A", "").stdin(std::process::Stdio::null());
            String::from_utf8(command.output().unwrap().stdout).unwrap()
        };
        let text = golden();
        assert_eq!(text, golden());
        assert!(text.ends_with("env.A \"\"\nenv.B 1\\n2\n"), "{text}");
        // More descriptors may be there: the test's own parent may have left some open.
        assert_eq!(value(&text, "fd.0"), Some("/dev/null read blocking"));
        assert_eq!(value(&text, "fd.1"), Some("pipe write blocking"));
        assert_eq!(value(&text, "same.0.1"), Some("no"));
        assert!(!text.contains(" /proc/"), "the descriptor that lists the others is not one of them: {text}");
        // PIPE, which Rust's start-up ignores, is left out; 32 and 33 are ignored by glibc's posix_spawn(3).
        assert!(["none", "32 33"].contains(&value(&text, "signals.ignored").unwrap()), "{text}");
        let parent = value(&text, "limit.open-files").unwrap();
        assert!(parent.ends_with(":parent"), "{parent}");
    }

    #[test]
    fn a_fork_compares_instead_of_listing() {
        let text = dumped(false);
        assert!(!text.contains("\nenv.") && !text.contains("\nargv."));
        assert!(value(&text, "env").is_some() && value(&text, "argv").is_some());
    }

    #[test]
    fn the_leaf_of_a_child_is_no_other_place() {
        let of = |path: &str| without_leaf(&format!("8:pids:/a\n0::{path}\n"), Some(17));
        for (path, home) in [
            ("/tine-17/0", "/"),
            ("/tine-17-2/41", "/"),
            ("/system.slice/x.service/tine-17/3", "/system.slice/x.service"),
            ("/tine-18/0", "/tine-18/0"),
            ("/tine-170/0", "/tine-170/0"),
            ("/tine-17/x", "/tine-17/x"),
            ("/tine-17", "/tine-17"),
            ("/tine-17/0/below", "/tine-17/0/below"),
        ] {
            assert_eq!(of(path), format!("8:pids:/a\n0::{home}\n"));
        }
    }

    #[test]
    fn signal_sets_have_names() {
        let status = "SigPnd:\t0000000000000000\nShdPnd:\t0\n\
                      SigBlk:\t0000000000004001\nSigIgn:\t8000000000001000\nSigCgt:\t440\n";
        let expected = "signals.blocked HUP TERM\nsignals.ignored PIPE 64\nsignals.caught BUS SEGV\n\
                        signals.pending none\nsignals.pending-shared none\n";
        assert_eq!(signals(status), expected);
        let own: Vec<String> = signal_lines(status, true).into_iter().map(|line| line.1).collect();
        assert_eq!(own, ["HUP TERM", "64", "none", "none", "none"]);
    }

    #[test]
    fn volatile_values_get_names() {
        let names = [("40123", "PORT"), ("", "NOTHING"), ("/tmp/x", "TEMP")];
        assert_eq!(normalise("a 40123 /tmp/x/y", &names), "a PORT TEMP/y");
    }

    #[test]
    fn a_golden_file_is_compared_byte_for_byte() {
        let path = std::env::temp_dir().join(format!("tine-testkit-golden-{}", std::process::id()));
        let old: String = (0..20).map(|line| format!("line {line}\n")).collect();
        fs::write(&path, &old).unwrap();
        assert_eq!(golden_difference(&path, &old), Ok(()));
        let new = old.replace("line 9\n", "line nine\n").replace("line 19\n", "");
        let difference = golden_difference(&path, &new).unwrap_err();
        assert!(difference.contains(" line 8\n-line 9\n+line nine\n line 10\n"), "{difference}");
        assert!(difference.contains("-line 19\n") && !difference.contains("line 3\n"), "{difference}");
        assert!(golden_difference(&path, old.trim_end()).is_err(), "a missing end of line is a difference");
        fs::remove_file(&path).unwrap();
        assert!(
            golden_difference(&path, &old).unwrap_err().contains("line 0"),
            "a missing file shows what it would be"
        );
    }
}
