//! Refusals of every kind, very many of each, and the counters must say exactly how many.
//!
//! Servers have leaked on the way out: a descriptor for each client that was sent away, memory for each line about one, a
//! slot for each that never came to be. So each way of not being served is walked as often as serving itself. For every
//! kind there is a server that refuses in that way and no other; when the clients have gone, its status line must have
//! counted each of them once and nothing else, its log must have stayed short, and the server must be as it was before.
//!
//! Beside what admission refuses there are clients that are gone before anybody looks at them, and those whose program
//! cannot be started: they are served as far as that is possible, and it is counted that none is lost.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_linger, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::Signal;

use crate::server::{DEADLINE, until_within};
use crate::{Baseline, Ready, Server, net, procfs};

/// Clients at a time.
const CLIENTS: usize = 32;

/// Clients that are in a listener's queue at a time, where they have to be there together. Less than any backlog.
const QUEUED: u64 = 500;

/// The user whom a server runs as that gets no more processes; nobody else's may count.
const LONELY: u32 = 54_322;

/// Enough processes for all its children.
const ENOUGH: &str = "1000";

/// A line about the same kind of refusal is written at most once in so many seconds.
const QUIET_SECONDS: f64 = 10.0;

/// One way of not being served.
#[derive(Clone, Copy)]
pub struct Kind {
    /// Its name, for the one who chooses.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    run: fn(&Bench, u64) -> Result<Seen, String>,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All kinds.
pub const KINDS: [Kind; 14] = [
    Kind { name: "full", about: "all children are taken, and nobody may wait", run: full },
    Kind { name: "early", about: "there are so many that chance decides, here against all", run: early },
    Kind { name: "source", about: "the source has as many as it may have", run: source },
    Kind { name: "rate", about: "the source comes too often", run: rate },
    Kind { name: "penalty", about: "the source is kept out", run: penalty },
    Kind { name: "denied", about: "a rule says so", run: denied },
    Kind { name: "late", about: "waited as long as one may", run: late },
    Kind { name: "left", about: "gone while it waited", run: left },
    Kind { name: "untrusted", about: "not a balancer that may speak for others", run: untrusted },
    Kind { name: "header", about: "a balancer whose PROXY header is none", run: bad_header },
    Kind { name: "absent", about: "a balancer that closes without a PROXY header", run: no_header },
    Kind { name: "gone", about: "reset before it was accepted", run: gone },
    Kind { name: "fork", about: "no process can be had for it, for a while", run: no_process },
    Kind { name: "exec", about: "its program is not there any more", run: no_program },
];

/// The kind of this name.
pub fn kind(name: &str) -> Option<Kind> {
    KINDS.into_iter().find(|kind| kind.name == name)
}

/// What was seen of a kind.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How many clients were refused.
    pub count: u64,
    /// How long that took.
    pub seconds: f64,
    /// What the status line said of them: what was added to each counter that is not as before.
    pub counters: BTreeMap<String, u64>,
    /// How many lines the server wrote meanwhile.
    pub log_lines: usize,
}

impl Kind {
    /// Has `count` clients refused in this way by the program `tine`.
    ///
    /// # Errors
    /// What a client saw instead, or a counter that is not exact. A server that does not become quiet again is a panic,
    /// as everywhere in the testkit.
    pub fn run(&self, tine: &Path, count: u64) -> Result<Seen, String> {
        let seen = (self.run)(&Bench { tine: tine.to_owned() }, count);
        seen.map(|seen| Seen { count, ..seen }).map_err(|why| format!("{}: {why}", self.name))
    }
}

/// The numbers of a server's status line: `open`, `max`, `waiting`, `served`, `refused.full` and the like. What is
/// not told there is not here.
pub fn counters(server: &Server) -> BTreeMap<String, u64> {
    let from = server.cursor();
    server.signal(Signal::USR1);
    let (_, line) = server.wait_log_from(from, |line| line.starts_with("status "));
    let mut counters = BTreeMap::new();
    for (key, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
        let (value, most) = value.split_once('/').map_or((value, None), |(value, most)| (value, Some(most)));
        let most = most.map(|most| ("max".to_owned(), most));
        for (key, value) in most.into_iter().chain([(key.to_owned(), value)]) {
            counters.insert(key, value.parse().unwrap_or_else(|_| server.fail(&format!("counters: {line}"))));
        }
    }
    counters
}

