//! `tine serve`: one program, for everybody who connects.
//!
//! Whatever the operator could have got wrong is looked at first; then the listeners are bound; then the library serves.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tine::admit::{Rule, Who};
use tine::{
    Balancers, Bind, DatagramMode, Error, Event, Group, Identity, Keep, Layer, Limit, Limits, Listen, Memory,
    OnFull, Opens, Orphans, Plan, PlanError, Prefixes, Profile, Program, Rules, Server, Sockets, Stderr,
    Transport, WhenMissing, World,
};

use crate::environ;
use crate::exit::{self, Failure, Outcome};
use crate::flags::{self, Datagram, Serve, Style};
use crate::log::{Level, Log};

/// How long a peer's connection lives without a datagram, unless another time is asked for.
const DATAGRAM_IDLE: u64 = 60;

/// How many times as long as its question a reply may be, unless another number is asked for.
const AMPLIFICATION: u32 = 3;

/// Serves until the end is asked for.
pub fn serve(flags: Serve) -> Outcome {
    let listens = addresses(&flags)?;
    let program = program(&flags)?;
    let program = match datagrams(&flags, &listens)? {
        Some(mode) => program.datagrams(mode),
        None => program,
    };
    let plan = plan(&flags)?;
    // Before there is a listener: what no child could do is told now.
    plan.prepare().map_err(|why| wrong(&flags, why))?;
    let limits = limits(&flags)?;
    let mut server = Server::new()
        .limits(|all| *all = limits)
        .deadlines(|all| {
            all.first_byte = flags.first_byte_timeout.map(|span| span.0);
            all.idle = flags.idle_timeout.map(|span| span.0);
            all.whole = flags.time_limit.map(|span| span.0);
            all.end = flags.end.clone();
        })
        .keep(match flags.trees {
            flags::Trees::Auto => Keep::Auto,
            flags::Trees::Cgroup => Keep::Cgroup,
            flags::Trees::Subreaper => Keep::Subreaper,
        })
        .orphans(match flags.orphans {
            flags::Orphans::Finish => Orphans::Finish,
            flags::Orphans::Die => Orphans::Die,
        })
        .patience(Duration::from_secs(flags.drain))
        .reply_to_low_ports(flags.reply_to_low_ports)
        .amplification(flags.amplification.unwrap_or(AMPLIFICATION))
        .workers(flags.workers.unwrap_or(1))
        .acceptors(flags.acceptors)
        .confine(plan);
    if let Some(balancers) = balancers(&flags, &listens)? {
        server = server.proxy(balancers);
    }
    if let Some(spares) = flags.spare {
        let age = flags.spare_age.map_or(spares.age, |age| age.0);
        server = server.spares(spares.for_at_most(age));
    }
    if let Some(path) = &flags.rules {
        server = server.rules_file(path);
    }
    for listen in &listens {
        server = server.listen_at(listen).map_err(Error::from)?;
    }
    let events = events(&flags, server.ports());
    Ok(server.on_event(events).serve_program(program)?)
}

/// Where to listen; and whether a program follows, since both are one mistake when `--` was forgotten.
fn addresses(flags: &Serve) -> Result<Vec<Listen>, Failure> {
    let words = &flags.addresses;
    if words.is_empty() {
        return Err(Failure::operator(
            "serve: no address to listen at; the form is: tine serve ADDR... -- PROGRAM, as in: tine serve 127.0.0.1:7000 -- cat",
        ));
    }
    let mut listens = Vec::new();
    for (at, word) in words.iter().enumerate() {
        match word.parse::<Listen>() {
            Ok(listen) => listens.push(listen.or_backlog(flags.backlog)),
            Err(_) if flags.program.is_empty() && at > 0 => {
                return Err(Failure::operator(format_args!(
                    "serve: '{word}' is no address; the program and its arguments follow '--': tine serve {} -- {}",
                    words[..at].join(" "),
                    words[at..].join(" ")
                )));
            }
            Err(why) => return Err(Failure::operator(format_args!("serve: {why}"))),
        }
    }
    if flags.program.first().is_none_or(|name| name.is_empty()) {
        return Err(Failure::operator(format_args!(
            "serve: no program to run for the clients; it follows '--': tine serve {} -- PROGRAM",
            words.join(" ")
        )));
    }
    Ok(listens)
}

