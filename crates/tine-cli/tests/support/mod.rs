//! What the tests with real programs share: the programs found or named, folders that go away, system calls watched.

#![allow(dead_code)] // each test program uses its part

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, process, thread};

use rustix::process::{Pid, kill_process};
use tine_testkit::server::{listeners_among, tine_command};
use tine_testkit::{Ready, Server, Signal, procfs};

/// How long, in seconds, a program that a test runs may take.
const PATIENCE: &str = "50";

/// Fails the test when a program is not there, naming the Debian package that has it.
pub fn need(program: &str, package: &str) {
    let path = env::var_os("PATH").unwrap_or_default();
    let there = env::split_paths(&path).any(|folder| folder.join(program).is_file());
    assert!(there, "this test needs {program}: apt-get install --no-install-recommends {package}");
}

/// A folder of a test's own that everybody may read, gone when it is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes it, where temporary files are.
    pub fn new() -> Folder {
        Folder::below(&env::temp_dir())
    }

    /// One that a sealed program can be shown: in `/tmp` it has a place of its own.
    pub fn outside_tmp() -> Folder {
        Folder::below(Path::new("/srv"))
    }

    /// Makes it in another one.
    pub fn below(folder: &Path) -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("tine-test-{}-{number}", process::id()));
        let _ = fs::remove_dir_all(&path); // of a process that had this id before
        fs::create_dir(&path).unwrap_or_else(|why| panic!("make {}: {why}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it was just made");
        Folder(path)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The same as text, for command lines and addresses.
    pub fn text(&self, name: &str) -> String {
        self.file(name).into_os_string().into_string().expect("a temporary folder has a plain name")
    }

    /// Copies a program here and gives its path.
    ///
    /// Another process writes it: a descriptor of ours that is open for writing would be in every child that another
    /// test starts meanwhile, and executing the copy would fail with "Text file busy".
    pub fn copy(&self, program: impl AsRef<Path>, name: &str) -> String {
        run(Command::new("cp").arg(program.as_ref()).arg(self.file(name)));
        fs::set_permissions(self.file(name), fs::Permissions::from_mode(0o755)).expect("it was just copied");
        self.text(name)
    }

    /// Writes a program here, and gives its path; by another process, as [`Folder::copy`] does, and under another name at first, for
    /// the one before it may be being executed.
    pub fn program(&self, name: &str, text: &str) -> String {
        let script = r#"printf %s "$2" > "$1.new" && chmod 755 "$1.new" && mv "$1.new" "$1""#;
        run(Command::new("sh").args(["-c", script, "sh"]).arg(self.file(name)).arg(text));
        self.text(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // whatever keeps it does not make a test fail
    }
}

/// A command that is ended after a while, whatever it waits for.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", PATIENCE]).arg(program);
    command
}

/// Runs a command to its end, which must be a good one.
pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|why| panic!("run {command:?}: {why}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs a command, and gives what it wrote on standard output as text.
pub fn told(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).expect("text")
}

/// Runs a Perl script with arguments: the client of whatever std has no client for.
pub fn perl(script: &str, args: &[&str]) -> String {
    need("perl", "perl");
    told(command("perl").args(["-e", script]).args(args))
}

/// Runs a command with this input, which another thread writes; the input's reader may leave early.
pub fn fed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|why| panic!("run {command:?}: {why}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("an own child can be waited for")
    })
}

/// Whether this test runs as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").expect("/proc is mounted").uid() == 0
}

/// Whether a test that needs root must be left out; says so.
pub fn left_out_without_root(what: &str) -> bool {
    if !is_root() {
        eprintln!("left out, for it takes root: {what}");
    }
    !is_root()
}

/// The value of a key in a log line, without its quotes.
pub fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let start = line.find(&format!(" {key}="))? + key.len() + 2;
    let rest = &line[start..];
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').map(|(value, _)| value),
        None => rest.split(' ').next(),
    }
}

