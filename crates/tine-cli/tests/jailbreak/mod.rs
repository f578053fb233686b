//! Attempts to get out, and what came of them: a server whose clients' programs try, one at a time, with a sibling beside them.
//!
//! [`Scenario::outcomes`] makes attempts under some arguments of `tine serve`, [`table`] has what must come of each, and
//! [`world`] what they are made on. The program that tries is in C, in this folder.

#![allow(dead_code)] // each test program uses its part

pub mod table;
pub mod world;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::support;
use table::{Attempt, Open, Proof, Shut, Way};
use tine_testkit::server::{until, until_within};
use tine_testkit::{Ready, Server, Signal, Stream, descendants, fds, procfs};
use world::{NOBODY, Stranger, Terminal, World, as_user, token};

/// How long something that is to be seen may take until it counts as not having happened.
const SOON: Duration = Duration::from_secs(10);

/// How long after its connection somebody may live: tine kills after two seconds, and a busy machine takes its time over it.
const AFTER_THE_END: Duration = Duration::from_secs(12);

/// How many attempts are made at once. Most of the time of each is spent waiting.
const AT_ONCE: usize = 6;

/// The default, by name.
pub const GUARDED: &[&str] = &["--confine", "guarded"];

/// Everything, with what attempts are made with and on to be seen, and the secret and the decoy not.
pub const SEALED: &[&str] = &["--confine", "sealed", "{seen}"];

/// What came of an attempt, with the words of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded(String),
    Blocked(String),
    Void(String),
    /// The attempt itself is wrong, or the server is.
    Broken(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, text) = match self {
            Outcome::Succeeded(text) => ("succeeded", text),
            Outcome::Blocked(text) => ("blocked", text),
            Outcome::Void(text) => ("void", text),
            Outcome::Broken(text) => ("broken", text),
        };
        write!(f, "{word}: {text}")
    }
}

impl Outcome {
    /// Reads a line of the program's.
    fn of(name: &str, line: &str) -> Option<Outcome> {
        let (word, text) = line.strip_prefix(name)?.strip_prefix(' ')?.trim_end().split_once(": ")?;
        let text = text.to_owned();
        match word {
            "succeeded" => Some(Outcome::Succeeded(text)),
            "blocked" => Some(Outcome::Blocked(text)),
            "void" => Some(Outcome::Void(text)),
            "mistaken" => Some(Outcome::Broken(text)),
            _ => None,
        }
    }

    fn succeeded(&self) -> bool {
        matches!(self, Outcome::Succeeded(_))
    }
}

/// Under which arguments, and as whom, attempts are made.
#[derive(Debug, Clone)]
pub struct Scenario {
    flags: Vec<String>,
    user: u32,
    /// Who starts tine.
    operator: u32,
    /// What starts the program, if it is not tine itself.
    within: Vec<String>,
}

impl Scenario {
    /// With these arguments of `tine serve`, the programs as root. `{seen}` in them stands for `--read` of all that is planted but
    /// what nobody is to read.
    pub fn new(flags: &[&str]) -> Scenario {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Scenario { flags, user: 0, operator: 0, within: Vec::new() }
    }

    /// The programs as an ordinary user, whom root's tine makes them.
    pub fn by_nobody(self) -> Scenario {
        Scenario { user: NOBODY, ..self }
    }

    /// The programs, and tine itself, as one ordinary user.
    pub fn all_by_nobody(self) -> Scenario {
        Scenario { user: NOBODY, operator: NOBODY, ..self }
    }

    /// The programs started by this command, which has to execute what follows it.
    pub fn within(self, command: &[&str]) -> Scenario {
        Scenario { within: command.iter().map(|word| (*word).to_owned()).collect(), ..self }
    }

