//! What is measured: tine in its variants, its peers, and bare loops, each with how it is started and what is unfair about it.
//!
//! Every program server starts the same target; every handler and datagram server does what the target does. All listen on
//! 127.0.0.1 at a port of their own, with a queue of 4096 where they let us say so, and limits that do not act.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// More clients than any experiment has.
pub const CHILDREN: usize = 12_000;

/// What a server does with its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Starts a program for each.
    Program,
    /// Does it itself, mostly in a process for each.
    Handler,
    /// Answers datagrams.
    Datagram,
    /// Starts a program for each, and confines it; some of these do not, to be compared with.
    Confined,
}

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Whose {
    Ours,
    Peer,
    Bare,
}

/// A server to be measured.
pub struct Server {
    /// As tables have it.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// Whose it is.
    pub whose: Whose,
    /// What it is, and what is unfair to whom.
    pub about: &'static str,
    /// Whether a quick run has it.
    pub quick: bool,
    command: fn(&Place) -> Result<Command, String>,
}

/// Where things are, and at which port a server listens.
#[derive(Clone, Debug)]
pub struct Place {
    /// `target/release`: tine, handler, load.
    pub built: PathBuf,
    /// `target/bench`: what gcc made, configuration files, logs.
    pub work: PathBuf,
    /// `bench/scripts`.
    pub scripts: PathBuf,
    /// s6-tcpserver, if there is one.
    pub s6: Option<PathBuf>,
    /// nsjail, if there is one.
    pub nsjail: Option<PathBuf>,
    /// What `tine serve --help` says.
    pub tine_help: String,
    /// What `handler --help` says.
    pub handler_help: String,
    /// The port.
    pub port: u16,
    /// Which program of `bench/loops` servers start.
    pub program: &'static str,
}

impl Server {
    /// How it is started.
    ///
    /// # Errors
    /// Why it cannot be: it is not installed, or not in this build.
    pub fn command(&self, place: &Place) -> Result<Command, String> {
        (self.command)(place)
    }
}

impl Place {
    /// What servers write, and what is written for them; emptied by each run.
    pub fn logs(&self) -> PathBuf {
        self.work.join("logs")
    }

    fn target(&self) -> PathBuf {
        self.work.join(self.program)
    }

