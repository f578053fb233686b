//! The words of the command line, each defined once: parsing, help, manual page and completions come from here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tine::admit::Mask;
use tine::{ACCEPTORS_MOST, Group, OnFull, Penalties, Prefixes, Rate, Sequence, Span, Spares};

use crate::command::serve::amount;
use crate::exit;

/// Puts any program on the network, with a process for every client.
#[derive(Debug, Parser)]
#[command(name = "tine", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "Try it:  tine serve 127.0.0.1:7000 -v -- cat    and    tine connect 127.0.0.1:7000")]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve a program: each client that connects gets an instance of its own
    Serve(Box<Serve>),
    /// Show what the program would give up, step by step, with the reasons: takes what serve takes, and changes nothing
    Explain(Box<Explain>),
    /// Show what this system can do, layer by layer, and which profiles work on it
    Doctor(Doctor),
    /// Be a client: standard input goes there, what comes back goes to standard output
    Connect(Connect),
    /// Print a script that completes tine's words in a shell
    Completions(Completions),
    /// Print the manual page, tine(8); read it with: tine man | man -l -
    Man,
}

/// `tine serve`
#[derive(Debug, Args)]
#[command(override_usage = "tine serve ADDR... [OPTIONS] -- PROGRAM [ARG...]")]
#[command(after_help = "\
Addresses: :PORT, HOST:PORT, [IPV6]:PORT, tcp://HOST:PORT, udp://HOST:PORT, unix:/PATH, unix:@NAME,
seqpacket:/PATH, unixgram:/PATH, vsock:CID:PORT, fd:N, systemd:NAME; options of the socket follow
after a question mark, as in unix:/run/x?mode=0660. All of them: tine man.")]
pub struct Serve {
    /// Where to listen, one or more
    #[arg(value_name = "ADDR")]
    pub addresses: Vec<String>,

    /// The program, by path or by name in PATH, and its arguments
    #[arg(value_name = "PROGRAM", last = true)]
    pub program: Vec<OsString>,

    /// Children at once, in all; a tenth of them is kept for networks that have nobody here
    #[arg(short, long, value_name = "N", default_value = "256", value_parser = children)]
    pub children: usize,

    /// Children of one source at once, those that wait counted; a quarter of all unless given. One more is refused, and told
    /// MESSAGE
    #[arg(short = 'C', long, value_name = "N[:MESSAGE]", value_parser = per_source)]
    pub per_source: Option<(usize, Option<String>)>,

    /// What a source is: so many bits of an IPv4 address, and so many of an IPv6 address. A client of a Unix socket is its
    /// user
    #[arg(long, value_name = "BITS:BITS", default_value = "32:64", value_parser = mask)]
    pub source_mask: Mask,

    /// Children that only clients of networks (IPv4 /16, IPv6 /32) without one may have; a tenth of all unless given
    #[arg(long, value_name = "N")]
    pub reserve: Option<usize>,

    /// How fast clients are taken in all, as N/s, N/m or N/h, and how many at once; others wait in the kernel's queue
    #[arg(long, value_name = "RATE[:BURST]")]
    pub rate: Option<Rate>,

    /// How fast the clients of one source may come; more are refused
    #[arg(long, value_name = "RATE[:BURST]")]
    pub rate_per_source: Option<Rate>,

    /// What becomes of clients that there is no child for: wait; queue:N:TIME; refuse; or START:PERCENT:FULL, to refuse at
    /// random, the more the fuller. After queue and refuse a message may follow, with a colon; %d in it is the place
    #[arg(long, value_name = "HOW", default_value = "wait")]
    pub on_full: OnFull,

    /// How long a source is kept out for how its clients end, added up, as in crash=90s,signal=30s,exit.75=10s,exit=1s,
    /// timeout=10s,nobytes=1s,refused=1s,max=10m,min=15s
    #[arg(long, value_name = "NAME=TIME,...", default_value = "none")]
    pub penalty: Penalties,

    /// Networks that are never kept out by a penalty
    #[arg(long, value_name = "PREFIX,...")]
    pub penalty_exempt: Option<Prefixes>,

    /// Who may come in, and nobody else: prefixes, user:NAME, unix, vsock:CID, all. May be repeated
    #[arg(long, value_name = "WHO,...", value_delimiter = ',')]
    pub allow: Vec<String>,

    /// Who may not come in; the most specific of all rules decides. May be repeated
    #[arg(long, value_name = "WHO,...", value_delimiter = ',')]
    pub deny: Vec<String>,

