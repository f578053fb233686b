//! What can stand in the way of a server that was promised to work: no namespaces left, no Landlock, read-only control groups, no
//! room for a file, a process or a descriptor. Each is told, by name, with what to do, to the operator before anybody is served or
//! in the log while clients wait; nothing is left of the attempt; and when it is out of the way, all are served.
//!
//! Each obstacle is put up for the one server alone, in namespaces or by limits of its own. That each call fails at each step is for
//! `fault_steps.rs`.

mod support;

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use support::{Folder, count, left_out_without_root, need, run, send, value};
use tine_testkit::server::{listeners_among, tine_command, until};
use tine_testkit::{Baseline, Server, Signal, Stream, ask, binary, echo_line, fds, templates};

/// A server on a port of its own that echoes.
const ECHO: [&str; 2] = ["127.0.0.1:0", "-v"];

/// Arguments between a server's own and its program.
fn args<'a>(options: &[&'a str]) -> Vec<&'a str> {
    [&ECHO, options, &["--", "cat"]].concat()
}

/// A server that is started by these words: they end with a program that executes the rest.
fn started_by(before: &[&str], args: &[&str]) -> Result<Server, (Option<i32>, String)> {
    let tine = tine_command(args);
    let mut words = before.iter();
    let mut command = Command::new(words.next().map_or(tine.get_program(), |word| word.as_ref()));
    command.args(words);
    if !before.is_empty() {
        command.arg(tine.get_program());
    }
    command.args(tine.get_args());
    Server::attempt(command, listeners_among(args)).map_err(|(status, log)| (status.code(), log))
}

/// What a server says that does not start; nobody is left then who could say more.
fn refused(before: &[&str], args: &[&str]) -> String {
    match started_by(before, args) {
        Err((Some(111), said)) => said,
        Err((code, said)) => panic!("{args:?}: {code:?}: {said}"),
        Ok(server) => server.fail("it has started"),
    }
}

fn starts(before: &[&str], args: &[&str]) -> Server {
    started_by(before, args).unwrap_or_else(|(code, said)| panic!("{args:?}: {code:?}: {said}"))
}

/// It serves, and leaves nothing.
fn serves(server: &Server) {
    let baseline = Baseline::of(server);
    echo_line(server.addr(0), "hello").unwrap_or_else(|why| server.fail(&why.to_string()));
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

/// A user namespace of the server's own, in which it is root, and a command there before it.
fn in_user_namespace(first: &str) -> [String; 6] {
    need("unshare", "util-linux");
    ["unshare", "--user", "--map-root-user", "sh", "-c", &format!("{first} && exec \"$0\" \"$@\"")]
        .map(str::to_owned)
}

/// A mount namespace of the server's own, and a command there before it.
fn in_mount_namespace(first: &str) -> [String; 5] {
    need("unshare", "util-linux");
    ["unshare", "--mount", "sh", "-c", &format!("{first} && exec \"$0\" \"$@\"")].map(str::to_owned)
}

fn words<const N: usize>(words: &[String; N]) -> [&str; N] {
    words.each_ref().map(String::as_str)
}

/// Runs a command of the shell's in the namespaces of a server's.
fn within(server: &Server, kinds: &[&str], script: &str) {
    need("nsenter", "util-linux");
    let target = format!("--target={}", server.pid());
    run(Command::new("nsenter").arg(target).args(kinds).args(["sh", "-c", script]));
}

/// Where version 2 of control groups is mounted.
const GROUPS: &str = r"$(sed -n 's/^[^ ]* \([^ ]*\) cgroup2 .*/\1/p' /proc/mounts)";

/// Has a system call answered with ENOSYS, as by a kernel that does not have it, in what the rest of the words execute.
const WITHOUT: &str = r#"
    my ($seccomp, $prctl, $call, $errno) = splice @ARGV, 0, 4;
    my @filter = ([0x20, 0, 0, 0], [0x15, 0, 1, $call], [0x06, 0, 0, 0x50000 | $errno], [0x06, 0, 0, 0x7fff0000]);
    my $code = join "", map { pack "SCCL", @$_ } @filter;
    my $program = pack "S x![P] P", scalar @filter, $code;
    syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "prctl: $!";
    syscall($seccomp, 1, 0, $program) == 0 or die "seccomp: $!";
    exec { $ARGV[0] } @ARGV or die "exec $ARGV[0]: $!";
"#;
const ENOSYS: u32 = 38;

fn without(call: &str) -> Vec<String> {
    need("perl", "perl");
    // The newer ones have the same number everywhere.
    let (seccomp, prctl) = if cfg!(target_arch = "x86_64") { (317, 157) } else { (277, 167) };
    let call = match call {
        "seccomp" => seccomp,
        "clone3" => 435,
        "landlock_create_ruleset" => 444,
        other => panic!("which number has {other}?"),
    };
    let numbers = [seccomp, prctl, call].map(|number: u32| number.to_string());
    let script = ["perl".to_owned(), "-e".to_owned(), WITHOUT.to_owned()];
    script.into_iter().chain(numbers).chain([ENOSYS.to_string()]).collect()
}

#[test]
fn a_kind_of_namespaces_of_which_there_may_be_none_is_named_and_without_it_can_be_asked_for() {
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        let none = in_user_namespace(&format!("echo 0 > /proc/sys/user/max_{kind}_namespaces"));
        let said = refused(&words(&none), &args(&["--confine", "sealed"]));
        assert!(said.starts_with("tine: "), "{said}");
        assert!(said.contains("No space left on device"), "{said}");
        assert!(said.contains(&format!("sysctl -w user.max_{kind}_namespaces=")), "{said}");
        if kind == "cgroup" {
            continue; // it is not looked for by itself
        }
        assert!(said.contains("--confine-missing warn"), "{said}");
        let warned = starts(&words(&none), &args(&["--confine", "sealed", "--confine-missing", "warn"]));
        let line = warned.wait_log(|line| line.starts_with("confine layer="));
        let layer = if kind == "pid" { "pid" } else { "user" };
        assert_eq!(value(&line, "layer"), Some(layer), "{line}");
        serves(&warned);
    }
    serves(&starts(&words(&in_user_namespace("true")), &args(&["--confine", "sealed"])));
}