/// One counter; 0 when the status line does not name it.
pub fn counter(server: &Server, name: &str) -> u64 {
    counters(server).get(name).copied().unwrap_or(0)
}

/// Connects from an address of this machine, with [`DEADLINE`] as the time-out of each read and write.
///
/// # Errors
/// What bind(2) or connect(2) says.
pub fn connect_from(source: impl Into<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let source = source.into();
    let family = if source.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Of a socket that is not connected yet, this is the time-out of connect too: socket(7).
    set_socket_timeout(&socket, Timeout::Send, Some(DEADLINE))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(DEADLINE))?;
    bind(&socket, &SocketAddr::from((source, 0)))?;
    connect(&socket, &to)?;
    Ok(TcpStream::from(socket))
}

/// Ends a connection with a reset: the other side hears of it at once, and nothing of it stays behind here.
///
/// # Errors
/// What setsockopt(2) says.
pub fn reset(stream: TcpStream) -> io::Result<()> {
    set_socket_linger(&stream, Some(Duration::ZERO))?;
    Ok(())
}

/// All that comes until the end. A reset is an end too: whoever is refused may have said something nobody has read.
///
/// # Errors
/// What read(2) says, but for a reset; a server that says nothing in time.
pub fn to_the_end(stream: &TcpStream) -> io::Result<Vec<u8>> {
    let mut heard = Vec::new();
    match (&mut &*stream).read_to_end(&mut heard) {
        Err(why) if why.kind() != ErrorKind::ConnectionReset => Err(why),
        _ => Ok(heard),
    }
}

/// What all kinds are tried with.
struct Bench {
    tine: PathBuf,
}

/// Clients that are not refused: those of the baseline and of the end. Each comes from an address of its own.
static FRIENDS: AtomicU32 = AtomicU32::new(0);

/// Where the refused come from, unless a kind says otherwise: one address, or one after the other of its /16.
const REFUSED: Ipv4Addr = Ipv4Addr::new(127, 7, 7, 7);

/// Where balancers are that may speak for others.
const BALANCERS: &str = "127.8.0.0/16";

const ECHO: &[&str] = &["--", "cat"];

impl Bench {
    fn serve(&self, options: &[&str], program: &[&str]) -> Server {
        let listener = "127.0.0.1:0";
        let mut command = Command::new(&self.tine);
        command.args(["serve", "-1", listener]).args(options).args(program);
        Server::start(command, Ready::Ports(vec![listener.into()]))
    }

    /// Tries one kind: everything before `clients` is the server's own time, everything after is checked.
    ///
    /// `expected` is what the status line must have counted when they have gone, beside nothing.
    fn judge(
        &self,
        server: &Server,
        friend: fn(SocketAddr) -> io::Result<()>,
        expected: &[(&str, u64)],
        clients: impl FnOnce() -> Result<(), String>,
    ) -> Result<Seen, String> {
        let address = server.socket(0);
        let baseline = Baseline::with(server, move || friend(address));
        let (before, lines) = (counters(server), server.cursor());
        let start = Instant::now();
        clients()?;
        let seconds = start.elapsed().as_secs_f64();
        let expected: BTreeMap<String, u64> =
            expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let mut added = BTreeMap::new();
        until_within(DEADLINE, || {
            added = difference(&before, &counters(server));
            (added == expected).then_some(())
        });
        if added != expected {
            return Err(format!("counted {added:?} instead of {expected:?}\n{}", server.log()));
        }
        let log_lines = of_interest(server, lines);
        let lots = (start.elapsed().as_secs_f64() / QUIET_SECONDS) as usize + 1;
        if log_lines > LINES_A_LOT * lots {
            return Err(format!("{log_lines} lines of log for {lots} times ten seconds\n{}", server.log()));
        }
        server.quiescent(&baseline);
        // Nothing is counted after the end either; the friends of the checks before have been served.
        let mut after = difference(&before, &counters(server));
        after.remove("served");
        let expected = expected.into_iter().filter(|(name, _)| name != "served").collect();
        if after != expected {
            return Err(format!("counted {after:?} in the end instead of {expected:?}"));
        }
        if !server.stop().success() {
            return Err(format!("the server did not end well\n{}", server.log()));
        }
        Ok(Seen { count: 0, seconds, counters: added, log_lines })
    }
}