    /// A file of rules: who may come in, with which limits, variables or program; read again at SIGHUP
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// Every connection begins with a PROXY header, version 1 or 2, in which a balancer names the client
    #[arg(long, value_name = "WHEN", value_enum, requires = "proxy_from")]
    pub proxy: Option<Proxy>,

    /// Which balancers may name clients: prefixes, and unix for whoever connects to a Unix socket
    #[arg(long, value_name = "PREFIX,...", requires = "proxy")]
    pub proxy_from: Option<String>,

    /// How long a balancer has to name its client; 10s unless given
    #[arg(long, value_name = "TIME", requires = "proxy", value_parser = deadline)]
    pub proxy_timeout: Option<Span>,

    /// End a connection whose client has not said a byte in this time
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub first_byte_timeout: Option<Span>,

    /// End a connection on which for this time no byte has gone either way
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub idle_timeout: Option<Span>,

    /// End a connection after this time in all
    #[arg(long, value_name = "TIME", value_parser = deadline)]
    pub time_limit: Option<Span>,

    /// How a connection is ended: signals to the program's process group, each with a time until the next, and last of all
    /// everything is killed that the program has started
    #[arg(long, value_name = "SIGNAL[:TIME],...", default_value = "hup:2s,term:2s,kill")]
    pub end: Sequence,

    /// Children to have ready before their clients come, at least and at most: born, set up and confined, they only become the
    /// program when they are given one. How many there are follows how many come; those who find none get a child as ever
    #[arg(long, value_name = "MIN:MAX", value_parser = spares, conflicts_with = "proxy")]
    pub spare: Option<Spares>,

    /// Processes that accept, each for one processor; all limits hold over all of them. auto is as many as there are
    /// processors
    #[arg(long, value_name = "N|auto", default_value = "1", value_parser = acceptors)]
    pub acceptors: usize,

    /// Replace a spare that has waited for so long, so that no client gets an old address layout; 1m unless given
    #[arg(long, value_name = "TIME", value_parser = age, requires = "spare")]
    pub spare_age: Option<Span>,

    /// By what all that a program starts is held together, so that it ends with its connection
    #[arg(long, value_name = "BY", value_enum, default_value = "auto")]
    pub trees: Trees,

    /// What becomes of the programs when tine is killed
    #[arg(long, value_name = "FATE", value_enum, default_value = "finish")]
    pub orphans: Orphans,

    /// When all listeners are ready, print the port of each (nothing where there is none) and a newline, then close
    /// standard output
    #[arg(short = '1')]
    pub print_ports: bool,

    /// Log every client: a line when it is accepted, and one when its child has ended
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,

    /// Log errors only
    #[arg(short, long)]
    pub quiet: bool,

    /// What the program's standard error is
    #[arg(long, value_name = "WHERE", value_enum, default_value = "log")]
    pub stderr: Stderr,

    /// By which convention the program is told who its client is
    #[arg(long, value_name = "STYLE", value_enum, default_value = "ucspi")]
    pub env: Style,

    /// Set a variable for the program; without a value, to what it is in the environment of tine. May be repeated
    #[arg(short = 'E', value_name = "NAME[=VALUE]")]
    pub variables: Vec<OsString>,

    /// Run the program as this user (and group), by name or number, with the groups that the database gives the user
    #[arg(long, value_name = "USER[:GROUP]", value_parser = NonEmptyStringValueParser::new())]
    pub user: Option<String>,

    /// What the program gives up: none; guarded (it reads files, writes none, has no network but its client, and cannot touch its
    /// neighbours); sealed (guarded, in a small world of its own: for programs that run what clients give them); or a
    /// profile of your own, by its path. tine explain shows it line by line
    #[arg(long, value_name = "PROFILE", default_value = "guarded", value_parser = NonEmptyStringValueParser::new())]
    pub confine: String,

    /// What becomes of a layer of the profile that this system cannot do: refuse to start, or warn and do without
    #[arg(long, value_name = "WHAT", value_enum, default_value = "refuse")]
    pub confine_missing: ConfineMissing,

    /// What the program may read, with all beneath it. guarded lets it read everything that its user may, unless this is given;
    /// sealed shows it system directories, and what is named here. May be repeated
    #[arg(long, value_name = "PATH,...", value_delimiter = ',')]
    pub read: Vec<PathBuf>,

    /// What the program may write to, with all beneath it. May be repeated
    #[arg(long, value_name = "PATH,...", value_delimiter = ',')]
    pub write: Vec<PathBuf>,