#[test]
fn what_the_kernel_lacks_is_named_and_without_it_can_be_asked_for() {
    for (call, layers, takes) in [
        ("landlock_create_ruleset", ["files", "scope"], "CONFIG_SECURITY_LANDLOCK"),
        ("seccomp", ["calls", "network"], "CONFIG_SECCOMP_FILTER"),
    ] {
        let lacks = without(call);
        let lacks: Vec<_> = lacks.iter().map(String::as_str).collect();
        for profile in ["guarded", "sealed"] {
            let said = refused(&lacks, &args(&["--confine", profile]));
            assert!(said.starts_with(&format!("tine: --confine {profile}: this system cannot ")), "{said}");
            assert!(said.contains(takes) && said.contains("--confine-missing warn"), "{said}");
            assert!(layers.iter().all(|layer| said.contains(&format!("\n  {layer}: "))), "{said}");
            let warned = starts(&lacks, &args(&["--confine", profile, "--confine-missing", "warn"]));
            for layer in layers {
                let named = |line: &str| line.starts_with(&format!("confine layer={layer} missing="));
                let line = warned.wait_log(named);
                assert!(value(&line, "takes").is_some_and(|advice| advice.contains(takes)), "{line}");
            }
            serves(&warned);
        }
    }
    // What can be done in another way is done so, and told.
    let lacks = without("clone3");
    let lacks: Vec<_> = lacks.iter().map(String::as_str).collect();
    let server = starts(&lacks, &args(&[]));
    server.wait_log(|line| line.starts_with("listen ") && value(line, "trees") == Some("subreaper"));
    serves(&server);
}

#[test]
fn control_groups_that_cannot_be_written_to_are_told_and_done_without_unless_they_are_asked_for() {
    if left_out_without_root("mounts of its own") {
        return;
    }
    // This mount alone: others go on writing.
    let read_only =
        in_mount_namespace(&format!("for at in {GROUPS}; do mount -o remount,bind,ro $at || exit; done"));
    let read_only = words(&read_only);
    let said = refused(&read_only, &args(&["--trees", "cgroup"]));
    assert!(
        said.starts_with("tine: hold the processes of a connection together: make /sys/fs/cgroup"),
        "{said}"
    );
    assert!(
        said.ends_with(": Read-only file system; --trees auto (Keep::Auto) does without control groups"),
        "{said}"
    );
    // Where version 2 has no such controller (xtask vm has one that does), that is in the way before.
    let said = refused(&read_only, &args(&["--memory", "32M"]));
    assert!(said.starts_with("tine: limit each connection (memory 32M): "), "{said}");
    assert!(said.contains("Read-only file system; ") || said.contains("no controller memory in "), "{said}");
    let server = starts(&read_only, &args(&[]));
    let line = server.wait_log(|line| line.starts_with("trees  by=subreaper reason="));
    assert!(value(&line, "reason").is_some_and(|why| why.ends_with(": Read-only file system")), "{line}");
    serves(&server);
    serves(&starts(&[], &args(&["--trees", "cgroup"])));
}