    /// Makes these attempts, some at once, each with a server of its own.
    pub fn outcomes(&self, attempts: &[Attempt]) -> BTreeMap<&'static str, Outcome> {
        world::program();
        let (left, done) = (Mutex::new(attempts.iter()), Mutex::new(BTreeMap::new()));
        thread::scope(|scope| {
            for _ in 0..AT_ONCE.min(attempts.len()) {
                scope.spawn(|| {
                    let world = World::new(self.user);
                    loop {
                        let Some(attempt) = left.lock().expect("no thread panicked").next() else { break };
                        let outcome = self.outcome_or_panic(&world, attempt);
                        done.lock().expect("no thread panicked").insert(attempt.name, outcome);
                    }
                });
            }
        });
        done.into_inner().expect("no thread panicked")
    }

    /// A server that does not start, or leaves somebody behind, is told of by a panic, which has been printed: the other
    /// attempts are made all the same.
    fn outcome_or_panic(&self, world: &World, attempt: &Attempt) -> Outcome {
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| self.outcome(world, attempt)));
        outcome.unwrap_or_else(|why| {
            let text = why.downcast_ref::<String>().map_or("a panic", String::as_str);
            Outcome::Broken(text.lines().take(2).collect::<Vec<_>>().join(" "))
        })
    }

    fn outcome(&self, world: &World, attempt: &Attempt) -> Outcome {
        world.renew();
        let mut scene = match Scene::new(self, world, attempt) {
            Ok(scene) => scene,
            Err(why) => return Outcome::Broken(why),
        };
        let outcome = match attempt.way {
            Way::Client | Way::WordWaits | Way::OwnedTerminal => scene.attempted(&[]),
            Way::TwoClients => scene.by_two_clients(),
            Way::OutsideFirst => match scene.outside(&["stage=leave".into()]) {
                Outcome::Succeeded(_) => scene.attempted(&["stage=find".into()]),
                other => Outcome::Broken(format!("outside: {other}")),
            },
            Way::FewDescriptors => scene.with_few_descriptors(),
            Way::LittleMemory => scene.with_little_memory(),
        };
        if matches!(attempt.way, Way::TwoClients | Way::OutsideFirst) {
            scene.outside(&["stage=clear".into()]);
        }
        let outcome = if outcome.succeeded() { scene.proven(outcome) } else { outcome };
        scene.end();
        outcome
    }

    /// Shows a neighbour, whose program gives back each byte, and how to make the attempt beside it for so long.
    pub fn with_neighbour<T>(
        &self,
        attempt: &Attempt,
        measure: impl FnOnce(&mut Stream, &(dyn Fn(Duration) -> Outcome + Sync)) -> T,
    ) -> T {
        let world = World::new(self.user);
        world.renew();
        let scene = Scene::new(self, &world, attempt).unwrap_or_else(|why| panic!("{}: {why}", attempt.name));
        let scene = Mutex::new(scene);
        let hall = || scene.lock().expect("no thread panicked");
        let (mut neighbour, _) = hall().client().unwrap_or_else(|why| panic!("{}: {why}", attempt.name));
        neighbour.say("echo\n").unwrap_or_else(|why| panic!("{}: {why}", attempt.name));
        let attack = |time: Duration| hall().attempted(&[format!("for={}", time.as_secs_f64())]);
        let measured = measure(neighbour.0.get_mut(), &attack);
        drop(neighbour);
        scene.into_inner().expect("no thread panicked").end();
        measured
    }

    /// All arguments of the server.
    fn args(&self, world: &World, more: &[&str]) -> Vec<String> {
        let program = world.path("jailbreak");
        let mut args: Vec<String> =
            ["127.0.0.1:0", "-v", "--drain", "1", "--per-source", "9", "-E"].map(str::to_owned).into();
        args.push(format!("PLACE={}", "-".repeat(80)));
        let seen = || world::SEEN.iter().flat_map(|name| ["--read".to_owned(), world.path(name)]);
        for flag in &self.flags {
            if flag == "{seen}" { args.extend(seen()) } else { args.push(flag.clone()) }
        }
        args.extend(more.iter().map(|flag| (*flag).to_owned()));
        if self.user != self.operator {
            args.extend(["--user", "nobody:nogroup"].map(str::to_owned));
        }
        args.push("--".into());
        args.extend(self.within.iter().cloned());
        args.extend([program, "client".into(), world.path("decoy"), "-".repeat(80)]);
        args
    }

    /// The same attempt where there is something to find: outside of any server, and it must succeed.
    pub fn control(&self, attempt: &Attempt) -> Outcome {
        let world = World::new(self.user);
        world.renew();
        let (word, mark) = (token(), format!("marked-{}", token()));
        let mut keys = world.keys();
        keys.extend([("token", word.clone()), ("mark", mark.clone()), ("self", "0".into())]);
        keys.extend([("master-key", "half-a-".into()), ("master-key-end", format!("key-{word}"))]);
        let mut command = Command::new(world.path("jailbreak"));
        command.env("MASTER_KEY", format!("half-a-key-{word}")).args(["control", attempt.name]);
        let command = command.args(keys.iter().map(|(key, value)| format!("{key}={value}")));
        let outcome = told(as_user(command, self.user), attempt.name);
        if attempt.proof != Proof::Outlives || !outcome.succeeded() {
            return outcome;
        }
        let left = marked(&mark);
        left.iter().for_each(|pid| end(*pid));
        if left.is_empty() { Outcome::Blocked("nobody is left".into()) } else { outcome }
    }
}