    /// What the program may execute, with all beneath it, beside itself; everything that it may read unless given. May be
    /// repeated
    #[arg(long, value_name = "PATH,...", value_delimiter = ',')]
    pub exec: Vec<PathBuf>,

    /// What the program may connect to: TCP ports, at any host; unix, for Unix sockets; all, with UDP. May be repeated
    #[arg(long, value_name = "[HOST:]PORT|unix|all,...", value_delimiter = ',')]
    pub connect: Vec<tine::Connect>,

    /// The program may bind sockets and listen at them
    #[arg(long)]
    pub listen_ok: bool,

    /// System calls that the program may use although its profile refuses them, by name. May be repeated
    #[arg(long, value_name = "CALL,...", value_delimiter = ',')]
    pub syscall: Vec<String>,

    /// sealed: take the system directories from here instead of the machine's own
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// sealed: show the program a file or directory, elsewhere if TO is given, and let it write there with rw. May be repeated
    #[arg(long, value_name = "FROM[:TO][:rw]")]
    pub bind: Vec<String>,

    /// sealed: a file system in memory of each client's own, of this size; /tmp is one of 16M unless given. May be repeated
    #[arg(long, value_name = "DIR[:SIZE]")]
    pub tmpfs: Vec<String>,

    /// sealed: which namespaces each client has of its own; the others it shares with the service's other clients, and no
    /// processes with anybody. Without mount there is no /proc, and no /tmp that can be written to
    #[arg(
        long,
        value_name = "pid|mount|net|ipc|uts,...",
        value_delimiter = ',',
        value_enum,
        default_value = "pid,mount"
    )]
    pub own: Vec<Own>,

    /// sealed: whether a process of tine's is the first in each pid namespace. The kernel spares the first one signals that would
    /// end any other, and leaves orphans to it; a program that is to be first itself is born faster
    #[arg(long, value_name = "WHETHER", value_enum, default_value = "yes")]
    pub init: YesNo,

    /// Run the program in this directory; where tine was started unless given
    #[arg(long, value_name = "DIR")]
    pub chdir: Option<PathBuf>,

    /// Permissions, in octal, that files made by the program do not get
    #[arg(long, value_name = "OCTAL", default_value = "077", value_parser = umask)]
    pub umask: u32,

    /// Limit a resource of the program, as setrlimit(2) counts it: bytes, seconds of processor time, or items, with a
    /// suffix K, M or G, or "unlimited"; HARD is SOFT unless given. May be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub rlimit: Vec<String>,

    /// Limit the memory of each connection's program and all that it starts together: bytes, with a suffix K, M or G; beyond it
    /// they are killed. Takes a control group, as --pids and --cpu do
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,

    /// Limit how many processes and threads each connection's program and all that it starts may be
    #[arg(long, value_name = "N", value_parser = pids)]
    pub pids: Option<u64>,

    /// Limit the processor time of each connection's program and all that it starts, in hundredths of one processor; may be
    /// over 100
    #[arg(long, value_name = "PERCENT", value_parser = cpu)]
    pub cpu: Option<u32>,

    /// Clients that may wait in the kernel's queue of each listener whose address does not say so itself
    #[arg(long, value_name = "N", default_value = "4096", value_parser = backlog)]
    pub backlog: u32,

    /// How the program serves datagrams; needed for udp: and unixgram: addresses
    #[arg(long, value_name = "HOW", value_enum)]
    pub datagram: Option<Datagram>,

    /// With --datagram peer: seconds without a datagram in either direction after which a child's connection ends; 60
    /// unless given
    #[arg(long, value_name = "SECONDS", requires = "datagram", value_parser = idle)]
    pub datagram_idle: Option<u64>,

    /// With --datagram peer or each: answer datagrams from ports below 1024 too, where services live that would answer
    /// the answer
    #[arg(long, requires = "datagram")]
    pub reply_to_low_ports: bool,

    /// With --datagram each: how many times as long as its question a reply may be, headers included; longer ones are
    /// dropped; 0 is no limit; 3 unless given
    #[arg(long, value_name = "N", requires = "datagram")]
    pub amplification: Option<u32>,

    /// With --datagram peer or each: how many processes carry the datagrams of each udp: address, each with a socket of its
    /// own; the kernel keeps a peer with one of them; 1 unless given
    #[arg(long, value_name = "N", requires = "datagram", value_parser = workers)]
    pub workers: Option<usize>,

    /// Seconds that children have to finish once tine was told to end; then they get SIGTERM, and SIGKILL 2 seconds later
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = patience)]
    pub drain: u64,
}