/// What is run for each client, with its descriptors and variables.
pub fn program(flags: &Serve) -> Result<Program, Failure> {
    let (name, arguments) = flags.program.split_first().expect("looked at with the addresses");
    let mut program = Program::new(name, arguments).map_err(Error::from)?;
    for variable in &flags.variables {
        let (name, value) = variable_of(variable, flags.env)?;
        program = program.env(&name, value);
    }
    let sockets = if flags.env == Style::Systemd { Sockets::Third } else { Sockets::InAndOut };
    let stderr = match flags.stderr {
        flags::Stderr::Log => Stderr::Log,
        flags::Stderr::Socket => Stderr::Socket,
        flags::Stderr::Null => Stderr::Null,
    };
    let style = flags.env;
    Ok(program
        .sockets(sockets)
        .stderr(stderr)
        .describe(move |variables, client| environ::describe(style, variables, client)))
}

/// Where the program is that a plan is about, if there is one, and those of the rules that name another.
pub fn programs(flags: &Serve) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    if !flags.program.is_empty() {
        all.push(program(flags)?.path().to_owned());
    }
    for (who, rule) in both_rules(flags)?.iter() {
        if let Some((name, arguments)) = rule.exec.as_ref().and_then(|words| words.split_first()) {
            // In the words that the server has for it.
            let fail =
                |why| Failure::operator(format_args!("the rule for {who} (line {}): {why}", rule.line));
            let path = Program::new(name, arguments).map_err(fail)?.path().to_owned();
            if !all.contains(&path) {
                all.push(path);
            }
        }
    }
    Ok(all)
}

/// A variable that `-E` names, with its value.
fn variable_of(given: &OsStr, style: Style) -> Result<(String, OsString), Failure> {
    let fail = |why: String| Err(Failure::operator(format_args!("-E {}: {why}", given.display())));
    let bytes = given.as_bytes();
    let equals = bytes.iter().position(|byte| *byte == b'=');
    let name = match str::from_utf8(&bytes[..equals.unwrap_or(bytes.len())]) {
        Ok("") => return fail("a variable has a name; the form is NAME=VALUE or NAME".into()),
        Ok(name) => name.to_owned(),
        Err(_) => return fail("a variable's name is text".into()),
    };
    if environ::names(style).contains(&name.as_str()) {
        return fail(format!(
            "tine sets {name} itself, from what it knows of the client; --env none leaves it to you"
        ));
    }
    let value = match equals {
        Some(at) => Some(OsStr::from_bytes(&bytes[at + 1..]).to_owned()),
        None => env::var_os(&name),
    };
    match value {
        Some(value) => Ok((name, value)),
        None => fail(format!(
            "{name} is not set in the environment of tine; set it there, or write -E {name}=VALUE"
        )),
    }
}

/// How datagrams are served; what was said about them must make sense.
fn datagrams(flags: &Serve, listens: &[Listen]) -> Result<Option<DatagramMode>, Failure> {
    let is_given = |listen: &Listen| {
        let text = listen.to_string();
        text.starts_with("fd:") || text.starts_with("systemd:")
    };
    let carrier = listens.iter().find(|listen| listen.transport() == Transport::Datagram);
    let possible = carrier.is_some() || listens.iter().any(is_given);
    let Some(how) = flags.datagram else {
        return match carrier {
            None => Ok(None),
            Some(listen) => Err(Failure::operator(format_args!(
                "serve: {listen} carries datagrams; say how the program serves them:\n  \
                 --datagram wait (it reads the socket itself), peer (a child for each peer) or each (a child for each datagram)"
            ))),
        };
    };
    if !possible {
        return Err(Failure::operator(
            "--datagram: none of the addresses carries datagrams; those are written udp://HOST:PORT or unixgram:/PATH",
        ));
    }
    let alone = |flag: &str, meant: &str| {
        Failure::operator(format_args!("{flag}: it means something with --datagram {meant} only"))
    };
    if flags.datagram_idle.is_some() && how != Datagram::Peer {
        return Err(alone("--datagram-idle", "peer"));
    }
    if flags.amplification.is_some() && how != Datagram::Each {
        return Err(alone("--amplification", "each"));
    }
    if flags.reply_to_low_ports && how == Datagram::Wait {
        return Err(alone("--reply-to-low-ports", "peer or each"));
    }
    if flags.workers.is_some() && how == Datagram::Wait {
        return Err(alone("--workers", "peer or each"));
    }
    if flags.workers.is_some() && !listens.iter().any(|listen| listen.to_string().starts_with("udp://")) {
        return Err(Failure::operator(
            "--workers: each has a socket of its own at one address, and that is possible with udp://HOST:PORT only",
        ));
    }
    Ok(Some(match how {
        Datagram::Wait => DatagramMode::Wait,
        Datagram::Each => DatagramMode::Each,
        Datagram::Peer => {
            DatagramMode::Peer(Duration::from_secs(flags.datagram_idle.unwrap_or(DATAGRAM_IDLE)))
        }
    }))
}

