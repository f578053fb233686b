//! `tine doctor`: what this system, and this process in it, can do; which profiles work; and what to change, by name.
//!
//! [`Facts::look`] looks and changes nothing; what is made of it, [`examine`], is a function of the facts.

use std::fs;

use serde::Serialize;
use tine::{Abilities, Connect, Missing, Opens, Profile};
use tine_os::cgroup::{self, Standing};
use tine_os::limit::{self, Resource};
use tine_os::{identity, seccomp};

use crate::exit::{self, Failure, Outcome};
use crate::flags::Doctor;
use crate::page::paragraph;

/// The profile that is taken unless another one is named.
const DEFAULT: &str = "guarded";

/// Children of a server that says nothing else, and the descriptors that it has beside them.
const CHILDREN: u64 = 256;
const DESCRIPTORS: u64 = 65;

/// What waits in the queue of a listener that says nothing else.
const BACKLOG: u64 = 4096;

/// What was found.
#[derive(Debug)]
struct Facts {
    kernel: String,
    abilities: Abilities,
    /// Whether this process wears a filter that is not ours.
    filtered: bool,
    uid: u32,
    groups: Result<Standing, String>,
    /// The hard limit on descriptors; `None` is unlimited.
    descriptors: Option<u64>,
    somaxconn: Option<u64>,
    pids: Option<u64>,
    threads: Option<u64>,
    yama: Option<u64>,
    memfd: Option<u64>,
}

/// What is made of it.
#[derive(Debug, Serialize)]
struct Report {
    works: bool,
    findings: Vec<Finding>,
    profiles: Vec<Verdict>,
}

/// One layer.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    state: State,
    what: String,
    /// What it does, and what not.
    details: Vec<Detail>,
    /// What to do about it.
    advice: Option<String>,
}

#[derive(Debug, Serialize)]
struct Detail {
    done: bool,
    what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// It could be better.
    Partly,
    No,
}

/// Whether a profile works.
#[derive(Debug, Serialize)]
struct Verdict {
    profile: String,
    works: bool,
    full: bool,
    missing: Vec<Missing>,
    /// Missing as soon as `--connect PORT` is given.
    missing_with_connect: Vec<Missing>,
}

/// Looks, and tells.
pub fn doctor(flags: &Doctor) -> Outcome {
    let report = examine(&Facts::look());
    if flags.json {
        exit::print_json(&report)?;
    } else {
        exit::print(page(&report).as_bytes())?;
    }
    match report.works {
        true => Ok(()),
        false => Err(Failure::system(format_args!(
            "doctor: the default profile, {DEFAULT}, does not work on this system; what it takes is above"
        ))),
    }
}

impl Facts {
    fn look() -> Facts {
        let text = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let number = |path: &str| text(path).and_then(|text| text.parse().ok());
        Facts {
            kernel: text("/proc/sys/kernel/osrelease")
                .unwrap_or_else(|| "unknown: /proc is not mounted".to_owned()),
            abilities: Abilities::look(),
            filtered: seccomp::is_worn().unwrap_or(false),
            uid: identity::effective_uid(),
            groups: cgroup::standing().map_err(|why| tine_os::plain(&why)),
            descriptors: limit::get(Resource::Nofile).maximum,
            somaxconn: number("/proc/sys/net/core/somaxconn"),
            pids: number("/proc/sys/kernel/pid_max"),
            threads: number("/proc/sys/kernel/threads-max"),
            yama: number("/proc/sys/kernel/yama/ptrace_scope"),
            memfd: number("/proc/sys/vm/memfd_noexec"),
        }
    }
}

fn examine(facts: &Facts) -> Report {
    let findings = vec![
        kernel(facts),
        landlock(facts.abilities.landlock),
        filters(facts),
        privileges(facts),
        namespaces(&facts.abilities),
        processes(&facts.abilities),
        groups(&facts.groups),
        descriptors(facts.descriptors),
        queue(facts.somaxconn),
        room(facts),
        tracing(facts.yama),
        memory(facts.memfd),
    ];
    let profiles: Vec<_> = ["none", DEFAULT, "sealed"].map(|name| verdict(name, &facts.abilities)).into();
    let works = profiles.iter().any(|one| one.profile == DEFAULT && one.works);
    Report { works, findings, profiles }
}

fn finding(name: &'static str, state: State, what: impl Into<String>, advice: Option<&str>) -> Finding {
    Finding { name, state, what: what.into(), details: vec![], advice: advice.map(str::to_owned) }
}