/// `tine explain`
#[derive(Debug, Args)]
#[command(override_usage = "tine explain [ADDR...] [OPTIONS] [-- PROGRAM [ARG...]]")]
pub struct Explain {
    #[command(flatten)]
    pub serve: Serve,

    /// For machines: print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// `tine doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// For machines: print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// `tine connect`
#[derive(Debug, Args)]
pub struct Connect {
    /// Where the server is, as tine serve has it: HOST:PORT, :PORT (this machine), udp://HOST:PORT, unix:/PATH,
    /// seqpacket:/PATH, unixgram:/PATH, vsock:CID:PORT
    #[arg(value_name = "ADDR")]
    pub address: String,

    /// For datagrams: seconds to wait for replies after the end of input and the last reply
    #[arg(short, long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub wait: f64,
}

/// `tine completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// For which shell
    #[arg(value_name = "SHELL", value_parser = shell())]
    pub shell: Shell,
}

/// Whether connections begin with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Proxy {
    /// all of them do; one without is refused
    Required,
}

/// By what all that a program starts is held together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Trees {
    /// a control group where one can be had, else subreapers
    Auto,
    /// a control group (version 2) for each connection
    Cgroup,
    /// subreapers: each program inherits the orphans of what it has started
    Subreaper,
}

/// What becomes of the programs when tine is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Orphans {
    /// they go on until their clients leave
    Finish,
    /// they are killed; without control groups, what they have started is not
    Die,
}

/// What becomes of a layer that this system cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfineMissing {
    /// tine does not start
    Refuse,
    /// tine says so and does without
    Warn,
}

/// Whether.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum YesNo {
    /// it is
    Yes,
    /// the program is
    No,
}

/// A namespace that each client may have of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Own {
    /// process ids; each has these in any case
    Pid,
    /// mounts, with a /tmp and a /proc
    Mount,
    /// interfaces, ports, abstract sockets
    Net,
    /// System V objects, message queues
    Ipc,
    /// host name
    Uts,
}

/// What the program's standard error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stderr {
    /// standard error of tine
    Log,
    /// the client
    Socket,
    /// nothing, /dev/null
    Null,
}

/// By which convention the program is told who its client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// PROTO, TCPREMOTEIP and the others of UCSPI; REMOTE_ADDR, REMOTE_PORT; TINE_ID
    Ucspi,
    /// REMOTE_HOST, REMOTE_ADDR, REMOTE_PORT, as xinetd; TINE_ID
    Inetd,
    /// the client on descriptor 3, LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES; REMOTE_ADDR, REMOTE_PORT, SO_COOKIE; TINE_ID
    Systemd,
    /// nothing but PATH and what -E names
    None,
}

/// How the program serves datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Datagram {
    /// it gets the listening socket, reads as many as it likes and ends; the next one starts when the next comes
    Wait,
    /// a child for each peer, with a connection that carries that peer's datagrams as records
    Peer,
    /// a child for each datagram, which is its input; what it writes until it ends is the reply
    Each,
}

/// What the operator wants; or the code to end with, when that was help or a mistake, which has been told.
pub fn parse() -> Result<Verb, ExitCode> {
    Cli::try_parse().map(|cli| cli.verb).map_err(|why| {
        let _ = why.print();
        if !why.use_stderr() {
            return ExitCode::SUCCESS;
        }
        let words: Vec<_> = std::env::args_os().skip(1).collect();
        let serving = words.first().is_some_and(|verb| verb == "serve" || verb == "explain");
        if why.kind() == ErrorKind::UnknownArgument && serving && !words.iter().any(|word| word == "--") {
            exit::say("The program that is to be served, and its own options, follow '--'.");
        }
        ExitCode::from(exit::OPERATOR)
    })
}

fn children(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("without a child nobody can be served; the least is 1".into()),
        Ok(count) if count <= CHILDREN_MOST => Ok(count),
        _ => Err(format!("it is a number from 1 to {CHILDREN_MOST}")),
    }
}

/// More processes than any Linux has: PID_MAX_LIMIT in proc_sys_kernel(5).
const CHILDREN_MOST: usize = 4_194_304;

fn per_source(text: &str) -> Result<(usize, Option<String>), String> {
    let (count, message) =
        text.split_once(':').map_or((text, None), |(count, message)| (count, Some(message)));
    let message = message.filter(|message| !message.is_empty()).map(str::to_owned);
    match message {
        Some(message) if message.len() > MESSAGE_MOST => {
            Err(format!("a message has at most {MESSAGE_MOST} bytes, this one {}", message.len()))
        }
        message => children(count).map(|count| (count, message)),
    }
}

