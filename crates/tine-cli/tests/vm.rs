//! What takes a whole machine: control groups of version 2 with all controllers, of which other tests' machines may have none.
//!
//! `cargo xtask vm` boots a kernel and runs these there as root, one after the other; they are built with the feature `vm` only.
//! Each test is a check of docs/vm.md, under its name and with the lines that it prints beginning with `note `. A check of
//! something else that depends on the kernel is one more function here: [`tine`] runs any verb and gives what it says.
//!
//! There is busybox, `setpriv`, `unshare` and `nsenter` of util-linux, the program tine, and nothing else; this process is in the root of
//! all control groups.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tine_testkit::server::{tine_command, until};
use tine_testkit::{Baseline, Ready, Server, Signal, Stream, ask, binary, children, groups};

/// Where version 2 is mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// An ordinary user.
const USER: u32 = 1000;

/// What is handed down to a group as a supervisor does it.
const ALL: &str = "+memory +pids +cpu";

/// A client's orders, a line each, are carried out by a shell.
const SHELL: &[&str] = &["sh", "-c", "while read -r line; do eval \"$line\"; done"];

/// A group as a supervisor makes one for a service; removed, and found to be empty before, when it is dropped.
struct Unit(PathBuf);

impl Unit {
    fn new() -> Unit {
        fs::write(Path::new(ROOT).join("cgroup.subtree_control"), ALL).expect("root hands everything down");
        Unit::below(Path::new(ROOT))
    }

    fn below(above: &Path) -> Unit {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let path = above.join(format!("unit-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).unwrap_or_else(|why| panic!("make {}: {why}", path.display()));
        Unit(path)
    }

    /// Gives it to the ordinary user, as systemd does with User= and Delegate=yes.
    fn delegated(self) -> Unit {
        for name in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(self.0.join(name), Some(USER), Some(USER)).expect("root may give it away");
        }
        self
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_else(|why| panic!("{name}: {why}"))
    }

    /// A command that is started in it, after `before` (words that end with a program that executes the rest).
    fn command(&self, before: &[&str], then: &Command) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$1/cgroup.procs\" && shift && exec \"$@\"", "sh"]).arg(&self.0);
        // The shell of busybox-static takes its own `unshare` for any that is not named by its path.
        let named = |word: &&str| {
            let path = Path::new("/usr/bin").join(word);
            if path.exists() { path } else { PathBuf::from(word) }
        };
        command.args(before.iter().map(named)).arg(then.get_program()).args(then.get_args());
        command
    }

    /// Starts `tine serve` in it.
    fn serve(&self, before: &[&str], options: &[&str], program: &[&str]) -> Server {
        let args = [&["127.0.0.1:0", "-v"], options, &["--"], program].concat();
        Server::start(self.command(before, &tine_command(&args)), Ready::Ports(vec![args[0].to_owned()]))
    }

    /// What `tine serve` says in it that does not start, with its code.
    fn refusal(&self, before: &[&str], options: &[&str]) -> String {
        let mut tine = Command::new(binary("tine"));
        tine.args(["serve", "127.0.0.1:0"]).args(options).args(["--", "cat"]);
        said(&mut self.command(before, &tine))
    }

    /// That nothing is left in it: no group, no process, nothing handed down.
    fn is_as_it_was(&self) {
        let groups: Vec<_> = folders(&self.0);
        assert!(groups.is_empty(), "left: {groups:?}");
        assert_eq!(self.read("cgroup.procs"), "");
        assert_eq!(self.read("cgroup.subtree_control").trim(), "");
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.is_as_it_was();
            fs::remove_dir(&self.0).expect("nobody is in it");
        }
    }
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("it is a folder").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Has no group hand down pids any more, the lowest first: those above are kept from it by what is below.
fn hand_nothing_down(path: &Path) {
    folders(path).iter().for_each(|below| hand_nothing_down(below));
    let file = path.join("cgroup.subtree_control");
    fs::write(&file, "-pids").unwrap_or_else(|why| panic!("{}: {why}", file.display()));
}