/// Who may come in.
fn limits(flags: &Serve) -> Result<Limits, Failure> {
    let mut limits = Limits::default();
    limits.children = flags.children;
    if let Some((count, message)) = &flags.per_source {
        limits.per_source = Some(*count);
        limits.per_source_message = message.clone();
    }
    if let Some(kept) = flags.reserve.filter(|kept| *kept >= flags.children) {
        return Err(Failure::operator(format_args!(
            "--reserve {kept}: of {} children (-c) at least one is for everybody",
            flags.children
        )));
    }
    if let OnFull::Early { full, .. } = flags.on_full
        && full > flags.children
    {
        return Err(Failure::operator(format_args!(
            "--on-full: all are refused at {full} children, and there are never more than {} (-c)",
            flags.children
        )));
    }
    limits.mask = flags.source_mask;
    limits.reserve = flags.reserve;
    limits.rate = flags.rate;
    limits.rate_per_source = flags.rate_per_source;
    limits.on_full = flags.on_full.clone();
    limits.penalties = flags.penalty.clone();
    limits.exempt = flags.penalty_exempt.clone().unwrap_or_default();
    limits.rules = rules(flags)?;
    // Before there is a listener; the server reads those of the file itself, now and at each SIGHUP.
    both_rules(flags)?;
    Ok(limits)
}

/// The rules of the command line, and those of the file that is named there.
fn both_rules(flags: &Serve) -> Result<Rules, Failure> {
    let rules = rules(flags)?;
    let Some(path) = &flags.rules else { return Ok(rules) };
    let both = Rules::read(path).and_then(|others| rules.and(&others));
    both.map_err(|why| Failure::operator(format_args!("--rules: {}", why.at(path))))
}

/// The rules of the command line; with `--allow` and no file, whoever is not named is kept out.
fn rules(flags: &Serve) -> Result<Rules, Failure> {
    let mut rules = Rules::default();
    let named = flags.allow.iter().chain(&flags.deny).any(|who| who == "all");
    let rest = (!flags.allow.is_empty() && !named && flags.rules.is_none())
        .then(|| ("--allow", false, "all".to_owned()));
    let allowed = flags.allow.iter().map(|who| ("--allow", true, who.clone()));
    let denied = flags.deny.iter().map(|who| ("--deny", false, who.clone()));
    for (flag, allow, who) in allowed.chain(denied).chain(rest) {
        let fail = |why: &dyn std::fmt::Display| Failure::operator(format_args!("{flag} {who}: {why}"));
        let parsed = Who::parse(&who, &user).map_err(|why| fail(&why))?;
        rules.add(parsed, if allow { Rule::allow() } else { Rule::deny() }).map_err(|why| fail(&why))?;
    }
    Ok(rules)
}

fn user(name: &str) -> Option<u32> {
    uzers::get_user_by_name(name).map(|user| user.uid())
}