/// A server, a sibling in it, and all that one attempt is told.
struct Scene<'a> {
    attempt: &'a Attempt,
    world: &'a World,
    user: u32,
    operator: u32,
    server: Server,
    victim: Option<(Client, u32)>,
    stranger: Option<Stranger>,
    _terminals: Vec<Terminal>,
    mark: String,
    keys: Vec<(&'static str, String)>,
    clients: Vec<Client>,
}

impl<'a> Scene<'a> {
    fn new(scenario: &Scenario, world: &'a World, attempt: &'a Attempt) -> Result<Scene<'a>, String> {
        let word = token();
        let mark = format!("marked-{word}");
        let mut keys = world.keys();
        let terminal = Terminal::new(world.user);
        keys.push(("tty", terminal.path.clone()));
        let mut terminals = vec![terminal];
        if attempt.way == Way::OwnedTerminal {
            let owned = Terminal::new(world.user).owned();
            keys.push(("owned-tty", owned.path.clone()));
            terminals.push(owned);
        }
        let stranger = attempt.name.ends_with("stranger").then(|| Stranger::new(world.user));
        keys.extend(stranger.iter().map(|stranger| ("stranger", stranger.pid().to_string())));
        // The number of a System V object is the first half of its name, so to say.
        let number = word.split('x').fold(0x7100_0000_u32, |sum, part| {
            sum.wrapping_mul(31).wrapping_add(part.parse().expect("numbers")) & 0x7fff_ffff
        });
        keys.extend([("token", word.clone()), ("mark", mark.clone()), ("ipc-key", number.to_string())]);
        keys.extend([("said", format!("said-{word}")), ("victim-text", format!("planted-{word}"))]);
        keys.extend([("victim-file", format!("/tmp/tine-victim-{word}"))]);
        keys.extend([("master-key", "half-a-".into()), ("master-key-end", format!("key-{word}"))]);