/// The number in a log line.
pub fn number(line: &str, key: &str) -> u32 {
    let text = value(line, key).unwrap_or_else(|| panic!("no {key}= in {line:?}"));
    text.parse().unwrap_or_else(|_| panic!("{key}= is no number in {line:?}"))
}

/// How many lines of the log so far match. What has happened by now is in it: a status that was asked for comes after.
pub fn count(server: &Server, matches: impl Fn(&str) -> bool) -> usize {
    if server.running() {
        server.status();
    }
    server.log().lines().filter(|line| matches(line)).count()
}

/// Sends a signal to a child of a server under test, found in its log or below it in /proc.
pub fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid of the kernel's");
    kill_process(pid, signal).unwrap_or_else(|why| panic!("signal {signal:?} to {pid:?}: {why}"));
}

/// By what the processes of a connection can be held together here: the values of `--trees`. Says what is left out.
pub fn ways_to_keep_trees() -> Vec<&'static str> {
    let server = Server::tine(&["127.0.0.1:0", "--", "true"]);
    let line = server.wait_log(|line| line.starts_with("listen "));
    let groups = value(&line, "trees") == Some("cgroup");
    if !groups {
        eprintln!("left out, for no control group can be had here: --trees cgroup");
    }
    if groups { vec!["subreaper", "cgroup"] } else { vec!["subreaper"] }
}

/// The processes of a session that have not died.
pub fn session(leader: u32) -> Vec<u32> {
    const SESSION: usize = 6 - 3; // the sixth field of proc_pid_stat(5), counted from the third
    let all = fs::read_dir("/proc").expect("/proc is mounted");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let member = |stat: &procfs::Stat| stat.state != 'Z' && stat.fields[SESSION] == leader.to_string();
    pids.filter_map(procfs::stat).filter(member).map(|stat| stat.pid).collect()
}

/// Processor time that a process has used so far, in clock ticks (there are 100 in a second).
pub fn ticks(pid: u32) -> u64 {
    let stat = procfs::stat(pid).expect("the process is there");
    let field = |number: usize| stat.fields[number - 3].parse::<u64>().expect("a number");
    field(14) + field(15)
}

/// Starts `tine serve ARGS` below strace, with the options given. What was traced is written to `trace`.
///
/// The tracer is a process beside it, so that the process that was started is tine.
pub fn traced(trace: &Path, options: &[&str], args: &[&str]) -> Server {
    need("strace", "strace");
    let serve = tine_command(args);
    let mut strace = Command::new("strace");
    strace.args(["-D", "-qq", "-ttt", "-o"]).arg(trace).args(options);
    strace.arg(serve.get_program()).args(serve.get_args());
    Server::start(strace, Ready::Ports(listeners_among(args)))
}

/// A system call that strace saw.
#[derive(Debug)]
pub struct Call {
    /// When, in seconds.
    pub at: f64,
    /// The rest of the line.
    pub text: String,
}

/// What strace has written so far of one call, with whole lines only.
pub fn calls(trace: &Path, name: &str) -> Vec<Call> {
    calls_of(trace, &[name])
}

/// What strace has written so far of several calls, in order.
pub fn calls_of(trace: &Path, names: &[&str]) -> Vec<Call> {
    let text = fs::read_to_string(trace).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let call = |line: &str| {
        let (at, text) = line.split_once(' ')?;
        let (name, _) = text.split_once('(')?;
        let mine = names.contains(&name);
        Some(Call { at: at.parse().ok()?, text: text.to_owned() }).filter(|_| mine)
    };
    whole.lines().filter_map(call).collect()
}

/// The most calls within any one second.
pub fn most_in_a_second(calls: &[Call]) -> usize {
    let within = |first: &Call| calls.iter().filter(|c| c.at >= first.at && c.at < first.at + 1.0).count();
    calls.iter().map(within).max().unwrap_or(0)
}