fn kernel(facts: &Facts) -> Finding {
    let what = format!("Linux {} on {}", facts.kernel, std::env::consts::ARCH);
    let mut numbers =
        facts.kernel.split(|c: char| !c.is_ascii_digit()).map_while(|word| word.parse::<u32>().ok());
    let old = numbers.next().zip(numbers.next()).is_some_and(|version| version < (6, 1));
    match old {
        true => finding("kernel", State::No, what, Some("Linux 6.1 or later: older ones are not tried")),
        false => finding("kernel", State::Ok, what, None),
    }
}

fn landlock(abi: u32) -> Finding {
    // What it does from an ABI on, and what is so before.
    let all = [
        (1, "files and directories: read, list, write, make, remove, execute", "", "5.13"),
        (2, "files moved between directories", "it is refused, even where both may be written to", "5.19"),
        (3, "files truncated", "whoever owns a file can truncate it, although it may only be read", "6.2"),
        (4, "TCP ports", "--connect PORT opens every port", "6.7"),
        (5, "commands to devices (ioctl)", "a device that may be opened takes any", "6.10"),
        (
            6,
            "scope: signals to others, abstract sockets of others",
            "children of one user can signal each other",
            "6.12",
        ),
    ];
    let details = all.map(|(since, what, before, version)| match abi >= since {
        true => Detail { done: true, what: what.to_owned() },
        false if before.is_empty() => {
            Detail { done: false, what: format!("{what} (ABI {since}, Linux {version})") }
        }
        false => Detail { done: false, what: format!("{what} (ABI {since}, Linux {version}): {before}") },
    });
    let (state, what, advice) = match abi {
        0 => (
            State::No,
            "not there".to_owned(),
            Some(
                "a kernel with CONFIG_SECURITY_LANDLOCK=y, started with landlock in lsm= (cat /sys/kernel/security/lsm says what it has); in a container, a seccomp profile that allows landlock_create_ruleset(2)",
            ),
        ),
        1..6 => (State::Partly, format!("ABI {abi}"), Some("Linux 6.12 or later does all of it")),
        _ => (State::Ok, format!("ABI {abi}"), None),
    };
    Finding { details: details.into(), ..finding("Landlock", state, what, advice) }
}

fn filters(facts: &Facts) -> Finding {
    let worn =
        if facts.filtered { "; this process wears one already, as containers and units do" } else { "" };
    match facts.abilities.filters {
        true => finding("seccomp", State::Ok, format!("filters of system calls{worn}"), None),
        false => {
            let advice = "a kernel with CONFIG_SECCOMP_FILTER=y, on x86-64 or 64-bit Arm";
            finding("seccomp", State::No, format!("no filters of system calls{worn}"), Some(advice))
        }
    }
}

fn privileges(facts: &Facts) -> Finding {
    match (facts.abilities.privileged, facts.uid) {
        (true, _) => {
            let what = "root, with CAP_SYS_ADMIN, CAP_SETUID and CAP_SETPCAP: --user, and with sealed a user for each child";
            finding("privileges", State::Ok, what, None)
        }
        (false, 0) => {
            let what = "root, but without all of CAP_SYS_ADMIN, CAP_SETUID and CAP_SETPCAP: sealed works by a user namespace alone, as for an ordinary user";
            let advice = "docker, podman: --cap-add SYS_ADMIN; Kubernetes: capabilities.add in securityContext; systemd: CapabilityBoundingSet=; or leave it: no profile needs them";
            finding("privileges", State::Partly, what, Some(advice))
        }
        (false, uid) => {
            let what = format!("user {uid}: no --user, and with sealed all children have this user");
            finding(
                "privileges",
                State::Partly,
                what,
                Some("tine as root, if children are to be users of their own; no profile needs it"),
            )
        }
    }
}

fn namespaces(abilities: &Abilities) -> Finding {
    let name = "user namespaces";
    match &abilities.user_namespaces {
        Ok(()) => finding(name, State::Ok, "can be made, with others in them", None),
        Err(why) => {
            let what = format!("cannot be made with others in them: {}", tine_os::plain(why));
            finding(name, State::No, what, Some(&tine_os::namespace::advice(why)))
        }
    }
}