#[test]
fn a_full_file_system_keeps_a_socket_from_being_made_and_nothing_else() {
    if left_out_without_root("mounts of its own") {
        return;
    }
    let folder = Folder::outside_tmp();
    let (at, path) = (folder.text("mounted"), format!("unix:{}", folder.text("mounted/socket")));
    let args = [&path, "--", "cat"];
    let small = |inodes: u32| {
        in_mount_namespace(&format!("mkdir -p {at} && mount -t tmpfs -o nr_inodes={inodes} none {at}"))
    };
    let said = refused(&words(&small(1)), &args);
    let expected = "No space left on device; the file system of that path is full (df, df -i)";
    assert_eq!(said, format!("tine: bind {path}: {expected}"));
    // The one file that there is room for is the socket.
    let server = starts(&words(&small(2)), &args);
    let seen = format!("unix:/proc/{}/root{}", server.pid(), folder.text("mounted/socket"));
    echo_line(&seen, "hello").unwrap();
    assert!(server.stop().success());

    // What is not asked for is not made anywhere.
    let full = in_mount_namespace(
        "mount -t tmpfs -o nr_inodes=1,size=4k none /tmp && export TMPDIR=/tmp && ! touch /tmp/x 2>/dev/null",
    );
    for profile in ["none", "guarded", "sealed"] {
        let spare = ["--confine", profile, "--spare=1:1"];
        assert!(ask(starts(&words(&full), &crate::args(&spare)).addr(0), b"hello\n").unwrap() == b"hello\n");
        serves(&starts(&words(&full), &crate::args(&["--confine", profile])));
    }
}

#[test]
fn a_program_that_fills_its_tmp_is_told_so_and_the_next_has_all_of_it() {
    let fills = "head -c 200000 /dev/zero >/tmp/much || echo full; wc -c </tmp/much; ls /tmp";
    let options = ["--confine", "sealed", "--tmpfs", "/tmp:64K", "--", "sh", "-c", fills];
    let server = Server::tine(&[&ECHO, &options[..]].concat());
    let address = server.addr(0).to_owned();
    let baseline = Baseline::with(&server, move || ask(&address, b"").map(drop));
    for _ in 0..3 {
        assert_eq!(String::from_utf8_lossy(&ask(server.addr(0), b"").unwrap()), "full\n65536\nmuch\n");
    }
    let told = |line: &str| line.contains("No space left on device");
    assert!(count(&server, told) >= 3, "{}", server.log());
    server.quiescent(&baseline);
    assert!(server.stop().success());
}

/// Something that comes in a server's way while it goes on.
struct Obstacle<'a> {
    /// What puts it up, and what takes it away, in which of the server's namespaces.
    up: &'a str,
    down: &'a str,
    within: &'a [&'a str],
    /// Whether what is in its way is met by a template that begins only, and not by a child.
    templates_only: bool,
    /// The beginning of the reason for which clients wait.
    reason: &'a str,
}

impl Obstacle<'_> {
    /// Clients wait while it is there, and are served then; nothing is left of it.
    fn comes_and_goes(&self, server: &Server) {
        let baseline = Baseline::of(server).by_kind();
        within(server, self.within, self.up);
        if self.templates_only {
            let template = templates(server.pid())[0];
            send(template, Signal::KILL);
            let entry = format!("/proc/{template}");
            until("it was noticed", || (!std::path::Path::new(&entry).exists()).then_some(()));
        }
        // There may be room for one: a leaf that was made before.
        let clients: Vec<_> = (0..2).map(|_| Stream::connect(server.addr(0)).unwrap()).collect();
        clients.iter().for_each(|mut client| client.write_all(b"hello\n").unwrap());
        let line = server.wait_log(|line| line.starts_with("pause "));
        let reason = value(&line, "reason").unwrap_or_default();
        assert!(reason.starts_with(self.reason), "{reason:?} instead of {:?}", self.reason);
        within(server, self.within, self.down);
        for mut client in &clients {
            let mut back = [0; 6];
            client.read_exact(&mut back).unwrap_or_else(|why| server.fail(&why.to_string()));
            assert_eq!(&back, b"hello\n");
        }
        drop(clients);
        server.wait_log(|line| line.starts_with("resume "));
        server.quiescent(&baseline);
        assert!(server.stop().success());
    }
}