/// More lines than this in ten seconds are too many, whatever happens: one for each reason there may be, and pauses.
const LINES_A_LOT: usize = 12;

/// How many lines the log has from there on that nobody asked for.
fn of_interest(server: &Server, from: usize) -> usize {
    server.log().lines().skip(from).filter(|line| !line.starts_with("status ")).count()
}

/// What was added to which counter. The sum of the refusals is checked here, and left out; so are open children.
fn difference(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let reasons = after.iter().filter(|(name, _)| name.starts_with("refused."));
    let sum: u64 = reasons.map(|(_, count)| count).sum();
    let mut added = BTreeMap::new();
    for (name, count) in after {
        let own = !matches!(name.as_str(), "open" | "max" | "refused");
        let more = count.wrapping_sub(before.get(name).copied().unwrap_or(0));
        if own && more > 0 {
            added.insert(name.clone(), more);
        }
    }
    if after.get("refused") != Some(&sum) {
        added.insert("refused, which is not the sum of its reasons".into(), sum);
    }
    added
}

/// The next address of a /16.
fn one_of(network: [u8; 2], number: u64) -> Ipv4Addr {
    let [a, b] = network;
    Ipv4Addr::new(a, b, (number / 250 % 250) as u8 + 1, (number % 250) as u8 + 1)
}

/// A client that must be served: from an address that nobody had before.
fn friend(to: SocketAddr) -> io::Result<()> {
    friendly(to, "")
}

/// One who comes through a balancer, from an address that nobody had before.
fn friend_by_proxy(to: SocketAddr) -> io::Result<()> {
    friendly(to, "PROXY UNKNOWN\r\n")
}

fn friendly(to: SocketAddr, header: &str) -> io::Result<()> {
    let number = FRIENDS.fetch_add(1, Ordering::Relaxed).into();
    let network = if header.is_empty() { [127, 200] } else { [127, 8] };
    let stream = connect_from(one_of(network, number), to)?;
    (&stream).write_all(format!("{header}friend\n").as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut heard = String::new();
    (&stream).read_to_string(&mut heard)?;
    if heard == "friend\n" { Ok(()) } else { Err(io::Error::other(format!("a friend heard {heard:?}"))) }
}

/// Somebody who is here and stays until it is dropped: has said a line and heard it.
fn resident(source: Ipv4Addr, to: SocketAddr) -> Result<TcpStream, String> {
    let enter = || {
        let stream = connect_from(source, to)?;
        (&stream).write_all(b"here\n")?;
        (&stream).read_exact(&mut [0; 5])?;
        io::Result::Ok(stream)
    };
    enter().map_err(|why| format!("one who is to stay: {why}"))
}

/// So many clients, some at a time, each with its number; ends with the first that saw what it should not.
fn each(count: u64, client: impl Fn(u64) -> Result<(), String> + Sync) -> Result<(), String> {
    let next = AtomicU64::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            client(number).map_err(|why| format!("client {number}: {why}"))?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a client does not panic"))
    })
}