fn processes(abilities: &Abilities) -> Finding {
    let name = "/proc of one's own";
    match (&abilities.user_namespaces, &abilities.processes) {
        (Err(_), _) => finding(name, State::No, "not tried, for want of user namespaces", None),
        (_, Ok(())) => finding(name, State::Ok, "can be mounted in a pid namespace", None),
        (_, Err(why)) if tine_os::namespace::is_shortage(why) => {
            let what = format!("a pid namespace for it cannot be made: {}", tine_os::plain(why));
            finding(name, State::No, what, Some(&tine_os::namespace::advice(why)))
        }
        (_, Err(why)) => {
            let what = format!(
                "cannot be mounted: {}; parts of /proc are covered, as containers and units do it",
                tine_os::plain(why)
            );
            let advice = "docker: --security-opt systempaths=unconfined; podman: --security-opt unmask=ALL; Kubernetes: procMount: Unmasked, \
                          with hostUsers: false; systemd: ProtectKernelTunables=no, ProtectKernelLogs=no, ProtectProc=default";
            finding(name, State::No, what, Some(advice))
        }
    }
}

/// What has to be done to limit connections by groups.
const DELEGATE: &str = "systemd: Delegate=yes in the unit, or systemd-run --scope -p Delegate=yes; docker, podman: --cgroupns=private with a \
     writable /sys/fs/cgroup (docker: --security-opt writable-cgroups=true; podman: --security-opt unmask=/sys/fs/cgroup); Kubernetes: \
     cgroup_writable = true of the runtime in containerd's configuration; needed for --memory, --pids and --cpu only";

fn groups(found: &Result<Standing, String>) -> Finding {
    const NAME: &str = "control groups";
    let standing = match found {
        Ok(standing) => standing,
        Err(why) => {
            let advice = "mount version 2 (boot with systemd.unified_cgroup_hierarchy=1); without it, what a program starts is held together by subreapers, and there is no --memory, --pids and --cpu";
            return finding(NAME, State::Partly, format!("none of version 2: {why}"), Some(advice));
        }
    };
    let wanted = ["memory", "pids", "cpu"];
    let details = wanted.map(|name| {
        let done = standing.controllers.iter().any(|there| there == name);
        Detail { done, what: format!("{name}: --{name}") }
    });
    let lacks = details.iter().any(|detail| !detail.done);
    let handed = match &standing.controllers[..] {
        [] => "no controller is handed down".to_owned(),
        some => format!("handed down: {}", some.join(", ")),
    };
    let mut what = format!("version 2, {}; {handed}; ", standing.path.display());
    what += if standing.delegated { "delegated to this process" } else { "not delegated to this process" };
    let crowded = standing.others > 0 && !standing.root;
    if crowded {
        what += &format!(
            "; {} others are in it, and only a group that nobody else is in hands controllers down",
            standing.others
        );
    }
    let (state, advice) = match (standing.delegated, lacks, crowded) {
        (true, false, false) => (State::Ok, None),
        (true, true, _) if standing.root => {
            let advice = "version 1 has the others (boot with systemd.unified_cgroup_hierarchy=1), or they are switched off (cgroup_disable= in /proc/cmdline); needed for --memory, --pids and --cpu only";
            (State::Partly, Some(advice))
        }
        _ => (State::Partly, Some(DELEGATE)),
    };
    Finding { details: details.into(), ..finding(NAME, state, what, advice) }
}

fn descriptors(most: Option<u64>) -> Finding {
    let advice =
        "systemd: LimitNOFILE=65536; docker, podman: --ulimit nofile=65536; else ulimit -Hn 65536 as root";
    match most {
        None => finding("descriptors", State::Ok, "without limit", None),
        Some(most) => {
            let children = most.saturating_sub(DESCRIPTORS);
            let what = format!("at most {most} (RLIMIT_NOFILE): room for some {children} children at once");
            let state = if children < CHILDREN { State::No } else { State::Ok };
            finding("descriptors", state, what, (state == State::No).then_some(advice))
        }
    }
}

fn queue(most: Option<u64>) -> Finding {
    match most {
        None => finding("queue", State::Ok, "net.core.somaxconn cannot be read", None),
        Some(most) if most >= BACKLOG => finding(
            "queue",
            State::Ok,
            format!("net.core.somaxconn = {most}: so many clients can wait at a listener"),
            None,
        ),
        Some(most) => {
            let what = format!("net.core.somaxconn = {most}: the kernel cuts --backlog {BACKLOG} down to it");
            let advice = format!(
                "sysctl -w net.core.somaxconn={BACKLOG}; docker, podman: --sysctl net.core.somaxconn={BACKLOG}; Kubernetes: sysctls in securityContext"
            );
            finding("queue", State::Partly, what, Some(&advice))
        }
    }
}