/// Who may say for whom it speaks.
fn balancers(flags: &Serve, listens: &[Listen]) -> Result<Option<Balancers>, Failure> {
    let Some(from) = flags.proxy_from.as_ref().filter(|_| flags.proxy.is_some()) else { return Ok(None) };
    // Before there is a listener, so that nothing of it is left.
    if let Some(other) = listens.iter().find(|listen| listen.transport() != Transport::Stream) {
        let what = if other.transport() == Transport::Packet { "records" } else { "datagrams" };
        return Err(Failure::operator(format_args!(
            "--proxy: {other} carries {what}, and a PROXY header begins a stream"
        )));
    }
    let (unix, others): (Vec<_>, Vec<_>) = from.split(',').partition(|word| *word == "unix");
    let mut balancers = Balancers::default();
    if !others.is_empty() {
        let others = others.join(",");
        let prefixes = others.parse::<Prefixes>();
        balancers.from =
            prefixes.map_err(|why| Failure::operator(format_args!("--proxy-from {others}: {why}")))?;
    }
    balancers.unix = !unix.is_empty();
    balancers.timeout = flags.proxy_timeout.map(|span| span.0);
    Ok(Some(balancers))
}

/// What the children give up.
pub fn plan(flags: &Serve) -> Result<Plan, Failure> {
    let plan = Plan {
        identity: flags.user.as_deref().map(identity).transpose()?,
        directory: flags.chdir.clone(),
        umask: flags.umask,
        limits: flags.rlimit.iter().map(|text| limit(text)).collect::<Result<_, _>>()?,
        profile: profile(&flags.confine)?,
        opens: Opens {
            read: flags.read.clone(),
            write: flags.write.clone(),
            exec: flags.exec.clone(),
            connect: flags.connect.clone(),
            listen: flags.listen_ok,
            calls: flags.syscall.clone(),
        },
        world: world(flags)?,
        when_missing: match flags.confine_missing {
            flags::ConfineMissing::Refuse => WhenMissing::Refuse,
            flags::ConfineMissing::Warn => WhenMissing::Warn,
        },
        answers_abstract: false,
        programs: Vec::new(),
        group: Group { memory: flags.memory, pids: flags.pids, cpu: flags.cpu },
    };
    if plan.group.is_limited() && flags.trees == flags::Trees::Subreaper {
        let given =
            [flags.memory.map(|_| "--memory"), flags.pids.map(|_| "--pids"), flags.cpu.map(|_| "--cpu")];
        let given: Vec<_> = given.into_iter().flatten().collect();
        return Err(Failure::operator(format_args!(
            "{}: that takes a control group for each connection; leave out --trees subreaper",
            given.join(", ")
        )));
    }
    for (flag, given) in [
        ("--root", flags.root.is_some()),
        ("--bind", !flags.bind.is_empty()),
        ("--tmpfs", !flags.tmpfs.is_empty()),
    ] {
        if given && !plan.profile.has(Layer::Mount) {
            return Err(Failure::operator(format_args!(
                "{flag}: it is about a tree of files of the program's own, which --confine {} has not; sealed has",
                plan.profile.name
            )));
        }
    }
    Ok(plan)
}

/// What is wrong with a plan, in the words of the command line.
pub fn wrong(flags: &Serve, why: PlanError) -> Failure {
    match why {
        PlanError::Directory(path, why) => {
            Failure::operator(format_args!("--chdir {}: {why}", path.display()))
        }
        why @ (PlanError::NotRoot(_) | PlanError::NotRootGroups(_)) => {
            Failure::operator(format_args!("--user {}: {why}", flags.user.as_deref().unwrap_or_default()))
        }
        PlanError::Path(path, why) => Failure::operator(format_args!(
            "{}{}: {}",
            opener(flags, &path),
            path.display(),
            exit::Plain(why)
        )),
        PlanError::Call(name) => {
            Failure::operator(format_args!("--syscall {name}: {}", PlanError::Call(name.clone())))
        }
        why @ PlanError::Missing(_) => Failure::system(format_args!(
            "--confine {}: {why}\n--confine-missing warn serves without what is missing, --confine none without any of it",
            flags.confine
        )),
        why @ PlanError::AboveInherited(..) => Failure::operator(format_args!("--rlimit: {why}")),
        why => Failure::operator(why),
    }
}

/// A profile by its name, or by the path of its file.
fn profile(text: &str) -> Result<Profile, Failure> {
    let profile = if text.contains('/') { Profile::read(Path::new(text)) } else { Profile::named(text) };
    profile.map_err(|why| Failure::operator(format_args!("--confine {text}: {why}")))
}