/// A client that says this, hears exactly that, and then the end.
fn hears(source: Ipv4Addr, to: SocketAddr, says: &[u8], expected: &str) -> Result<(), String> {
    let talk = || {
        let stream = connect_from(source, to)?;
        match (&stream).write_all(says) {
            // It was sent away before it could say a word.
            Err(why) if matches!(why.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            said => said?,
        }
        to_the_end(&stream)
    };
    let heard = talk().map_err(|why: io::Error| format!("from {source}: {why}"))?;
    if heard == expected.as_bytes() {
        Ok(())
    } else {
        Err(format!("from {source}: heard {:?} instead of {expected:?}", String::from_utf8_lossy(&heard)))
    }
}

fn full(bench: &Bench, count: u64) -> Result<Seen, String> {
    let server = bench.serve(&["-c", "1", "--on-full", "refuse:all are taken"], ECHO);
    let to = server.socket(0);
    bench.judge(&server, friend, &[("refused.full", count), ("served", 1)], || {
        let _resident = resident(one_of([127, 6], 0), to)?;
        each(count, |number| hears(one_of([127, 7], number), to, b"", "all are taken\n"))
    })
}

fn early(bench: &Bench, count: u64) -> Result<Seen, String> {
    let server = bench.serve(&["-c", "9", "--on-full", "1:100:9"], ECHO);
    let to = server.socket(0);
    bench.judge(&server, friend, &[("refused.early", count), ("served", 1)], || {
        let _resident = resident(one_of([127, 6], 0), to)?;
        each(count, |number| hears(one_of([127, 7], number), to, b"", ""))
    })
}

fn source(bench: &Bench, count: u64) -> Result<Seen, String> {
    let server = bench.serve(&["-C", "1:one is enough"], ECHO);
    let to = server.socket(0);
    bench.judge(&server, friend, &[("refused.source", count), ("served", 1)], || {
        let _resident = resident(REFUSED, to)?;
        each(count, |_| hears(REFUSED, to, b"", "one is enough\n"))
    })
}

fn rate(bench: &Bench, count: u64) -> Result<Seen, String> {
    let server = bench.serve(&["--rate-per-source", "1/h"], ECHO);
    let to = server.socket(0);
    bench.judge(&server, friend, &[("refused.rate", count), ("served", 1)], || {
        drop(resident(REFUSED, to)?);
        each(count, |_| hears(REFUSED, to, b"", ""))
    })
}

fn penalty(bench: &Bench, count: u64) -> Result<Seen, String> {
    // What is not a friend's line ends badly.
    let program = ["--", "sh", "-c", r#"read line && echo "$line" && test "$line" = friend"#];
    let server = bench.serve(&["--penalty", "exit=1h,max=1h,min=1s"], &program);
    let to = server.socket(0);
    bench.judge(&server, friend, &[("refused.penalty", count), ("served", 1), ("failed", 1)], || {
        drop(resident(REFUSED, to)?);
        let punished = server.log_within(0, DEADLINE, |line| line.starts_with("penalty "));
        punished?;
        each(count, |_| hears(REFUSED, to, b"", ""))
    })
}

fn denied(bench: &Bench, count: u64) -> Result<Seen, String> {
    let server = bench.serve(&["--deny", "127.7.0.0/16"], ECHO);
    let to = server.socket(0);
    bench.judge(&server, friend, &[("refused.denied", count)], || {
        each(count, |number| hears(one_of([127, 7], number), to, b"", ""))
    })
}

fn late(bench: &Bench, count: u64) -> Result<Seen, String> {
    let server = bench.serve(&["-c", "1", "--on-full", "queue:64:20ms:wait"], ECHO);
    let to = server.socket(0);
    bench.judge(&server, friend, &[("refused.late", count), ("served", 1)], || {
        let _resident = resident(one_of([127, 6], 0), to)?;
        each(count, |number| hears(one_of([127, 7], number), to, b"", "wait\n"))
    })
}

fn left(bench: &Bench, count: u64) -> Result<Seen, String> {
    // They are told that they wait, so they know. Some of those in the room have left without the server knowing yet.
    let server = bench.serve(&["-c", "1", "--on-full", "queue:1000:1h:wait"], ECHO);
    let to = server.socket(0);
    bench.judge(&server, friend, &[("refused.left", count), ("served", 1)], || {
        let _resident = resident(one_of([127, 6], 0), to)?;
        each(count, |number| {
            let leave = || {
                let stream = connect_from(one_of([127, 7], number), to)?;
                (&stream).read_exact(&mut [0; 5])?;
                // Half of them leave as one does, half of them harder.
                if number % 2 == 0 { Ok(()) } else { reset(stream) }
            };
            leave().map_err(|why| why.to_string())
        })?;
        let stay = || counters(&server).get("waiting").copied().unwrap_or(0);
        let empty = until_within(DEADLINE, || (stay() == 0).then_some(()));
        empty.ok_or_else(|| format!("{} still wait who have left", stay()))
    })
}

fn proxy(bench: &Bench) -> Server {
    bench.serve(&["-c", "64", "--proxy", "required", "--proxy-from", BALANCERS], ECHO)
}

fn untrusted(bench: &Bench, count: u64) -> Result<Seen, String> {
    let server = proxy(bench);
    let to = server.socket(0);
    bench.judge(&server, friend_by_proxy, &[("refused.untrusted", count)], || {
        each(count, |number| hears(one_of([127, 7], number), to, b"", ""))
    })
}

fn bad_header(bench: &Bench, count: u64) -> Result<Seen, String> {
    let server = proxy(bench);
    let to = server.socket(0);
    const HEADERS: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0",
        b"PROXY \0\r\n",
    ];
    bench.judge(&server, friend_by_proxy, &[("refused.proxy", count)], || {
        each(count, |number| {
            hears(one_of([127, 8], number), to, HEADERS[(number % HEADERS.len() as u64) as usize], "")
        })
    })
}

fn no_header(bench: &Bench, count: u64) -> Result<Seen, String> {
    let server = proxy(bench);
    let to = server.socket(0);
    bench.judge(&server, friend_by_proxy, &[("refused.proxy", count)], || {
        each(count, |number| {
            let come = || {
                let stream = connect_from(one_of([127, 8], number), to)?;
                match number % 3 {
                    // It has begun, it says nothing, it leaves the hard way.
                    0 => (&stream).write_all(b"PROXY TCP4 192.0.2.1 ")?,
                    1 => {}
                    _ => return reset(stream),
                }
                // Once: when it has been refused for that there is no connection any more.
                stream.shutdown(std::net::Shutdown::Write)?;
                to_the_end(&stream).map(drop)
            };
            come().map_err(|why| why.to_string())
        })
    })
}

fn gone(bench: &Bench, count: u64) -> Result<Seen, String> {
    // They are accepted before it can be known that they have gone, so each gets a child, which finds nobody there.
    let program = ["--", "sh", "-c", r#"read line && echo "$line"; exit 0"#];
    let server = bench.serve(&[], &program);
    let to = server.socket(0);
    bench.judge(&server, friend, &[("served", count)], || {
        let mut done = 0;
        while done < count {
            let lot = QUEUED.min(count - done);
            server.signal(Signal::STOP);
            let come = each(lot, |number| {
                let client = connect_from(one_of([127, 7], done + number), to).and_then(reset);
                client.map_err(|why| why.to_string())
            });
            server.signal(Signal::CONT);
            come?;
            emptied(&server)?;
            done += lot;
        }
        Ok(())
    })
}

/// Waits until nobody is left in the listener's queue.
fn emptied(server: &Server) -> Result<(), String> {
    let queue = || {
        let listens = |socket: &net::Socket| socket.state == net::LISTEN && socket.local == server.socket(0);
        net::tcp_sockets().into_iter().find(listens).map(|socket| socket.receive_queue)
    };
    let empty = until_within(DEADLINE, || (queue() == Some(0)).then_some(()));
    empty.ok_or_else(|| format!("{:?} clients are still in the queue", queue()))
}

fn no_process(bench: &Bench, count: u64) -> Result<Seen, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("this takes root: a user of its own, who may have no more processes".into());
    }
    let folder = Folder::new()?;
    let tine = folder.copy(&bench.tine, "tine")?;
    let listener = "127.0.0.1:0";
    let mut command = Command::new(&tine);
    // What is over is not to be counted as a process: a child's session is alone.
    command.args(["serve", "-1", listener, "-c", "256", "-C", "256"]).args(ECHO);
    command.uid(LONELY).gid(LONELY).current_dir("/");
    let server = Server::start(command, Ready::Ports(vec![listener.into()]));
    let to = server.socket(0);
    bench.judge(&server, friend, &[("served", count)], || {
        let mut done = 0;
        while done < count {
            let lot = QUEUED.min(count - done);
            limit_processes(&server, "1")?;
            let come = || -> io::Result<Vec<TcpStream>> {
                let mut clients = Vec::new();
                for number in 0..lot {
                    let client = connect_from(one_of([127, 7], done + number), to)?;
                    (&client).write_all(b"patient\n")?;
                    client.shutdown(std::net::Shutdown::Write)?;
                    clients.push(client);
                }
                Ok(clients)
            };
            let clients = come().map_err(|why| why.to_string())?;
            let rests = until_within(DEADLINE, || (server.status().paused == 1).then_some(()));
            rests.ok_or("the listener does not rest though there can be no child")?;
            limit_processes(&server, ENOUGH)?;
            for client in &clients {
                let heard = to_the_end(client).map_err(|why| why.to_string())?;
                if heard != b"patient\n" {
                    return Err(format!("one who had to wait heard {:?}", String::from_utf8_lossy(&heard)));
                }
            }
            done += lot;
        }
        Ok(())
    })
}