    fn tcp(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    /// With as large a buffer as anybody may have: all datagram servers ask for the same.
    fn udp(&self) -> String {
        format!("udp://127.0.0.1:{}?rcvbuf=4194304", self.port)
    }

    /// A program of Debian's: from PATH, from /usr/sbin, or unpacked below `target/bench/peers` (those whose packages start
    /// a service of their own).
    fn peer(&self, name: &str, package: &str) -> Result<Command, String> {
        let unpacked = self.work.join("peers/usr/sbin");
        let path = std::env::var_os("PATH").unwrap_or_default();
        // /usr/bin before whatever a user has: python3 and perl are Debian's.
        let folders = [PathBuf::from("/usr/bin"), PathBuf::from("/usr/sbin"), unpacked];
        let found = folders
            .into_iter()
            .chain(std::env::split_paths(&path))
            .map(|dir| dir.join(name))
            .find(|path| path.is_file());
        found.map(Command::new).ok_or(format!("not installed (package {package})"))
    }

    fn script(&self, interpreter: &str, name: &str, args: &[&str]) -> Result<Command, String> {
        let mut command = self.peer(interpreter, interpreter)?;
        command.arg(self.scripts.join(name)).args(args);
        Ok(command)
    }

    /// Unconfined, as all are that it is compared with.
    fn tine(&self, options: &[&str]) -> Result<Command, String> {
        self.tine_at(&self.tcp(), "none", options)
    }

    fn confined(&self, profile: &str, options: &[&str]) -> Result<Command, String> {
        self.tine_at(&self.tcp(), profile, options)
    }

    fn tine_at(&self, address: &str, profile: &str, options: &[&str]) -> Result<Command, String> {
        has(&self.tine_help, &["--confine"])?;
        has(&self.tine_help, options)?;
        let most = CHILDREN.to_string();
        let mut command = Command::new(self.built.join("tine"));
        command.args(["serve", address, "-c", &most, "--reserve", "0", "--drain", "0", "--confine", profile]);
        if !options.contains(&"-C") {
            command.args(["-C", &most]);
        }
        command.args(options).arg("--").arg(self.target());
        Ok(command)
    }

    fn handler(&self, options: &[&str]) -> Result<Command, String> {
        self.handler_at(&self.tcp(), options)
    }

    fn handler_at(&self, address: &str, options: &[&str]) -> Result<Command, String> {
        has(&self.handler_help, options)?;
        let mut command = Command::new(self.work.join("handler"));
        command.arg(address).args(options);
        Ok(command)
    }

    fn stream(&self, kind: &str) -> Result<Command, String> {
        let mut command = Command::new(self.work.join("stream"));
        command.arg(kind).arg(self.port.to_string()).arg(self.target());
        Ok(command)
    }

    fn datagram(&self, kind: &str) -> Result<Command, String> {
        let mut command = Command::new(self.work.join("datagram"));
        command.arg(kind).arg(self.port.to_string());
        Ok(command)
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.logs().join(format!("{name}.{}.conf", self.port));
        fs::write(&path, text).map_err(|why| format!("write {}: {why}", path.display()))?;
        Ok(path)
    }
}

/// Whether a build has these options, by what it says of itself.
fn has(help: &str, options: &[&str]) -> Result<(), String> {
    let long = options.iter().filter(|option| option.starts_with("--"));
    match long
        .into_iter()
        .find(|option| !help.split_whitespace().any(|word| word.trim_end_matches(',') == **option))
    {
        None => Ok(()),
        Some(option) => Err(format!("{option} is not in this build")),
    }
}

/// Limits that are asked about for each client and never act.
const LIMITS_ON: &[&str] = &[
    "-v",
    "-C",
    "11000",
    "--rate",
    "1000000/s:1000000",
    "--rate-per-source",
    "100000/s:100000",
    "--penalty",
    "crash=90s,signal=30s,exit=10s,timeout=10s,max=10m,min=1s",
];

const SPARE: &str = "16:64";

const fn server(
    name: &'static str,
    kind: Kind,
    whose: Whose,
    quick: bool,
    about: &'static str,
    command: fn(&Place) -> Result<Command, String>,
) -> Server {
    Server { name, kind, whose, about, quick, command }
}

/// One set of processes for each client; all else is the service's.
const SHARED: &[&str] = &["--own", "pid"];

/// A network for each client, too.
const NET: &[&str] = &["--own", "pid,mount,net"];

use Kind::{Confined, Datagram, Handler, Program};
use Whose::{Bare, Ours, Peer};

/// All of them.
#[rustfmt::skip]
pub const SERVERS: &[Server] = &[
    server("tine", Program, Ours, true, "`tine serve --confine none`, one acceptor, default log level; UCSPI variables, a control group or subreaper for each client, status and bill",
        |place| place.tine(&[])),
    server("tine-auto", Program, Ours, true, "the same with `--acceptors auto`",
        |place| place.tine(&["--acceptors", "auto"])),
    server("tine-spare", Program, Ours, true, "the same with one acceptor and `--spare 16:64`",
        |place| place.tine(&["--spare", SPARE])),
    server("tine-auto-spare", Program, Ours, false, "the same with `--acceptors auto --spare 16:64`",
        |place| place.tine(&["--acceptors", "auto", "--spare", SPARE])),
    server("tine-off", Program, Ours, true, "`tine serve --confine none -q`: no line for any client, no limit but the number of children",
        |place| place.tine(&["-q"])),
    server("tine-on", Program, Ours, true, "`tine serve --confine none -v` into a file: two lines for each client; a limit for each source, two rates and penalties asked about for each client, none of which acts",
        |place| place.tine(LIMITS_ON)),
    server("tine-unix", Program, Ours, false, "`tine serve --confine none` on a Unix socket; compare it with nothing but `tine`",
        |place| place.tine_at(&format!("unix:{}", unix_name(place)), "none", &[])),
    server("tcpserver", Program, Peer, true, "ucspi-tcp, `-H -R -l0 -Q -b 4096`: waits for any child (slow when many live); no limit by source, no confinement, no tree",
        |place| {
            let mut command = place.peer("tcpserver", "ucspi-tcp")?;
            command.args(["-H", "-R", "-l0", "-Q", "-b", "4096", "-c"]).arg(CHILDREN.to_string());
            command.args(["127.0.0.1", &place.port.to_string()]).arg(place.target());
            Ok(command)
        }),
    server("s6-tcpserver", Program, Peer, true, "s6-networking, from the path given; limit by source as tine has it",
        |place| {
            let path = place.s6.as_ref().ok_or("no path given (--s6-tcpserver)")?;
            let mut command = Command::new(path);
            // It runs its other parts by name.
            let mut folders = vec![path.parent().unwrap_or(Path::new("/")).to_path_buf()];
            folders.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
            command.env("PATH", std::env::join_paths(folders).map_err(|why| why.to_string())?);
            command.args(["-q", "-b", "4096", "-c"]).arg(CHILDREN.to_string()).arg("-C").arg(CHILDREN.to_string());
            command.args(["127.0.0.1", &place.port.to_string()]).arg(place.target());
            Ok(command)
        }),
    server("tcpsvd", Program, Peer, true, "ipsvd, `-l 0 -b 4096`; limit by source as tine has it",
        |place| {
            let mut command = place.peer("tcpsvd", "ipsvd")?;
            command.args(["-l", "0", "-b", "4096", "-c"]).arg(CHILDREN.to_string()).arg("-C").arg(CHILDREN.to_string());
            command.args(["127.0.0.1", &place.port.to_string()]).arg(place.target());
            Ok(command)
        }),
    server("xinetd", Program, Peer, true, "`-dontfork`, instances and rate unlimited, logs nothing; its queue of 64 cannot be changed, which a burst suffers from",
        |place| {
            let text = format!(
                "defaults\n{{\n}}\nservice bench\n{{\n\ttype = UNLISTED\n\tsocket_type = stream\n\tprotocol = tcp\n\
                 \tbind = 127.0.0.1\n\tport = {}\n\twait = no\n\tuser = root\n\tserver = {}\n\tinstances = UNLIMITED\n\
                 \tper_source = UNLIMITED\n\tcps = 0 0\n}}\n",
                place.port, place.target().display()
            );
            let file = place.file("xinetd", &text)?;
            let mut command = place.peer("xinetd", "xinetd")?;
            command.args(["-dontfork", "-f"]).arg(file).arg("-pidfile").arg(place.logs().join(format!("xinetd.{}.pid", place.port)));
            Ok(command)
        }),
    server("openbsd-inetd", Program, Peer, true, "`-i -q 4096`, a billion a minute allowed",
        |place| {
            let target = place.target();
            let text = format!("127.0.0.1:{} stream tcp nowait.1000000000 root {} target\n", place.port, target.display());
            let file = place.file("inetd", &text)?;
            let mut command = place.peer("inetd", "openbsd-inetd")?;
            command.args(["-i", "-q", "4096", "-R", "1000000000"]).arg(file);
            Ok(command)
        }),
    server("socat", Program, Peer, true, "`TCP-LISTEN:...,fork,backlog=4096 EXEC:target`: a relay between client and program, as it is mostly used",
        |place| socat(place, "")),
    server("socat-nofork", Program, Peer, false, "the same with `EXEC:target,nofork`: no relay",
        |place| socat(place, ",nofork")),
    server("ncat", Program, Peer, true, "`-l -k -m 12000 -e target`: a relay; its queue of 10 cannot be changed, which a burst suffers from",
        |place| {
            let mut command = place.peer("ncat", "ncat")?;
            command.args(["-l", "-k", "-n", "-m"]).arg(CHILDREN.to_string()).arg("-e").arg(place.target());
            command.args(["127.0.0.1", &place.port.to_string()]);
            Ok(command)
        }),
    server("systemd-socket-activate", Program, Peer, false, "`--accept --inetd`, a tool for tests, not what systemd itself does; its queue is as long as the system allows; its log goes to /dev/null",
        |place| {
            let mut command = place.peer("systemd-socket-activate", "systemd")?;
            command.args(["--accept", "--inetd", "-l"]).arg(format!("127.0.0.1:{}", place.port)).arg(place.target());
            Ok(command)
        }),
    server("c-vfork", Program, Bare, true, "C, one loop: vfork and exec, dead waited for with status and usage",
        |place| place.stream("vfork")),
    server("c-vfork-ign", Program, Bare, true, "C, one loop: vfork and exec, dead forgotten by the kernel, no status",
        |place| place.stream("vfork-ign")),
    server("handler", Handler, Ours, true, "the library with `tine::Apart`, linked statically as the loops in C are; one acceptor",
        |place| place.handler(&[])),
    server("handler-auto", Handler, Ours, true, "the library, `--acceptors auto`",
        |place| place.handler(&["--acceptors", "auto"])),
    server("handler-spare", Handler, Ours, true, "the library, one acceptor, `--spare 16:64`",
        |place| place.handler(&["--spare", SPARE])),
    server("handler-auto-spare", Handler, Ours, false, "the library, `--acceptors auto --spare 16:64`",
        |place| place.handler(&["--acceptors", "auto", "--spare", SPARE])),
    server("c-event", Handler, Bare, true, "C, one event loop: no process for any client, so it isolates nothing; the limit of all",
        |place| place.stream("event")),
    server("c-thread", Handler, Bare, true, "C, a thread for each client: isolates nothing",
        |place| place.stream("thread")),
    server("c-fork", Handler, Bare, true, "C, one loop: fork, dead waited for with status and usage",
        |place| place.stream("fork")),
    server("c-fork-ign", Handler, Bare, true, "C, one loop: fork, dead forgotten by the kernel, no status",
        |place| place.stream("fork-ign")),
    server("perl-recipe", Handler, Peer, true, "the Cookbook's forking server in our own Perl, its two mistakes mended",
        |place| place.script("perl", "recipe.pl", &[&place.port.to_string()])),
    server("perl-fork", Handler, Peer, true, "Net::Server::Fork",
        |place| net_server(place, "Fork")),
    server("perl-prefork", Handler, Peer, true, "Net::Server::PreFork: its processes serve one client after the other, which isolates less and saves it the forks",
        |place| net_server(place, "PreFork")),
    server("python-forking", Handler, Peer, true, "socketserver.ForkingTCPServer, its queue of 5 made 4096",
        |place| place.script("python3", "forking.py", &[&place.port.to_string()])),
    server("tine-none", Confined, Ours, true, "`tine serve --confine none`, one acceptor: what the confined ones are compared with; a control group or subreaper for each client, as all of tine's here",
        |place| place.confined("none", &[])),
    server("tine-none-spare", Confined, Ours, true, "the same with `--spare 16:64`",
        |place| place.confined("none", &["--spare", SPARE])),
    server("tine-guarded", Confined, Ours, true, "the default: Landlock, system calls filtered, no privileges, no network but the client; no namespace",
        |place| place.confined("guarded", &[])),
    server("tine-guarded-spare", Confined, Ours, true, "the same with `--spare 16:64`",
        |place| place.confined("guarded", &["--spare", SPARE])),
    server("tine-sealed-shared", Confined, Ours, true, "`--confine sealed --own pid`: all of guarded, and a small world in namespaces: process ids of each client's own, mount tree and network (with nothing in it) shared by the clients of the service, nothing that can be written to",
        |place| place.confined("sealed", SHARED)),
    server("tine-sealed-shared-spare", Confined, Ours, true, "the same with `--spare 16:64`",
        |place| place.confined("sealed", &[SHARED[0], SHARED[1], "--spare", SPARE])),
    server("tine-sealed", Confined, Ours, true, "`--confine sealed`: a mount tree, a /tmp and a /proc of each client's own too; the network shared by the clients of the service",
        |place| place.confined("sealed", &[])),
    server("tine-sealed-spare", Confined, Ours, true, "the same with `--spare 16:64`",
        |place| place.confined("sealed", &["--spare", SPARE])),
    server("tine-sealed-net", Confined, Ours, true, "`--confine sealed --own pid,mount,net`: a network of each client's own too",
        |place| place.confined("sealed", NET)),
    server("tine-sealed-net-spare", Confined, Ours, true, "the same with `--spare 16:64`",
        |place| place.confined("sealed", &[NET[0], NET[1], "--spare", SPARE])),
    server("nsjail", Confined, Peer, true, "listen mode, from the path given: namespaces of each client's own for users, mounts, process ids, IPC, UTS, cgroups and network, and limits; a root with /proc and nothing but the program (`-R PROGRAM`), where sealed shows system directories too; no filter of system calls, no Landlock; a relay between client and program",
        |place| nsjail(place, &[])),
    server("nsjail-nonet", Confined, Peer, true, "the same with `-N`: in the machine's own network",
        |place| nsjail(place, &["-N"])),
    server("handler-udp", Datagram, Ours, true, "the library, `serve_datagrams`, one worker",
        |place| place.handler_at(&place.udp(), &[])),
    server("handler-udp-2", Datagram, Ours, false, "the library, `serve_datagrams`, two workers",
        |place| place.handler_at(&place.udp(), &["--workers", "2"])),
    server("c-plain", Datagram, Bare, true, "C: recvfrom, sendto",
        |place| place.datagram("plain")),
    server("c-mmsg", Datagram, Bare, true, "C: recvmmsg, sendmmsg, 64 at once",
        |place| place.datagram("mmsg")),
    server("c-gro", Datagram, Bare, true, "C: recvmmsg with UDP_GRO, sent back with UDP_SEGMENT",
        |place| place.datagram("gro")),
    server("perl-udp", Datagram, Peer, true, "Perl: recv, send",
        |place| place.script("perl", "datagrams.pl", &[&place.port.to_string()])),
    server("python-udp", Datagram, Peer, true, "Python: socketserver.UDPServer",
        |place| place.script("python3", "datagrams.py", &[&place.port.to_string()])),
];

/// Where a server that has no port listens.
pub fn unix_name(place: &Place) -> String {
    format!("@tine-bench-{}", place.port)
}

fn socat(place: &Place, option: &str) -> Result<Command, String> {
    let mut command = place.peer("socat", "socat")?;
    command.arg(format!("TCP-LISTEN:{},bind=127.0.0.1,reuseaddr,fork,backlog=4096", place.port));
    command.arg(format!("EXEC:{}{option}", place.target().display()));
    Ok(command)
}

fn nsjail(place: &Place, options: &[&str]) -> Result<Command, String> {
    let mut command = Command::new(place.nsjail.as_ref().ok_or("no path given (--nsjail)")?);
    command.args(["-Ml", "--bindhost", "127.0.0.1", "--port"]).arg(place.port.to_string());
    // As little as the program needs: it is linked statically, and each mount takes time.
    command.arg("--really_quiet").arg("-R").arg(place.target()).args(options);
    command.arg("--").arg(place.target());
    Ok(command)
}

fn net_server(place: &Place, kind: &str) -> Result<Command, String> {
    let installed = place.peer("perl", "perl")?.args(["-MNet::Server", "-e", "1"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        return Err("not installed (package libnet-server-perl)".into());
    }
    place.script("perl", "net_server.pl", &[kind, &place.port.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::goals::{GOALS, Value};

    fn place() -> Place {
        Place {
            built: "/b".into(),
            work: "/w".into(),
            scripts: "/s".into(),
            s6: None,
            nsjail: None,
            tine_help: "  -c, --children N\n  --reserve N\n  --confine PROFILE".into(),
            handler_help: String::new(),
            port: 7000,
            program: "target",
        }
    }

    fn named(name: &str) -> &'static Server {
        SERVERS.iter().find(|server| server.name == name).expect("there is one of this name")
    }

    #[test]
    fn names_are_different_and_goals_name_servers_that_there_are() {
        let mut names: Vec<&str> = SERVERS.iter().map(|server| server.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SERVERS.len());
        for goal in GOALS {
            let (server, others) = match goal.value {
                Value::Against { server, others, .. } => (server, others),
                Value::Itself { server, .. } | Value::Plain { server, .. } => (server, &[][..]),
            };
            for name in others.iter().chain([&server]) {
                assert!(named(name).quick, "a quick run has the same table, so it has {name}");
            }
        }
    }

    #[test]
    fn what_a_build_does_not_have_is_said() {
        let mut place = place();
        let missing = |place: &Place, name| named(name).command(place).err();
        assert_eq!(missing(&place, "tine"), None);
        assert_eq!(missing(&place, "tine-auto").as_deref(), Some("--acceptors is not in this build"));
        place.tine_help.push_str("\n      --acceptors N\n");
        assert_eq!(missing(&place, "tine-auto"), None);
        assert_eq!(missing(&place, "tine-auto-spare").as_deref(), Some("--spare is not in this build"));
        assert_eq!(missing(&place, "s6-tcpserver").as_deref(), Some("no path given (--s6-tcpserver)"));
    }

    #[test]
    fn tine_is_confined_only_among_those_that_are() {
        let mut place = place();
        place.tine_help.push_str(" --acceptors --spare --rate --rate-per-source --penalty --own");
        let ours = |server: &&Server| server.name.starts_with("tine");
        for server in SERVERS.iter().filter(ours) {
            let command = server.command(&place).expect("it is in this build");
            let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
            let at = args.iter().position(|arg| arg == "--confine").expect("it says how it is confined");
            let profile = server.name.split('-').nth(1).filter(|_| server.kind == Kind::Confined);
            assert_eq!(args[at + 1], profile.unwrap_or("none"), "{}", server.name);
            assert_eq!(
                args.iter().any(|arg| arg == "--spare"),
                server.name.ends_with("spare"),
                "{}",
                server.name
            );
        }
    }

    #[test]
    fn what_nsjail_starts_is_all_that_it_shows() {
        let mut place = place();
        place.nsjail = Some("/n".into());
        place.program = "session";
        let command = named("nsjail-nonet").command(&place).expect("a path is given");
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        assert!(args.ends_with(&["-R", "/w/session", "-N", "--", "/w/session"].map(Into::into)), "{args:?}");
    }

    #[test]
    fn tine_has_one_limit_for_a_source() {
        let mut place = place();
        place.tine_help.push_str(" --rate --rate-per-source --penalty");
        for name in ["tine", "tine-on"] {
            let command = named(name).command(&place).expect("it is in this build");
            assert_eq!(command.get_args().filter(|arg| *arg == "-C").count(), 1, "{command:?}");
        }
    }
}