/// Which flag names a path, as a message begins; none names that of a program.
fn opener(flags: &Serve, path: &Path) -> &'static str {
    let among = |list: &[PathBuf]| list.iter().any(|other| other == path);
    let mut bound = flags.bind.iter().flat_map(|text| text.split(':')).map(Path::new);
    match () {
        () if among(&flags.read) => "--read: ",
        () if among(&flags.write) => "--write: ",
        () if among(&flags.exec) => "--exec: ",
        () if flags.root.as_deref() == Some(path) => "--root: ",
        () if bound.any(|other| other == path) => "--bind: ",
        () => "",
    }
}

/// The tree of files.
fn world(flags: &Serve) -> Result<World, Failure> {
    let mut world = World { root: flags.root.clone(), ..World::default() };
    for text in &flags.bind {
        let words: Vec<_> = text.split(':').collect();
        let (words, write) = match words.split_last() {
            Some((&"rw", others)) if !others.is_empty() => (others, true),
            _ => (&words[..], false),
        };
        let (from, to) = match words {
            [from] => (from, from),
            [from, to] => (from, to),
            _ => {
                let form = "the form is FROM[:TO][:rw], as in /srv/data:/data";
                return Err(Failure::operator(format_args!("--bind {text}: {form}")));
            }
        };
        world.binds.push(Bind { from: from.into(), to: to.into(), write });
    }
    for text in &flags.tmpfs {
        let fail = |why: &str| Err(Failure::operator(format_args!("--tmpfs {text}: {why}")));
        let (at, size) = text.split_once(':').unwrap_or((text, "16M"));
        if !at.starts_with('/') || at == "/" {
            return fail("it is an absolute path, as in /tmp:16M");
        }
        match amount(size) {
            Some(Some(size @ 4096..)) => world.memory.push(Memory { at: at.into(), size }),
            _ => return fail("a size is a number of bytes from 4096 on, with K, M or G"),
        }
    }
    let own = flags.own.iter().map(|own| match own {
        flags::Own::Pid => Layer::Pid,
        flags::Own::Mount => Layer::Mount,
        flags::Own::Net => Layer::Net,
        flags::Own::Ipc => Layer::Ipc,
        flags::Own::Uts => Layer::Uts,
    });
    world.own = own.collect();
    world.init = flags.init == flags::YesNo::Yes;
    Ok(world)
}

