//! The worst parent a server can have: everything that a process hands on is odd.
//!
//! What a server gives its children must not depend on what the server was given. This starts it with junk
//! descriptors, every signal ignored and blocked, umask 0, small and odd soft limits, and an environment that
//! would harm its programs.
//!
//! The limits are set by a shell, the rest by Perl, which is there on every Debian, and which can do all of
//! it without unsafe code in here. Both then `exec`, so that the pid stays that of the started process.

use std::process::Command;

/// How bad it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hostile {
    /// Everything, with descriptors 0 to 2 as the caller arranged them: the log can be read.
    Full,
    /// Everything, and descriptors 0 to 2 are closed: nothing can be read from the server, see
    /// [`crate::Ready::Bound`].
    Closed,
}

/// How many junk descriptors the program is started with.
pub const JUNK_DESCRIPTORS: usize = 200;

/// The soft limits: 300 descriptors, 1 MiB of stack, files of an odd number of blocks, core dumps as large as
/// may be. Hard limits stay: a server may raise the soft ones up to them.
const LIMITS: &str =
    r#"ulimit -S -n 300; ulimit -S -s 1024; ulimit -S -f 123457; ulimit -S -c "$(ulimit -H -c)"; exec "$@""#;

/// The rest. Arguments: how bad, the program, its arguments.
const SCRIPT: &str = r#"
    use strict; use warnings; use Config; use Fcntl; use POSIX (); use Socket;
    my $how = shift;

    # 200 descriptors of seven kinds, none of them close-on-exec: $^F is the highest that perl leaves open.
    $^F = 1000;
    my @junk;
    sub keep { push @junk, @_ }
    while (@junk < 200) {
        sysopen(my $null, "/dev/null", O_RDWR) or die "open: $!"; keep $null;
        sysopen(my $file, "/etc/passwd", O_RDONLY) or die "open: $!"; keep $file;
        sysopen(my $root, "/", O_RDONLY) or die "open: $!"; keep $root;
        pipe(my $out, my $in) or die "pipe: $!"; keep $out, $in;
        socketpair(my $one, my $other, AF_UNIX, SOCK_STREAM, 0) or die "socketpair: $!"; keep $one, $other;
        socket(my $listener, PF_INET, SOCK_STREAM, 0) or die "socket: $!";
        listen($listener, 5) or die "listen: $!"; keep $listener; # on a port of the kernel's choice
    }

    umask 0;
    %ENV = (%ENV,
        LD_LIBRARY_PATH => "/nonexistent/lib", LD_BIND_NOW => "1",
        GLIBC_TUNABLES => "glibc.malloc.arena_max=1",
        MALLOC_ARENA_MAX => "1", LISTEN_PID => "1", LISTEN_FDS => "3", LISTEN_FDNAMES => "a:b:c",
        NOTIFY_SOCKET => "/nonexistent/notify", WATCHDOG_USEC => "1000000", WATCHDOG_PID => "1",
        IFS => "/", ENV => "/nonexistent/env",
        PROTO => "JUNK", TCPREMOTEIP => "192.0.2.1", TCPREMOTEHOST => "junk.example",
        REMOTE_ADDR => "192.0.2.1",
        REMOTE_PORT => "1", TINE_ID => "junk", "BASH_FUNC_junk%%" => "() { :; }", EMPTY => "", "A B" => "c\nd");

    # Last, because from here on nothing can interrupt or end this process. KILL and STOP cannot be ignored.
    for my $name (split " ", $Config{sig_name}) {
        # Nor can the two that glibc keeps to itself; the others here are second names.
        next if $name =~ /^(ZERO|KILL|STOP|CLD|IOT|POLL|UNUSED|NUM32|NUM33)$/;
        no warnings; $SIG{$name} = "IGNORE";
    }
    my $all = POSIX::SigSet->new; $all->fillset;
    POSIX::sigprocmask(POSIX::SIG_BLOCK(), $all) or die "sigprocmask: $!";

    if ($how eq "Closed") { POSIX::close($_) for 0 .. 2 }
    exec { $ARGV[0] } @ARGV or die "exec $ARGV[0]: $!";
"#;

/// The same command (program, arguments, environment, folder), to be started by the worst parent.
///
/// What the command says about stdin, stdout and stderr is not copied; [`crate::Server::start`] says it
/// anyway.
pub fn hostile(command: Command, how: Hostile) -> Command {
    let mut worse = Command::new("sh");
    worse.args(["-c", LIMITS, "sh", "perl", "-e", SCRIPT, &format!("{how:?}")]);
    worse.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => worse.env(name, value),
            None => worse.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        worse.current_dir(folder);
    }
    worse
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Ready, Server, procfs};

    fn output(program: &str, args: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(args).env("MINE", "kept");
        let output = hostile(command, Hostile::Full).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test]
    fn all_signals_arrive_ignored_and_blocked_and_the_umask_is_open() {
        let status = output("cat", &["/proc/self/status"]);
        let set = |name| u64::from_str_radix(procfs::value_of(&status, name).unwrap(), 16).unwrap();
        let settable = !(1 << 8 | 1 << 18 | 1 << 31 | 1 << 32); // KILL, STOP, and the two of glibc
        assert_eq!(set("SigBlk") & settable, settable);
        // Perl gives FPE back as it found it, whatever %SIG says.
        let ignorable = settable & !(1 << 7);
        assert_eq!(set("SigIgn") & ignorable, ignorable, "{:x}", set("SigIgn"));
        assert_eq!(procfs::value_of(&status, "Umask"), Some("0000"));
    }

    #[test]
    fn limits_environment_and_descriptors_are_odd() {
        let limits = output("cat", &["/proc/self/limits"]);
        let soft = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().to_owned()
        };
        assert_eq!(soft("Max open files"), "300");
        assert_eq!(soft("Max stack size"), "1048576");
        assert_eq!(soft("Max file size"), (123_457 * 512).to_string());
        let environment = output("env", &["-0"]);
        for entry in ["LD_BIND_NOW=1", "LISTEN_FDS=3", "A B=c\nd", "EMPTY=", "MINE=kept"] {
            assert!(environment.split('\0').any(|found| found == entry), "{entry} in {environment:?}");
        }
        let fds = output("ls", &["/proc/self/fd"]);
        assert!(fds.lines().count() >= JUNK_DESCRIPTORS + 3, "{fds}");
    }

    #[test]
    fn the_closed_variant_closes_the_first_three() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut command = Command::new("sleep");
        command.arg("infinity"); // until it is dropped
        // The listener is there all the time; the script has become the program when it has its name.
        let server = Server::start(hostile(command, Hostile::Closed), Ready::Bound(vec![address]));
        let fds = crate::server::until("the program runs", || {
            let name = fs::read_to_string(format!("/proc/{}/comm", server.pid())).ok()?;
            if name == "sleep\n" { procfs::fds(server.pid()).ok() } else { None }
        });
        assert!(fds.len() >= JUNK_DESCRIPTORS && (0..3).all(|fd| !fds.contains_key(&fd)), "{fds:?}");
    }
}