/// What a verb of tine says, on both outputs, and its code: for checks of what it finds on this kernel.
fn tine(args: &[&str]) -> String {
    said(Command::new(binary("tine")).args(args))
}

fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let text = [output.stdout, output.stderr].concat();
    format!("{}-> {:?}", String::from_utf8_lossy(&text), output.status.code())
}

/// The value of a key in a line of the log.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn number(line: &str, key: &str) -> u64 {
    let number = value(line, key).and_then(|value| value.parse().ok());
    number.unwrap_or_else(|| panic!("no number {key}= in: {line}"))
}

/// Connects and gives orders; gives what comes back, and the line of the end.
fn order(server: &Server, orders: &str) -> (String, String) {
    let from = server.cursor();
    let answer = ask(server.addr(0), orders.as_bytes()).map_or_else(|why| format!("({why})"), text);
    let (_, accept) = server.wait_log_from(from, |line| line.starts_with("accept "));
    let ends = format!("end    child={} ", number(&accept, "child"));
    let (_, end) = server.wait_log_from(from, |line| line.starts_with(&ends));
    (answer, end)
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A connection that answers a line with a line.
struct Dialogue(Stream);

impl Dialogue {
    fn of(server: &Server) -> Dialogue {
        Dialogue(Stream::connect(server.addr(0)).expect("the server is there"))
    }

    fn says(&mut self, order: &str, answer: &str) {
        self.0.write_all(format!("{order}\n").as_bytes()).expect("it is open");
        let mut heard = vec![0; answer.len()];
        self.0.read_exact(&mut heard).unwrap_or_else(|why| panic!("{order}: {why}"));
        assert_eq!(text(heard), answer);
    }
}

/// Ends it as a supervisor does.
fn stop(server: &Server) {
    let status = server.stop();
    assert!(status.success(), "{status}\n{}", server.log());
    let odd: Vec<_> =
        server.log().lines().filter(|line| line.starts_with("odd ")).map(str::to_owned).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

/// Where a process is, seen from the root of all groups.
fn group(pid: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    text.lines().find_map(|line| line.strip_prefix("0::")).expect("version 2 is there").to_owned()
}

/// Fills so much memory, by one program that the shell starts.
fn fill(megabytes: u32) -> String {
    format!("dd if=/dev/zero of=/dev/null bs={megabytes}M count=1 2>/dev/null\n")
}

#[test]
fn who_needs_more_memory_is_killed_with_all_it_has_started_and_nobody_else_is() {
    let unit = Unit::new();
    let server = unit.serve(&[], &["--memory", "32M"], SHELL);
    let mut other = Dialogue::of(&server);
    other.says("echo here", "here\n");
    let (answer, end) = order(&server, &format!("sleep 1000 &\necho begun\n{}echo outlived\n", fill(64)));
    assert!(!answer.contains("outlived"), "{answer}");
    assert_eq!(value(&end, "signal"), Some("9"), "{end}");
    // The shell, what it has started in the background, and what was too large.
    assert!(number(&end, "oom") >= 2, "{end}");
    let peak = number(&end, "group_kb");
    assert!((24 << 10..=32 << 10).contains(&peak), "{end}");
    other.says("echo still here", "still here\n");
    println!("note limit 32768 KiB, peak group_kb={peak}, killed oom={}", number(&end, "oom"));
    drop(other);
    stop(&server);
}

#[test]
fn who_stays_below_the_limit_has_its_own_peak_on_its_bill_and_no_other_ones() {
    let unit = Unit::new();
    let server = unit.serve(&[], &["--memory", "64M"], SHELL);
    let (_, large) = order(&server, &fill(24));
    let (_, small) = order(&server, "echo\n");
    let (_, again) = order(&server, &fill(12));
    let peaks = [large, small, again].map(|end| {
        assert_eq!((value(&end, "exit"), value(&end, "oom")), (Some("0"), None), "{end}");
        number(&end, "group_kb")
    });
    assert!(peaks[0] >= 24 << 10 && peaks[0] < 48 << 10, "{peaks:?}");
    assert!(peaks[1] < 8 << 10, "{peaks:?}");
    assert!(peaks[2] >= 12 << 10 && peaks[2] < 20 << 10, "{peaks:?}");
    println!("note group_kb of 24 MiB, nothing, 12 MiB: {peaks:?}");
    stop(&server);
}

#[test]
fn nothing_is_left_of_connections_while_the_server_goes_on() {
    let unit = Unit::new();
    let server = unit.serve(&[], &["--memory", "32M", "--pids", "8", "--confine", "none"], SHELL);
    let address = server.addr(0).to_owned();
    let baseline = Baseline::with(&server, move || ask(&address, b"echo\n").map(drop));
    for round in 0..20 {
        // Some leave somebody behind, who may finish; some make groups in their own.
        let left = [
            "echo",
            "sleep 1000 & echo",
            "mkdir -p /sys/fs/cgroup/$(sed s/0::// /proc/self/cgroup)/a/b; echo",
        ];
        let (answer, end) = order(&server, &format!("{}\n", left[round % left.len()]));
        assert_eq!((answer.as_str(), value(&end, "exit")), ("\n", Some("0")), "{end}");
    }
    server.quiescent(&baseline);
    let groups = groups::of(server.pid());
    let leaves = || groups.iter().flat_map(|group| folders(&group.join(format!("tine-{}", server.pid()))));
    until("all leaves are gone", || (leaves().count() == 0).then_some(()));
    stop(&server);
}

#[test]
fn a_program_starts_no_more_processes_than_its_limit_and_the_next_has_all_of_them_again() {
    let unit = Unit::new();
    let server = unit.serve(&[], &["--pids", "4"], SHELL);
    for _ in 0..2 {
        let (answer, end) = order(&server, "sleep 0 & sleep 0 & sleep 0 & wait; echo fits\n");
        assert_eq!((answer.as_str(), value(&end, "exit")), ("fits\n", Some("0")), "{end}");
        let (answer, end) = order(&server, "sleep 9 & sleep 9 & sleep 9 & sleep 9 & echo no\n");
        assert_eq!((answer.as_str(), value(&end, "exit")), ("", Some("2")), "{end}");
        assert_eq!(value(&end, "group_kb"), None, "memory is not limited: {end}");
    }
    assert!(server.log().contains("can't fork"), "{}", server.log());
    stop(&server);
}

#[test]
fn a_program_that_wants_all_of_a_processor_has_its_part() {
    let unit = Unit::new();
    let server = unit.serve(&[], &["--cpu", "20"], SHELL);
    let (_, end) = order(&server, "timeout 3 sh -c 'while :; do :; done'\n");
    let (cpu, whole) = (number(&end, "cpu_ms"), number(&end, "ms"));
    assert!(whole >= 2_900, "{end}");
    assert!(cpu * 100 / whole <= 25, "{end}");
    println!("note limit 20 of 100, had {} of 100", cpu * 100 / whole);
    stop(&server);
}

#[test]
fn an_ordinary_user_limits_in_what_is_delegated_to_it() {
    let unit = Unit::new().delegated();
    let user = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"];
    let server = unit.serve(&user, &["--memory", "32M", "--pids", "8", "--cpu", "100"], SHELL);
    let name = unit.0.file_name().and_then(|name| name.to_str()).expect("it was made here").to_owned();
    let (pid, mut client) = (server.pid(), Dialogue::of(&server));
    assert_eq!(group(&pid.to_string()), format!("/{name}/tine-{pid}/master"));
    let leaf = format!("/{name}/tine-{pid}/tine-{pid}/0");
    client.says("grep -o '[^:]*$' /proc/self/cgroup", &format!("{leaf}\n"));
    let set = |file: &str| {
        fs::read_to_string(format!("{ROOT}{leaf}/{file}")).expect("it is there").trim().to_owned()
    };
    let set = ["memory.max", "memory.oom.group", "pids.max", "cpu.max"].map(set);
    assert_eq!(set, ["33554432", "1", "8", "100000 100000"]);
    drop(client);
    let (_, end) = order(&server, &fill(64));
    assert!(number(&end, "oom") >= 1, "{end}");
    stop(&server);
}

#[test]
fn in_a_container_the_root_of_its_namespace_is_used() {
    let unit = Unit::new();
    // Nothing is mounted over another mount of the same file system.
    let script = format!("umount {ROOT} && mount -t cgroup2 none {ROOT} && exec \"$@\"");
    let container = ["unshare", "--cgroup", "--mount", "sh", "-c", &script, "sh"];
    let server = unit.serve(&container, &["--memory", "32M"], SHELL);
    let pid = server.pid();
    assert!(group(&pid.to_string()).ends_with(&format!("/tine-{pid}/master")));
    let (_, end) = order(&server, &format!("grep cgroup2 /proc/mounts >/dev/null || exit 3\n{}", fill(64)));
    assert!(number(&end, "oom") >= 1, "{end}");
    stop(&server);
}

#[test]
fn the_root_of_all_hands_down_what_it_may_have_processes_beside() {
    let options = ["127.0.0.1:0", "-v", "--pids", "4", "--", "sh", "-c", "sleep 0; echo yes"];
    let server = Server::tine(&options);
    let pid = server.pid();
    assert_eq!(group(&pid.to_string()), format!("/tine-{pid}/master"));
    assert_eq!(text(ask(server.addr(0), b"").expect("an answer")), "yes\n");
    stop(&server);
    assert!(!Path::new(ROOT).join(format!("tine-{pid}")).exists());
}

#[test]
fn somebody_elses_process_is_not_moved_but_named() {
    let unit = Unit::new();
    let mut sleep = Command::new("sleep");
    let mut stranger = unit.command(&[], sleep.arg("1000")).spawn().expect("sleep can be run");
    until("the stranger is there", || {
        unit.read("cgroup.procs").contains(&stranger.id().to_string()).then_some(())
    });
    let told = unit.refusal(&[], &["--memory", "32M"]);
    let (named, group) = (format!("process {} is in ", stranger.id()), unit.0.display().to_string());
    assert!(told.contains(&named) && told.contains(&group) && told.ends_with("-> Some(111)"), "{told}");
    println!("note {}", told.lines().next().unwrap_or_default());
    assert_eq!(unit.read("cgroup.procs").trim(), stranger.id().to_string());
    stranger.kill().and_then(|()| stranger.wait()).expect("it is ours");
    until("the stranger is gone", || unit.read("cgroup.procs").is_empty().then_some(()));
}

#[test]
fn what_is_not_handed_down_is_told_with_where_and_what_to_do() {
    let above = Unit::new();
    let unit = Unit::below(&above.0);
    let told = unit.refusal(&[], &["--memory", "32M", "--cpu", "10"]);
    let begins = format!(
        "tine: limit each connection (memory 32M, cpu 10): no controllers memory and cpu in {}: the group above it does not",
        unit.0.display()
    );
    assert!(told.starts_with(&begins) && told.contains("Delegate=yes"), "{told}");
    println!("note {}", told.lines().next().unwrap_or_default());
    drop(unit);
}

#[test]
fn who_may_not_make_groups_is_told_what_to_do() {
    let unit = Unit::new();
    let user = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"];
    let told = unit.refusal(&user, &["--pids", "3"]);
    assert!(told.contains("ermission denied") && told.contains("Delegate=yes"), "{told}");
    println!("note {}", told.lines().next().unwrap_or_default());
}

#[test]
fn limits_in_groups_that_cannot_be_written_to_are_refused_with_what_to_do() {
    let unit = Unit::new();
    let script = format!("mount -o remount,bind,ro {ROOT} && exec \"$@\"");
    let told = unit.refusal(&["unshare", "--mount", "sh", "-c", &script, "sh"], &["--memory", "32M"]);
    assert!(told.starts_with("tine: limit each connection (memory 32M): make "), "{told}");
    assert!(told.contains("ead-only file system; ") && told.contains("Delegate=yes"), "{told}");
    assert!(told.ends_with("-> Some(111)"), "{told}");
    println!("note {}", told.lines().next().unwrap_or_default());
    // Without that in the way it has them.
    stop(&unit.serve(&[], &["--memory", "32M"], SHELL));
}

#[test]
fn groups_that_become_read_only_keep_clients_waiting_and_are_named() {
    let unit = Unit::new();
    let server = unit.serve(&["unshare", "--mount"], &["--memory", "32M"], SHELL);
    let remount = |how: &str| {
        let target = format!("--target={}", server.pid());
        let how = format!("remount,bind,{how}");
        let done = Command::new("nsenter").args([&target, "--mount", "mount", "-o", &how, ROOT]).status();
        assert!(done.expect("nsenter can be run").success());
    };
    remount("ro");
    let mut client = Dialogue::of(&server);
    let line = server.wait_log(|line| line.starts_with("pause "));
    assert!(line.contains("reason=\"fork: ") && line.contains("ead-only file system"), "{line}");
    println!("note {line}");
    remount("rw");
    client.says("echo here", "here\n");
    drop(client);
    stop(&server);
}

#[test]
fn acceptors_and_spares_have_limits_and_leave_nothing() {
    for options in [["--acceptors", "2"], ["--spare", "1:3"]] {
        let unit = Unit::new();
        let server = unit.serve(&[], &[&["--memory", "32M", "--pids", "8"], &options[..]].concat(), SHELL);
        for _ in 0..4 {
            let (answer, end) = order(&server, "echo yes\n");
            assert_eq!(answer, "yes\n", "{options:?}");
            assert!(number(&end, "group_kb") < 32 << 10, "{end}");
        }
        let (_, end) = order(&server, &fill(64));
        assert!(number(&end, "oom") >= 1, "{options:?}: {end}");
        stop(&server);
    }
}

#[test]
fn an_acceptor_that_is_killed_is_replaced_and_leaves_nothing() {
    let unit = Unit::new();
    let server = unit.serve(&[], &["--memory", "32M", "--acceptors", "2"], SHELL);
    let mut client = Dialogue::of(&server);
    client.says("sleep 1000 & echo here", "here\n");
    let child = number(&server.wait_log(|line| line.starts_with("accept ")), "child");
    let from = server.cursor();
    for acceptor in children(server.pid()) {
        if children(acceptor).contains(&(child as u32)) {
            let killed = Command::new("kill").args(["-9", &acceptor.to_string()]).status();
            assert!(killed.expect("kill can be run").success());
        }
    }
    server.wait_log_from(from, |line| line.starts_with("acceptor "));
    client.says("echo still here", "still here\n");
    for _ in 0..4 {
        assert_eq!(text(ask(server.addr(0), b"echo yes\n").expect("an answer")), "yes\n");
    }
    drop(client);
    stop(&server);
}

#[test]
fn what_was_started_before_in_the_servers_place_is_moved_with_it_and_back() {
    let unit = Unit::new();
    let before = ["sh", "-c", "sleep 1000 >/dev/null 2>&1 & exec \"$@\"", "sh"];
    let server = unit.serve(&before, &["--pids", "8"], SHELL);
    // The template is a child of the server's too.
    let is_sleep =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep");
    let own: Vec<_> = children(server.pid()).into_iter().filter(is_sleep).collect();
    assert_eq!(own.len(), 1, "{own:?}");
    let (sleep, name) = (own[0].to_string(), group(&server.pid().to_string()));
    assert_eq!(group(&sleep), name);
    // Somebody is left who is nobody of its own making, so that `stop` would find fault.
    server.signal(Signal::TERM);
    until("it has ended", || (!server.running()).then_some(()));
    assert!(name.starts_with(&group(&sleep)) && !group(&sleep).contains("tine"), "{}", group(&sleep));
    assert!(Command::new("kill").arg(&sleep).status().expect("kill can be run").success());
    until("it is gone", || unit.read("cgroup.procs").is_empty().then_some(()));
}

#[test]
fn programs_that_die_with_a_killed_server_leave_no_group() {
    let unit = Unit::new();
    let server = unit.serve(&[], &["--memory", "32M", "--orphans", "die"], SHELL);
    let mut client = Dialogue::of(&server);
    client.says("sleep 1000 & echo here", "here\n");
    server.signal(Signal::KILL);
    until("its guardian has undone everything", || folders(&unit.0).is_empty().then_some(()));
    until("nobody is there", || unit.read("cgroup.procs").is_empty().then_some(()));
}

#[test]
fn what_a_killed_server_left_is_swept_by_the_next() {
    let unit = Unit::new();
    let first = unit.serve(&[], &["--pids", "8"], SHELL);
    first.signal(Signal::KILL);
    first.wait();
    assert_eq!(folders(&unit.0).len(), 1);
    // As who starts it there again has it: a group with controllers for others takes no process.
    hand_nothing_down(&unit.0);
    let second = unit.serve(&[], &["--pids", "8"], SHELL);
    let left: Vec<_> = folders(&unit.0);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].ends_with(format!("tine-{}", second.pid())), "{left:?}");
    stop(&second);
}