        let server_args = scenario.args(world, attempt.flags);
        let args: Vec<&str> = server_args.iter().map(String::as_str).collect();
        let mut command = tine_testkit::server::tine_command(&args);
        command.env("MASTER_KEY", format!("half-a-key-{word}"));
        as_user(&mut command, scenario.operator);
        let server = Server::start(command, Ready::Ports(vec!["127.0.0.1:0".into()]));
        keys.extend([("port", server.port(0).to_string()), ("master", server.pid().to_string())]);
        let mut scene = Scene {
            attempt,
            world,
            user: scenario.user,
            operator: scenario.operator,
            server,
            victim: None,
            stranger,
            _terminals: terminals,
            mark,
            keys,
            clients: Vec::new(),
        };
        scene.plant_victim()?;
        Ok(scene)
    }

    fn line(&self, name: &str, more: &[String]) -> String {
        let keys = self.keys.iter().map(|(key, value)| format!("{key}={value}"));
        let words: Vec<String> = keys.chain(more.iter().cloned()).collect();
        format!("{name} {}\n", words.join(" "))
    }

    /// A client whose program has said hello, with the number that it has out here.
    fn client(&self) -> Result<(Client, u32), String> {
        let mut client = Client::new(self.server.addr(0))?;
        let hello = client.line().ok_or("the client was not served")?;
        let own = hello.strip_prefix("hello ").ok_or(format!("no hello but {hello:?}"))?.to_owned();
        let known = self.victim.as_ref().map(|(_, pid)| *pid);
        let others = || descendants(self.server.pid()).into_iter().filter(|pid| Some(*pid) != known);
        let is_it = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let number =
                procfs::value_of(&status, "NSpid").and_then(|all| all.split_whitespace().next_back());
            number == Some(own.as_str()) && procfs::value_of(&status, "Name") == Some("jailbreak")
        };
        let pid = until_within(SOON, || others().find(is_it)).ok_or(format!("nobody is {own} in there"))?;
        Ok((client, pid))
    }

    fn plant_victim(&mut self) -> Result<(), String> {
        let (mut client, pid) = self.client()?;
        client.say(&self.line("victim", &[]))?;
        let line = client.line().ok_or("the victim said nothing")?;
        let value =
            |key: &str| support::value(&line, key).map(str::to_owned).ok_or(format!("no {key}= in {line:?}"));
        self.keys.extend([("victim", pid.to_string()), ("victim-own", value("own")?)]);
        self.keys.extend([("address", value("address")?), ("scratch-address", value("scratch")?)]);
        self.keys.extend([("victim-fd", value("fd")?)]);
        if self.attempt.way == Way::WordWaits {
            client.say(&format!("said-{}", self.given("token")))?;
        }
        self.victim = Some((client, pid));
        Ok(())
    }

    fn given(&self, key: &str) -> &str {
        let found = self.keys.iter().find(|(name, _)| *name == key);
        &found.expect("a key that was given").1
    }

    /// What the program says, or what the server says of its end. The client stays.
    fn attempted(&mut self, more: &[String]) -> Outcome {
        let (mut client, pid) = match self.client() {
            Ok(client) => client,
            Err(why) => return Outcome::Broken(why),
        };
        let child = self.child_of(pid);
        let from = self.server.cursor();
        let more = [more, &[format!("self={pid}")]].concat();
        if let Err(why) = client.say(&self.line(self.attempt.name, &more)) {
            return Outcome::Broken(why);
        }
        let name = self.attempt.name;
        while let Some(line) = client.line() {
            if let Some(outcome) = Outcome::of(name, &line) {
                self.clients.push(client);
                return outcome;
            }
        }
        self.said_in_the_log(from, child)
    }

    /// What the log calls a program's process: the server's own child, which may be the first process of a namespace for it.
    fn child_of(&self, pid: u32) -> u32 {
        let parent = |pid| procfs::stat(pid).map(|stat| stat.ppid);
        let mut up = std::iter::successors(Some(pid), |pid| parent(*pid).filter(|parent| *parent > 1));
        up.find(|pid| parent(*pid) == Some(self.server.pid())).unwrap_or(pid)
    }

    /// A program whose client hears nothing has said it in the log, or has died.
    fn said_in_the_log(&self, from: usize, child: u32) -> Outcome {
        let name = self.attempt.name;
        let is_end = |line: &str| {
            line.starts_with("end ") && support::value(line, "child") == Some(&*child.to_string())
        };
        let said = |line: &str| Outcome::of(name, line);
        match self.server.log_within(from, SOON, |line| is_end(line) || said(line).is_some()) {
            Err(why) => Outcome::Broken(format!("it said nothing, and the log: {why}")),
            Ok((_, line)) if is_end(&line) => match support::value(&line, "signal") {
                Some(signal) => Outcome::Blocked(format!("it was killed: SIG{signal}")),
                None => Outcome::Broken(format!("it said nothing: {line}")),
            },
            Ok((_, line)) => said(&line).expect("it was just read"),
        }
    }

    fn by_two_clients(&mut self) -> Outcome {
        let left = self.attempted(&["stage=leave".into()]);
        if !left.succeeded() {
            return left;
        }
        let ends = |log: &str| log.lines().filter(|line| line.starts_with("end ")).count();
        self.clients.clear();
        until("the client before has ended", || (ends(&self.server.log()) > 0).then_some(()));
        self.attempted(&["stage=find".into()])
    }

    /// The attempt's program without a server.
    fn outside(&self, more: &[String]) -> Outcome {
        let mut command = Command::new(self.world.path("jailbreak"));
        command.arg(self.attempt.name).args(self.keys.iter().map(|(key, value)| format!("{key}={value}")));
        told(as_user(command.args(more), self.user), self.attempt.name)
    }

    fn with_few_descriptors(&mut self) -> Outcome {
        for pid in self.bearers() {
            // Enough for a client that nothing confines; setting up more takes more.
            let open = fds(pid).map(|fds| fds.len()).unwrap_or(0);
            self.limit(pid, "nofile", open + 4);
        }
        self.unless_refused()
    }

    fn with_little_memory(&mut self) -> Outcome {
        for pid in self.bearers() {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let kib = procfs::value_of(&status, "VmSize")
                .and_then(|size| size.split(' ').next()?.parse::<usize>().ok());
            self.limit(pid, "as", kib.expect("a living process") * 1024 + (16 << 20));
        }
        self.unless_refused()
    }

    /// Sets a soft limit of a process, as its own user: root, without the capability for it, may not do it to others.
    fn limit(&self, pid: u32, resource: &str, most: usize) {
        support::need("prlimit", "util-linux");
        let mut command = Command::new("prlimit");
        command.args([format!("--pid={pid}"), format!("--{resource}={most}:")]);
        support::run(as_user(&mut command, self.operator));
    }

    /// The master, and whoever else of tine's children are born from.
    fn bearers(&self) -> Vec<u32> {
        let is_tine = |pid: &u32| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim_end() == "tine"
        };
        let others = descendants(self.server.pid()).into_iter().filter(is_tine);
        [self.server.pid()].into_iter().chain(others).collect()
    }

    /// Not to be served is as good an answer here as to be served and kept in.
    fn unless_refused(&mut self) -> Outcome {
        match self.attempted(&[]) {
            Outcome::Broken(why) if why == "the client was not served" => Outcome::Blocked(why),
            outcome => outcome,
        }
    }

    /// Whether what the program says is so.
    fn proven(&mut self, said: Outcome) -> Outcome {
        let not = |what: &str| Outcome::Blocked(format!("{what}, although it said {said}"));
        let Some((victim, pid)) = &mut self.victim else { return said };
        let pid = *pid;
        match self.attempt.proof {
            Proof::Word => said,
            Proof::Hears(signal) => match victim.line_within(SOON) {
                Some(line) if line == format!("signal {signal}") => said,
                other => not(&format!("the victim heard {other:?}")),
            },
            Proof::VictimDies => {
                let dead = || procfs::stat(pid).is_none_or(|stat| stat.state == 'Z').then_some(());
                until_within(SOON, dead).map_or_else(|| not("the victim lives"), |()| said.clone())
            }
            Proof::VictimStops => {
                let stopped = || procfs::stat(pid).is_some_and(|stat| stat.state == 'T').then_some(());
                let outcome =
                    until_within(SOON, stopped).map_or_else(|| not("the victim runs"), |()| said.clone());
                support::send(pid, Signal::CONT);
                outcome
            }
            Proof::VictimHas(what) => {
                let status = victim.say("status\n").ok().and_then(|()| victim.line_within(SOON));
                match status {
                    Some(line) if line.contains(what) => said,
                    other => not(&format!("the victim says {other:?}")),
                }
            }
            Proof::MasterSays(what) => match self.server.log_within(0, SOON, |line| line.starts_with(what)) {
                Ok(_) => said,
                Err(_) => not("the master did not notice"),
            },
            Proof::StrangerDies => {
                let stranger = self.stranger.as_mut().expect("there is one");
                let dead = until_within(SOON, || stranger.is_dead().then_some(()));
                dead.map_or_else(|| not("the stranger lives"), |()| said.clone())
            }
            Proof::Outlives => {
                self.clients.clear();
                let gone = until_within(AFTER_THE_END, || marked(&self.mark).is_empty().then_some(()));
                match gone {
                    Some(()) => Outcome::Blocked("all ended with the connection".into()),
                    None => {
                        marked(&self.mark).into_iter().for_each(end);
                        said
                    }
                }
            }
            Proof::OutlivesMaster => {
                self.server.signal(Signal::KILL);
                let dead = || procfs::stat(pid).is_none_or(|stat| stat.state == 'Z').then_some(());
                if until_within(SOON, dead).is_none() {
                    return Outcome::Broken("its sibling, which did nothing, lives on as well".into());
                }
                match until_within(SOON, || marked(&self.mark).is_empty().then_some(())) {
                    Some(()) => Outcome::Blocked("it was killed with its master".into()),
                    None => {
                        marked(&self.mark).into_iter().for_each(end);
                        said
                    }
                }
            }
        }
    }

    /// Everybody leaves.
    fn end(mut self) {
        self.clients.clear();
        self.victim = None;
        let _ = std::fs::remove_file(self.given("victim-file")); // of a victim that was killed
        if self.attempt.proof != Proof::OutlivesMaster {
            self.server.stop();
        }
    }
}