fn room(facts: &Facts) -> Finding {
    let told = |name: &str, number: Option<u64>| {
        format!("{name} = {}", number.map_or("unknown".to_owned(), |n| n.to_string()))
    };
    let what =
        format!("{}, {}", told("kernel.pid_max", facts.pids), told("kernel.threads-max", facts.threads));
    let least = [facts.pids, facts.threads].into_iter().flatten().min();
    // A child, what it starts, and what else runs on the machine.
    let (state, advice) = match least {
        Some(least) if least < 4 * CHILDREN => {
            (State::Partly, Some("sysctl -w kernel.pid_max=4194304 kernel.threads-max=4194304"))
        }
        _ => (State::Ok, None),
    };
    finding("processes", state, what, advice)
}

fn tracing(scope: Option<u64>) -> Finding {
    const ADVICE: &str = "sysctl -w kernel.yama.ptrace_scope=1; with guarded and sealed Landlock keeps children apart in any case";
    match scope {
        None => finding(
            "Yama",
            State::Partly,
            "not there: with --confine none, children of one user can trace each other",
            Some(
                "a kernel with CONFIG_SECURITY_YAMA=y; with guarded and sealed Landlock keeps children apart in any case",
            ),
        ),
        Some(0) => finding(
            "Yama",
            State::Partly,
            "kernel.yama.ptrace_scope = 0: with --confine none, children of one user can trace each other",
            Some(ADVICE),
        ),
        Some(scope) => finding(
            "Yama",
            State::Ok,
            format!("kernel.yama.ptrace_scope = {scope}: no process traces one that is not its own"),
            None,
        ),
    }
}

fn memory(noexec: Option<u64>) -> Finding {
    let opens =
        "what a program writes into memory can be executed (memfd_create, fexecve), whatever --exec says";
    match noexec {
        Some(2..) => {
            // The init of a sealed child is such a file.
            let what = "vm.memfd_noexec = 2: files in memory cannot be executed, the init of --confine sealed among them";
            finding(
                "memfd",
                State::Partly,
                what,
                Some("--init no with --confine sealed, or sysctl -w vm.memfd_noexec=1"),
            )
        }
        Some(now) => {
            let what = format!("vm.memfd_noexec = {now}: {opens}");
            finding(
                "memfd",
                State::Partly,
                what,
                Some(
                    "sysctl -w vm.memfd_noexec=2, where nothing on the machine needs them; --confine sealed takes --init no then",
                ),
            )
        }
        None => finding(
            "memfd",
            State::Partly,
            format!("vm.memfd_noexec is not there: {opens}"),
            Some(
                "Linux 6.3 or later, with sysctl -w vm.memfd_noexec=2; --confine sealed takes --init no then",
            ),
        ),
    }
}

fn verdict(name: &str, abilities: &Abilities) -> Verdict {
    let profile = Profile::named(name).expect("it comes with tine");
    let missing = abilities.missing(&profile, &Opens::default());
    let connecting = Opens { connect: vec![Connect::Port(1)], ..Opens::default() };
    let mut with_connect = abilities.missing(&profile, &connecting);
    with_connect.retain(|one| !missing.contains(one));
    Verdict {
        profile: name.to_owned(),
        works: !missing.iter().any(|one| one.refuses),
        full: missing.is_empty(),
        missing,
        missing_with_connect: with_connect,
    }
}

/// Where the second column begins.
const COLUMN: usize = 28;