#[test]
fn connections_without_limits_are_held_together_by_groups_without_controllers() {
    let unit = Unit::new();
    let server = unit.serve(&[], &["--trees", "cgroup"], SHELL);
    let mut client = Dialogue::of(&server);
    client.says("sleep 1000 & echo here", "here\n");
    assert_eq!(unit.read("cgroup.subtree_control").trim(), "");
    drop(client);
    server.wait_log(|line| line.starts_with("end "));
    stop(&server);
}

#[test]
fn this_kernel_runs_the_program() {
    let told = tine(&["--version"]);
    assert!(told.ends_with("-> Some(0)"), "{told}");
    println!("note {}", told.lines().next().unwrap_or_default());
}

/// A page without its line breaks.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What Landlock learned with each ABI from 3 on, in the words of `tine doctor`.
const LEARNED: [(u32, &str); 4] = [
    (3, "files truncated (ABI 3, Linux 6.2)"),
    (4, "TCP ports (ABI 4, Linux 6.7)"),
    (5, "commands to devices (ioctl) (ABI 5, Linux 6.10)"),
    (6, "scope: signals to others, abstract sockets of others (ABI 6, Linux 6.12)"),
];

/// The ABI that the doctor has found. Debian 12's kernel has 2; another one may have been booted.
fn abi(told: &str) -> u32 {
    let number = told
        .split("Landlock ABI ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .and_then(|word| word.parse().ok());
    let abi = number.unwrap_or_else(|| panic!("no ABI in: {told}"));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("/proc is mounted");
    assert!(!release.starts_with("6.1.") || abi == 2, "{release}: ABI {abi}");
    abi
}

#[test]
fn the_doctor_lists_whatever_this_kernels_landlock_does_not_do() {
    let told = in_one_line(&tine(&["doctor"]));
    let abi = abi(&told);
    for (since, what) in LEARNED {
        assert_eq!(told.contains(&format!("no {what}")), abi < since, "{what}: {told}");
    }
    assert!(told.ends_with("-> Some(0)"), "{told}");
    for (layer, since) in [
        ("files: files that may be read can be truncated", 3),
        ("network: with --connect PORT: children can connect to every TCP port", 4),
        ("files: devices that may be opened can be given any command", 5),
        ("scope: children of one user", 6),
    ] {
        assert_eq!(told.contains(layer), abi < since, "{layer}: {told}");
    }
    for works in ["ok user namespaces", "ok /proc of one's own", "ok seccomp", "ok none works in full"] {
        assert!(told.contains(works), "{works}: {told}");
    }
    println!("note Landlock ABI {abi}");
    for verdict in ["guarded ", "sealed "] {
        let at = told.rfind(verdict).expect("each profile has its verdict");
        println!("note {}", told[at..].split(" files:").next().unwrap_or_default());
    }
}

#[test]
fn the_plan_is_told_with_what_this_kernel_does_not_enforce() {
    let told = in_one_line(&tine(&["explain", "--connect", "5432", "--", "cat"]));
    let abi = abi(&in_one_line(&tine(&["doctor"])));
    let begins = "rules: no TCP port is bound to, and none but these connected to, at any host";
    let rest = &told[told.find(begins).unwrap_or_else(|| panic!("{told}"))..];
    assert_eq!(
        rest.contains("enforced not at all: children can connect to every TCP port"),
        abi < 4,
        "{told}"
    );
    assert!(told.contains("5432: connect") && told.ends_with("-> Some(0)"), "{told}");
}

#[test]
fn guarded_is_the_default_and_its_misses_are_in_the_log() {
    let abi = abi(&in_one_line(&tine(&["doctor"])));
    for before in [&[][..], &["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]] {
        let unit = Unit::new().delegated();
        let server = unit.serve(before, &["--connect", "5432"], SHELL);
        let missing: Vec<_> =
            server.log().lines().filter(|line| line.starts_with("confine ")).map(str::to_owned).collect();
        let count = |layer: &str| missing.iter().filter(|line| value(line, "layer") == Some(layer)).count();
        let older = |since| usize::from(abi < since);
        assert_eq!(count("files"), older(2) + older(3) + older(5), "{missing:?}");
        assert_eq!((count("network"), count("scope")), (older(4), older(6)), "{missing:?}");
        let orders = "cat /proc/sys/kernel/ostype\n(echo x >/tmp/written) 2>/dev/null || echo unwritten\nunshare -U echo no 2>/dev/null || echo refused\n";
        let (answer, end) = order(&server, orders);
        assert_eq!(
            (answer.as_str(), value(&end, "exit")),
            ("Linux\nunwritten\nrefused\n", Some("0")),
            "{end}"
        );
        // Both are told the same.
        missing.iter().filter(|_| before.is_empty()).for_each(|line| println!("note {line}"));
        stop(&server);
    }
}

/// Here the root is an initramfs, which nothing can take the place of unless something is done about it.
#[test]
fn sealed_has_a_world_of_its_own() {
    for before in [&[][..], &["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"]] {
        let unit = Unit::new().delegated();
        let server = unit.serve(before, &["--confine", "sealed", "--memory", "32M"], SHELL);
        let orders = "echo begun\necho x >/tmp/written && cat /tmp/written\nls -d /proc/[0-9]* | wc -l\nwc -l </proc/net/dev 2>/dev/null || echo hidden\n";
        for _ in 0..2 {
            let (answer, end) = order(&server, &format!("ls /tmp\nls /init 2>/dev/null\n{orders}"));
            let lines: Vec<_> = answer.lines().collect();
            assert_eq!((lines.len(), value(&end, "exit")), (4, Some("0")), "{answer} {end}");
            assert_eq!((lines[1], lines[3]), ("x", "hidden"), "{answer}");
            // The first of them is tine's, then the shell and its pipe.
            assert!(lines[2].trim().parse::<u32>().is_ok_and(|count| (2..=5).contains(&count)), "{answer}");
        }
        let (_, end) = order(&server, &fill(64));
        assert!(number(&end, "oom") >= 1, "{end}");
        stop(&server);
    }
}