/// One client of the server, which hears lines.
struct Client(BufReader<Stream>);

impl Client {
    fn new(address: &str) -> Result<Client, String> {
        Stream::connect(address).map(|stream| Client(BufReader::new(stream))).map_err(|why| why.to_string())
    }

    fn say(&mut self, line: &str) -> Result<(), String> {
        self.0.get_mut().write_all(line.as_bytes()).map_err(|why| why.to_string())
    }

    /// The next line, or nothing when there is none any more.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line);
        matches!(read, Ok(1..)).then(|| line.trim_end().to_owned())
    }

    fn line_within(&mut self, wait: Duration) -> Option<String> {
        self.0.get_ref().set_timeout(Some(wait)).ok()?;
        self.line()
    }
}

/// Runs the program, and reads what it says.
fn told(command: &mut Command, name: &str) -> Outcome {
    let output = command.stdin(std::process::Stdio::null()).output().expect("the program can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| Outcome::of(name, line));
    line.unwrap_or_else(|| Outcome::Broken(format!("{} and {text:?}", output.status)))
}

/// Who has this among its arguments, and is not dead.
fn marked(mark: &str) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").expect("/proc is mounted");
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let has = |pid: &u32| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.windows(mark.len()).any(|part| part == mark.as_bytes())
            && procfs::stat(*pid).is_some_and(|stat| stat.state != 'Z')
    };
    pids.filter(has).collect()
}