/// `USER[:GROUP]`, each a name or a number.
fn identity(text: &str) -> Result<Identity, Failure> {
    let fail = |why: String| Failure::operator(format_args!("--user {text}: {why}"));
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let entry = match user.parse() {
        Ok(uid) => uzers::get_user_by_uid(uid),
        Err(_) => uzers::get_user_by_name(user),
    };
    let uid = entry.as_ref().map(uzers::User::uid).or(user.parse().ok());
    let uid =
        uid.ok_or_else(|| fail(format!("there is no user '{user}' in the user database (getent passwd)")))?;
    let gid = match group {
        Some(group) => match group.parse() {
            Ok(gid) => gid,
            Err(_) => uzers::get_group_by_name(group).map(|entry| entry.gid()).ok_or_else(|| {
                fail(format!("there is no group '{group}' in the group database (getent group)"))
            })?,
        },
        None => entry.as_ref().map(uzers::User::primary_group_id).ok_or_else(|| {
            fail(format!(
                "user {uid} is not in the user database, so the group must be named too: {uid}:GROUP"
            ))
        })?,
    };
    let groups = entry.and_then(|entry| uzers::get_user_groups(entry.name(), gid)).unwrap_or_default();
    let mut groups: Vec<_> = groups.iter().map(uzers::Group::gid).collect();
    groups.push(gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(Identity { uid, gid, groups })
}

/// `NAME=SOFT[:HARD]`.
fn limit(text: &str) -> Result<Limit, Failure> {
    let fail = |why: &dyn std::fmt::Display| Failure::operator(format_args!("--rlimit {text}: {why}"));
    let form = "the form is NAME=SOFT[:HARD], as in nofile=1024:4096, as=512M or core=unlimited";
    let (name, values) = text.split_once('=').ok_or_else(|| fail(&form))?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |value: &str| {
        amount(value).ok_or_else(|| {
            fail(&format_args!(
                "'{value}' is no limit: a number, with K, M or G if it is large, or unlimited"
            ))
        })
    };
    Limit::new(name, number(soft)?, number(hard)?).map_err(|why| fail(&why))
}

/// A number with a suffix; the inner `None` is unlimited.
pub fn amount(text: &str) -> Option<Option<u64>> {
    if text == "unlimited" {
        return Some(None);
    }
    let (digits, unit) = match text.char_indices().last()? {
        (at, 'K' | 'k') => (&text[..at], 1 << 10),
        (at, 'M' | 'm') => (&text[..at], 1 << 20),
        (at, 'G' | 'g') => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| whole)?.checked_mul(unit).map(Some)
}

/// What becomes of events: lines in the log, and when the last listener is ready, ports on standard output.
fn events(flags: &Serve, ports: Vec<Option<u16>>) -> impl FnMut(&Event<'_>) + 'static {
    let mut log = Log::new(match (flags.quiet, flags.verbose) {
        (true, _) => Level::Errors,
        (_, true) => Level::Clients,
        _ => Level::Usual,
    });
    let (print_ports, mut waiting) = (flags.print_ports, ports.len());
    move |event| {
        log.tell(event);
        if let Event::Listening { .. } = event {
            waiting = waiting.saturating_sub(1);
            if waiting == 0 && print_ports {
                tell_ports(&ports);
            }
        }
    }
}

/// A line for each listener with its port, then the end of standard output.
fn tell_ports(ports: &[Option<u16>]) {
    let line = |port: &Option<u16>| port.map_or("\n".to_owned(), |port| format!("{port}\n"));
    let lines: String = ports.iter().map(line).collect();
    // Whoever asked for the ports and has gone again does not keep others from being served.
    let told = exit::print(lines.as_bytes()).err().map(|_| "write the ports");
    let closed = tine::silence_stdout().err().map(|why: io::Error| format!("close standard output: {why}"));
    for why in told.map(str::to_owned).into_iter().chain(closed) {
        exit::say(format_args!("tine: -1: {}", exit::Plain(why)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_suffixes_and_nothing_else() {
        assert_eq!(amount("0"), Some(Some(0)));
        assert_eq!(amount("64K"), Some(Some(65_536)));
        assert_eq!(amount("2g"), Some(Some(2 << 30)));
        assert_eq!(amount("unlimited"), Some(None));
        assert_eq!(amount("17179869183G"), Some(Some(17_179_869_183 << 30)));
        for wrong in ["", "K", "-1", "+1", "1T", "1 K", "1.5G", "17179869184G", "99999999999999999999", "é"]
        {
            assert_eq!(amount(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_hard_limit_is_the_soft_one_unless_it_is_given() {
        let given = |text| limit(text).map(|limit| (limit.resource, limit.soft, limit.hard)).unwrap();
        assert_eq!(given("nofile=64"), ("nofile", Some(64), Some(64)));
        assert_eq!(given("nofile=64:unlimited"), ("nofile", Some(64), None));
        assert!(limit("nofile=2:1").is_err());
        assert!(limit("files=1").is_err());
        assert!(limit("nofile").is_err());
    }

    #[test]
    fn a_user_is_a_name_or_a_number_and_has_the_groups_of_the_database() {
        let root = Identity { uid: 0, gid: 0, groups: vec![0] };
        assert_eq!(identity("0").unwrap().uid, root.uid);
        assert_eq!(identity("root").unwrap().gid, root.gid);
        assert_eq!(identity("root:65533").unwrap().gid, 65_533);
        assert!(identity("root:65533").unwrap().groups.contains(&65_533));
        let nobody = Identity { uid: 4_000_000, gid: 7, groups: vec![7] };
        assert_eq!(identity("4000000:7").unwrap(), nobody, "a number needs no entry when the group is named");
        for wrong in ["no-such-user", "4000000", "root:no-such-group", ":1", "root:"] {
            assert!(identity(wrong).is_err(), "{wrong}");
        }
    }
}