/// What a client is told fits in one segment.
const MESSAGE_MOST: usize = 500;

fn acceptors(text: &str) -> Result<usize, String> {
    match text.parse() {
        _ if text == "auto" => Ok(0),
        Ok(count) if (1..=ACCEPTORS_MOST).contains(&count) => Ok(count),
        _ => Err(format!("it is a number from 1 to {ACCEPTORS_MOST}, or auto")),
    }
}

fn spares(text: &str) -> Result<Spares, String> {
    let form = || format!("it is MIN:MAX, as in 8:32, and at most {SPARES_MOST}");
    let (least, most) = text.split_once(':').ok_or_else(form)?;
    let number = |text: &str| text.parse::<usize>().ok().filter(|count| *count <= SPARES_MOST);
    let (least, most) = number(least).zip(number(most)).ok_or_else(form)?;
    match (least > most, most) {
        (true, _) => Err(format!("{least} at least are more than {most} at most")),
        (_, 0) => Err("none at most is none at all; leave the option out".into()),
        _ => Ok(Spares::new(least, most)),
    }
}

fn age(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span.0.is_zero() {
        Err("a spare of no age is none; without the option it is 1m".into())
    } else {
        Ok(span)
    }
}

/// Each takes a process and a descriptor of tine, whether anybody comes or not.
const SPARES_MOST: usize = 1024;

fn mask(text: &str) -> Result<Mask, String> {
    let bits = |text: &str, most| text.parse::<u8>().ok().filter(|bits| *bits <= most);
    let both = text.split_once(':').and_then(|(v4, v6)| bits(v4, 32).zip(bits(v6, 128)));
    both.map(|(v4, v6)| Mask { v4, v6 }).ok_or_else(|| "it is 0 to 32 and 0 to 128, as in 32:64".into())
}

fn deadline(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span.0.is_zero() {
        Err("nobody is as fast as that; without the option there is no deadline".into())
    } else {
        Ok(span)
    }
}

fn backlog(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=i32::MAX as u32).contains(n))
        .ok_or_else(|| "it is a number from 1 on".into())
}

fn umask(text: &str) -> Result<u32, String> {
    let mask = u32::from_str_radix(text, 8).ok().filter(|mask| *mask <= 0o777);
    mask.ok_or_else(|| "a mask is octal, 0 to 777".into())
}

fn memory(text: &str) -> Result<u64, String> {
    let bytes =
        amount(text).flatten().ok_or("it is a number of bytes, with K, M or G if it is large, as in 64M")?;
    could_be(Group { memory: Some(bytes), ..Group::default() })?;
    Ok(bytes)
}

fn pids(text: &str) -> Result<u64, String> {
    let count = text.parse().unwrap_or(0);
    could_be(Group { pids: Some(count), ..Group::default() })?;
    Ok(count)
}

fn cpu(text: &str) -> Result<u32, String> {
    let percent = text.parse().unwrap_or(0);
    could_be(Group { cpu: Some(percent), ..Group::default() })?;
    Ok(percent)
}

fn could_be(group: Group) -> Result<(), String> {
    group.check().map_err(|why| why.to_string())
}

fn idle(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| (1..=SECONDS_MOST).contains(seconds));
    seconds.ok_or_else(|| format!("it is a number of seconds from 1 to {SECONDS_MOST}"))
}

fn workers(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=WORKERS_MOST).contains(count));
    count.ok_or_else(|| format!("it is a number from 1 to {WORKERS_MOST}"))
}

/// More than most machines have processors; each worker may keep thousands of connections.
const WORKERS_MOST: usize = 256;

fn patience(text: &str) -> Result<u64, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= SECONDS_MOST);
    seconds.ok_or_else(|| format!("it is a number of seconds from 0 to {SECONDS_MOST}"))
}

/// Eleven days: what is longer is no time to wait.
const SECONDS_MOST: u64 = 1_000_000;

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=1e6).contains(seconds));
    seconds.ok_or_else(|| "it is a number of seconds, such as 1 or 0.2".into())
}

/// The shells that we look after, of those that clap_complete knows.
fn shell() -> impl clap::builder::TypedValueParser<Value = Shell> {
    use clap::builder::TypedValueParser as _;
    clap::builder::PossibleValuesParser::new(["bash", "zsh", "fish"])
        .map(|name| name.parse().expect("these are among the shells of clap_complete"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }
}