/// Ends a process that a test's own program has left; one that has ended is left alone.
fn end(pid: u32) {
    let pid = Pid::from_raw(pid as i32).expect("a pid of the kernel's");
    if let Ok(it) = pidfd_open(pid, PidfdFlags::empty()) {
        let _ = pidfd_send_signal(&it, Signal::KILL);
    }
}

/// Compares what came of attempts that nothing confines with what must come of them; gives what differs.
pub fn differences_open(scenario: &Scenario, attempts: &[Attempt]) -> Vec<String> {
    let outcomes = scenario.outcomes(attempts);
    let expected = |attempt: &Attempt| if scenario.user == 0 { attempt.root } else { attempt.nobody };
    let mut wrong = Vec::new();
    for attempt in attempts {
        let outcome = &outcomes[attempt.name];
        println!("{} {outcome}", attempt.name);
        let right = match (expected(attempt), outcome) {
            (Open::Succeeds, Outcome::Succeeded(_)) => true,
            (Open::MayBeVoid(_), Outcome::Succeeded(_) | Outcome::Void(_)) => true,
            (Open::AsRoot, Outcome::Blocked(_)) => true,
            // What not even root can try here.
            (Open::AsRoot, Outcome::Void(_)) => matches!(attempt.root, Open::MayBeVoid(_)),
            (Open::MayBeRefused(_), Outcome::Blocked(_) | Outcome::Succeeded(_)) => true,
            // What it finds when there is something to find; where the kernel has no such thing, neither is there outside.
            (Open::Contract(_), Outcome::Blocked(_) | Outcome::Void(_)) => {
                let control = scenario.control(attempt);
                println!("{} outside: {control}", attempt.name);
                control.succeeded() || matches!((outcome, control), (Outcome::Void(_), Outcome::Void(_)))
            }
            _ => false,
        };
        if !right {
            wrong.push(format!("{} {outcome}, not {:?}", attempt.name, expected(attempt)));
        }
    }
    wrong
}

/// Compares what came of attempts under a profile with what must come of them; gives what differs. What is void is tried
/// without confinement as well, where it must be void or succeed.
pub fn differences_shut(
    scenario: &Scenario,
    attempts: &[Attempt],
    expected: impl Fn(&Attempt) -> Shut,
) -> Vec<String> {
    let outcomes = scenario.outcomes(attempts);
    let void: Vec<Attempt> = attempts
        .iter()
        .filter(|attempt| matches!(outcomes[attempt.name], Outcome::Void(_)))
        .copied()
        .collect();
    let (user, operator) = (scenario.user, scenario.operator);
    let open = Scenario { user, operator, ..Scenario::new(&["--confine", "none"]) }.outcomes(&void);
    let mut wrong = Vec::new();
    for attempt in attempts {
        let outcome = &outcomes[attempt.name];
        println!("{} {outcome}", attempt.name);
        let right = match (expected(attempt), outcome) {
            (_, Outcome::Blocked(_)) => true,
            (Shut::May(_), Outcome::Succeeded(_)) => true,
            // A call that is there without confinement, and is not with it, is refused as if the kernel had none such.
            (_, Outcome::Void(_)) => !matches!(open[attempt.name], Outcome::Broken(_)),
            _ => false,
        };
        if !right {
            wrong.push(format!("{} {outcome}, not {:?}", attempt.name, expected(attempt)));
        }
    }
    wrong
}