/// How many processes the server's user may have from now on, as prlimit(1) has it, for whoever of it gives birth. Only that user may say so without
/// a privilege that root in a container lacks.
fn limit_processes(server: &Server, most: &str) -> Result<(), String> {
    for pid in [server.pid()].into_iter().chain(procfs::templates(server.pid())) {
        let mut command = Command::new("prlimit");
        command.arg(format!("--pid={pid}")).arg(format!("--nproc={most}:"));
        let status = command.uid(LONELY).gid(LONELY).current_dir("/").stdin(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => {}
            other => return Err(format!("{command:?}: {other:?}")),
        }
    }
    Ok(())
}

fn no_program(bench: &Bench, count: u64) -> Result<Seen, String> {
    let folder = Folder::new()?;
    let removed = folder.copy(Path::new("/bin/cat"), "removed")?;
    let rules = folder.file("rules");
    fs::write(&rules, format!("allow 127.7.0.0/16 exec={}\n", removed.display()))
        .map_err(|why| format!("write the rules: {why}"))?;
    let server = bench.serve(&["--rules", &rules.to_string_lossy()], ECHO);
    fs::remove_file(&removed).map_err(|why| format!("remove the program: {why}"))?;
    let to = server.socket(0);
    // A listener rests after each failure, longer each time, until somebody could be served: so one in 20 is, and the
    // test is not about the rests.
    let expected = [("served", count + count / LOT), ("failed", count)];
    bench.judge(&server, friend, &expected, || {
        each(count, |number| {
            hears(one_of([127, 7], number), to, b"", "")?;
            let turn = number % LOT == LOT - 1;
            if turn { friend(to).map_err(|why| why.to_string()) } else { Ok(()) }
        })
    })
}

/// Of the clients without a program, after how many there is one with.
const LOT: u64 = 20;

/// A folder that everybody may look into, and that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tine-refusals-{}-{number}", std::process::id()));
        let make = || {
            let _ = fs::remove_dir_all(&path); // of a process that had this id before
            fs::create_dir(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        };
        make().map_err(|why| format!("make {}: {why}", path.display()))?;
        Ok(Folder(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Copies a program here. Another process writes it: a descriptor of ours would be in every child that is started
    /// meanwhile, and executing the copy would fail with "Text file busy".
    fn copy(&self, program: &Path, name: &str) -> Result<PathBuf, String> {
        let to = self.file(name);
        let status =
            Command::new("install").args(["-m", "755"]).arg(program).arg(&to).stdin(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => Ok(to),
            other => Err(format!("copy {} to {}: {other:?}", program.display(), to.display())),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // whatever keeps it changes nothing
    }
}