fn page(report: &Report) -> String {
    let (mut page, blank) = (String::new(), " ".repeat(COLUMN));
    for one in &report.findings {
        let state = match one.state {
            State::Ok => "ok",
            State::Partly => "partly",
            State::No => "no",
        };
        paragraph(&mut page, &format!("{state:<8}{:<20}", one.name), COLUMN, &one.what);
        for detail in &one.details {
            let head = if detail.done { "yes  " } else { "no   " };
            paragraph(&mut page, &format!("{blank}{head}"), COLUMN + 5, &detail.what);
        }
        if let Some(advice) = &one.advice {
            paragraph(&mut page, &blank, COLUMN + 2, &format!("do: {advice}"));
        }
    }
    page.push('\n');
    for one in &report.profiles {
        let (state, what) = match (one.works, one.full) {
            (true, true) if one.missing_with_connect.is_empty() => ("ok", "works in full"),
            (true, true) => ("ok", "works in full, but for what follows"),
            (true, false) => ("partly", "works, but for what follows"),
            (false, _) => ("no", "does not work"),
        };
        paragraph(&mut page, &format!("{state:<8}{:<20}", one.profile), COLUMN, what);
        let with = one.missing_with_connect.iter().map(|one| (one, "with --connect PORT: "));
        for (missing, when) in one.missing.iter().map(|one| (one, "")).chain(with) {
            let head = format!("{blank}{}: ", missing.layer);
            paragraph(&mut page, &head, COLUMN + 2, &format!("{when}{}", missing.what));
            paragraph(&mut page, &format!("{blank}  "), COLUMN + 4, &format!("takes: {}", missing.advice));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::io;

    use insta::assert_snapshot;

    use super::*;

    fn bare_metal() -> Facts {
        Facts {
            kernel: "6.18.0".into(),
            abilities: Abilities::of_landlock(7),
            filtered: false,
            uid: 1000,
            groups: Ok(Standing {
                path: "/sys/fs/cgroup/unit".into(),
                controllers: ["cpu", "memory", "pids"].map(str::to_owned).into(),
                delegated: true,
                others: 0,
                root: false,
            }),
            descriptors: Some(524_288),
            somaxconn: Some(4096),
            pids: Some(4_194_304),
            threads: Some(62_000),
            yama: Some(1),
            memfd: Some(2),
        }
    }

    #[test]
    fn a_machine_that_has_everything() {
        let report = examine(&bare_metal());
        assert!(report.works && report.profiles.iter().all(|one| one.full));
        assert_snapshot!(page(&report).replace(std::env::consts::ARCH, "ARCH"));
    }

    #[test]
    fn debian_12_as_it_comes() {
        let mut facts =
            Facts { kernel: "6.1.0-30-amd64".into(), abilities: Abilities::of_landlock(2), ..bare_metal() };
        (facts.memfd, facts.somaxconn, facts.yama, facts.uid) = (None, Some(128), Some(0), 0);
        facts.groups = Ok(Standing {
            path: "/sys/fs/cgroup/user.slice".into(),
            controllers: vec!["memory".into(), "pids".into()],
            delegated: false,
            others: 3,
            root: false,
        });
        let report = examine(&facts);
        assert!(report.works);
        assert_snapshot!(page(&report).replace(std::env::consts::ARCH, "ARCH"));
    }

    #[test]
    fn a_kernel_and_a_container_that_allow_nothing() {
        let mut abilities = Abilities::of_landlock(0);
        abilities.filters = false;
        abilities.user_namespaces = Err(io::Error::from_raw_os_error(28));
        let facts = Facts {
            kernel: "5.15.0".into(),
            abilities,
            filtered: true,
            uid: 0,
            groups: Err("find control groups: /proc/self/mountinfo has no cgroup2 mount".into()),
            descriptors: Some(256),
            pids: Some(300),
            ..bare_metal()
        };
        let report = examine(&facts);
        assert!(!report.works && report.profiles[0].full);
        assert_snapshot!(page(&report).replace(std::env::consts::ARCH, "ARCH"));
    }

    #[test]
    fn a_covered_proc_keeps_from_sealed_and_from_nothing_else() {
        let mut facts = bare_metal();
        facts.abilities.processes = Err(io::Error::from_raw_os_error(1));
        let report = examine(&facts);
        assert_eq!(report.profiles.iter().map(|one| one.works).collect::<Vec<_>>(), [true, true, false]);
        assert!(page(&report).contains("systempaths=unconfined"));
    }

    #[test]
    fn where_there_is_no_room_for_a_pid_namespace_nothing_is_said_of_covers() {
        let mut facts = bare_metal();
        facts.abilities.processes = Err(io::Error::from_raw_os_error(28));
        let page = page(&examine(&facts));
        assert!(page.contains("No space left on device") && !page.contains("systempaths"), "{page}");
    }

    #[test]
    fn what_machines_read_has_states_as_words() {
        let json = serde_json::to_value(examine(&bare_metal())).unwrap();
        assert_eq!(json["works"], true);
        assert_eq!(json["findings"][1]["name"], "Landlock");
        assert_eq!(json["findings"][1]["state"], "ok");
        assert_eq!(json["profiles"][1]["profile"], "guarded");
    }
}