#[test]
fn namespaces_that_run_out_while_it_serves_keep_clients_waiting_and_are_named() {
    for (kind, templates_only, step) in [
        ("user", true, "fork: users: "),
        ("net", true, "fork: namespaces: "),
        ("pid", false, "fork: "),
        ("mnt", false, "fork: "),
    ] {
        let limit = format!("/proc/sys/user/max_{kind}_namespaces");
        let obstacle = Obstacle {
            up: &format!("echo 0 > {limit}"),
            down: &format!("echo 1000 > {limit}"),
            within: &["--user", "--preserve-credentials"],
            templates_only,
            reason: &format!(
                "{step}No space left on device (it takes: sysctl -w user.max_{kind}_namespaces="
            ),
        };
        obstacle.comes_and_goes(&starts(&words(&in_user_namespace("true")), &args(&["--confine", "sealed"])));
    }
}

#[test]
fn control_groups_that_become_read_only_while_it_serves_keep_clients_waiting_and_are_named() {
    if left_out_without_root("mounts of its own") {
        return;
    }
    let remount = |how: &str| format!("for at in {GROUPS}; do mount -o remount,bind,{how} $at || exit; done");
    let obstacle = Obstacle {
        up: &remount("ro"),
        down: &remount("rw"),
        within: &["--mount"],
        templates_only: false,
        reason: "fork: Read-only file system",
    };
    for profile in ["none", "guarded", "sealed"] {
        let options = ["--trees", "cgroup", "--confine", profile];
        obstacle.comes_and_goes(&starts(&words(&in_mount_namespace("true")), &args(&options)));
    }
}

#[test]
fn a_template_without_room_for_descriptors_keeps_clients_waiting() {
    need("prlimit", "util-linux");
    let server = starts(&[], &args(&[]));
    let template = templates(server.pid())[0];
    // Those three it always has; of the others it may be about to close some.
    const TAKEN: i32 = 3;
    assert!((0..TAKEN).all(|number| fds(template).unwrap().contains_key(&number)));
    let limit = |soft: i32| format!("prlimit --pid={template} --nofile={soft}:");
    let obstacle = Obstacle {
        up: &limit(TAKEN),
        down: &limit(1_000),
        within: &[],
        templates_only: false,
        reason: "fork: Too many open files",
    };
    obstacle.comes_and_goes(&server);
}

/// Nobody else's processes count.
const OWN: u32 = 54_323;

#[test]
fn a_user_who_may_have_no_other_process_is_told_which_limits_there_are() {
    if left_out_without_root("a user of its own, whose processes are few") {
        return;
    }
    need("prlimit", "util-linux");
    let folder = Folder::new();
    let tine = folder.copy(binary("tine"), "tine");
    let within = |most: u32, profile: &str| {
        let mut command = Command::new("prlimit");
        command.args([&format!("--nproc={most}"), &tine]);
        command.args(tine_command(&args(&["--confine", profile])).get_args());
        command.uid(OWN).gid(OWN);
        Server::attempt(command, listeners_among(&args(&[])))
    };
    for profile in ["guarded", "sealed"] {
        let Err((status, said)) = within(1, profile) else { panic!("{profile}: it has started") };
        let told = "Resource temporarily unavailable (it takes: room for more processes (ulimit -u";
        assert!(status.code() == Some(111) && said.contains(told), "{profile}: {said}");
        assert!(said.contains("\ntine: ") || said.starts_with("tine: "), "{said}");
        let server = within(64, profile).unwrap_or_else(|(status, said)| panic!("{status}: {said}"));
        serves(&server);
    }
}

#[test]
fn the_least_descriptors_that_it_starts_with_are_enough_for_all_that_may_come() {
    const CHILDREN: usize = 4;
    let limit =
        |most: u32| ["sh", "-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")].map(str::to_owned);
    for options in
        [&["--confine", "guarded"][..], &["--confine", "sealed"], &["--spare=2:2"], &["--acceptors", "2"]]
    {
        let args = args(&[&["-c", "4", "-C", "4"], options].concat());
        let Err((Some(100), said)) = started_by(&words(&limit(30)), &args) else { panic!("it has started") };
        let least = said.split(" may need ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
        let least: u32 = least.unwrap_or_else(|| panic!("no number in {said}"));
        assert!(said.contains("(ulimit -Hn, LimitNOFILE=) or allow fewer children"), "{said}");
        let server = starts(&words(&limit(least)), &args);
        thread::scope(|scope| {
            for number in 0..3 * CHILDREN {
                let server = &server;
                scope.spawn(move || echo_line(server.addr(0), &format!("client {number}")).unwrap());
            }
        });
        assert_eq!(count(&server, |line| line.starts_with("pause ") || line.starts_with("odd ")), 0);
        assert!(server.stop().success());
    }
}
