//! The log: each event a line on standard error, in one write, starting with its verb. tine(8) documents the lines.
//!
//! A standard error that is closed, full or broken changes nothing else. Lines that a client or a shortage could bring
//! about without end are told at most once in ten seconds each, and the next one says how many were not.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use tine::admit::Reason;
use tine::{Event, How, Outcome, Peer, Status};

use crate::exit::Plain;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What goes wrong.
    Errors,
    /// And how the server fares.
    Usual,
    /// And every client.
    Clients,
}

/// Writes events as lines.
#[derive(Debug)]
pub struct Log {
    level: Level,
    line: String,
    told: Told,
}

/// The signal of a program whose client went away while it was writing: nothing unusual.
const SIGPIPE: i32 = 13;

impl Log {
    /// A log that tells this much.
    pub fn new(level: Level) -> Log {
        Log { level, line: String::new(), told: Told::default() }
    }

    /// Tells one event, if it is to be told.
    pub fn tell(&mut self, event: &Event<'_>) {
        if level(event) > self.level {
            return;
        }
        self.line.clear();
        // A String takes whatever is written to it.
        let _ = render(event, &mut self.line);
        // Whoever wants to know of every client is told of every end.
        let every = self.level == Level::Clients && matches!(event, Event::Ended { .. });
        if let Some(cause) = cause(event).filter(|_| !every || is_setup(event)) {
            match self.told.tell(cause, Instant::now()) {
                None => return,
                Some(0) => {}
                Some(suppressed) => {
                    let _ = write!(self.line, " suppressed={suppressed}");
                }
            }
        }
        self.line.push('\n');
        // Nowhere to complain to.
        let _ = io::stderr().write_all(self.line.as_bytes());
    }
}

/// From which level on an event is told.
fn level(event: &Event<'_>) -> Level {
    match event {
        Event::Accepted { .. } | Event::Waiting { .. } => Level::Clients,
        // Whoever leaves before it is served, leaves.
        Event::Refused { why: Reason::Left, .. } => Level::Clients,
        Event::Ended { outcome, .. } => match outcome.how {
            _ if outcome.cause.is_some() => Level::Usual,
            How::Exit(_) | How::Signal(SIGPIPE) => Level::Clients,
            _ => Level::Errors,
        },
        Event::Listening { .. }
        | Event::Resumed { .. }
        | Event::Trees { .. }
        | Event::Unconfined { .. }
        | Event::Reloaded { .. }
        | Event::Refused { .. }
        | Event::Penalised { .. }
        | Event::Draining { .. }
        | Event::Ending { .. }
        | Event::Stopped { .. } => Level::Usual,
        // The answer to a question is told to whoever asks.
        _ => Level::Errors,
    }
}

/// What the event is one of many of, where there could be many.
fn cause(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Ended { outcome: Outcome { how: How::Setup(step, error), .. }, .. } => {
            Some(format!("setup {step} {error}"))
        }
        Event::Paused { listener, what, error, .. } => Some(format!("pause {listener} {what} {error}")),
        Event::Resumed { listener, .. } => Some(format!("resume {listener}")),
        Event::Ended { outcome: Outcome { cause: Some(cause), .. }, .. } => Some(format!("end {cause}")),
        Event::Refused { why, .. } => Some(format!("refuse {why}")),
        Event::Penalised { .. } => Some("penalty".into()),
        // Numbers of another architecture are the caller's to choose, and would be without end.
        Event::Forbidden { call, .. } if call.is_foreign() => Some("kill foreign".into()),
        Event::Forbidden { call, .. } => Some(format!("kill {call}")),
        Event::Lost { how, .. } => Some(format!("spare {how}")),
        Event::Truncated { listener } => Some(format!("cut {listener}")),
        Event::Dropped { listener } => Some(format!("drop {listener}")),
        Event::Odd { what, error } => Some(format!("odd {what} {error}")),
        _ => None,
    }
}

/// Whether a child could not start: all that come would say the same.
fn is_setup(event: &Event<'_>) -> bool {
    matches!(event, Event::Ended { outcome: Outcome { how: How::Setup(..), .. }, .. })
}

/// The line of an event, without its newline.
fn render(event: &Event<'_>, to: &mut String) -> fmt::Result {
    match event {
        Event::Listening { listener, children, backlog, trees, acceptors, confine } => {
            write!(to, "listen {} children={children}", Word(listener))?;
            if *backlog > 0 {
                write!(to, " backlog={backlog}")?;
            }
            write!(to, " trees={trees}")?;
            write!(to, " confine={}", Word(confine))?;
            if *acceptors > 1 { write!(to, " acceptors={acceptors}") } else { Ok(()) }
        }
        Event::Accepted { peer, via, child, open, most } => {
            write!(to, "accept peer={} child={child} open={open}/{most}", Word(peer))?;
            via.map_or(Ok(()), |via| write!(to, " via={}", Word(via)))
        }
        Event::Waiting { peer, place } => write!(to, "wait   peer={} place={place}", Word(peer)),
        Event::Ended { child, peer, outcome, .. } => ended(*child, peer, outcome, to),
        Event::Forbidden { process, call, child, peer } => {
            write!(to, "kill   pid={process} call={call}")?;
            child.map_or(Ok(()), |child| write!(to, " child={child}"))?;
            peer.map_or(Ok(()), |peer| write!(to, " peer={}", Word(peer)))
        }
        Event::Refused { peer, why, detail } => {
            write!(to, "refuse peer={} reason={why}", Word(peer))?;
            detail.map_or(Ok(()), |detail| write!(to, " detail={}", Word(detail)))
        }
        Event::Penalised { peer, source, time } => {
            write!(to, "penalty peer={} source={source} for_s={}", Word(peer), time.as_secs_f64().ceil())
        }
        Event::Trees { by, why } => write!(to, "trees  by={by} reason={}", Word(Plain(why))),
        Event::Unconfined { missing } => write!(
            to,
            "confine layer={} missing={} takes={}",
            missing.layer,
            Word(&missing.what),
            Word(&missing.advice)
        ),
        Event::Reloaded { rules } => write!(to, "reload rules={rules}"),
        Event::NotReloaded { why } => write!(to, "reload failed={} kept=before", Word(why)),
        Event::Paused { listener, what, error, pause } => {
            let reason = format!("{what}: {}", Plain(error));
            write!(to, "pause  listener={} reason={} ms={}", Word(listener), Word(&reason), pause.as_millis())
        }
        Event::Resumed { listener, after } => {
            write!(to, "resume listener={} after_ms={}", Word(listener), after.as_millis())
        }
        Event::Replaced { worker, how, lost } => {
            write!(to, "worker pid={worker} {} lost={}", Ending(how), u8::from(*lost))
        }
        Event::AcceptorReplaced { acceptor, how, by } => {
            write!(to, "acceptor pid={acceptor} {} by={by}", Ending(how))
        }
        Event::Lost { spare, how } => write!(to, "spare  pid={spare} {}", Ending(how)),
        Event::Truncated { listener } => {
            write!(to, "cut    listener={} reason=\"a datagram longer than its room\"", Word(listener))
        }
        Event::Dropped { listener } => {
            write!(to, "drop   listener={} reason=\"more datagrams than can be served\"", Word(listener))
        }
        Event::Status(status) => standing(status, to),
        Event::Draining { open, patience } => {
            write!(to, "drain  open={open} seconds={}", patience.as_secs())
        }
        Event::Ending { open, signal } => write!(to, "signal sent={signal} open={open}"),
        Event::Stopped { served } => write!(to, "stop   served={served}"),
        Event::Odd { what, error } => {
            write!(to, "odd    what={} error={}", Word(what), Word(Plain(error)))
        }
        // An event of a newer library, in its own words.
        other => write!(to, "event  {}", Word(format_args!("{other:?}"))),
    }
}

/// An end that is worth a line by itself also says whose it was.
fn ended(child: u32, peer: &Peer, outcome: &Outcome, to: &mut String) -> fmt::Result {
    let (how, bill) = (&outcome.how, &outcome.bill);
    write!(to, "end    child={child} {}", Ending(how))?;
    if let Some(call) = outcome.call {
        write!(to, " call={call}")?;
    }
    if let Some(cause) = outcome.cause {
        write!(to, " reason={cause}")?;
    }
    write!(to, " ms={}", bill.wall.as_millis())?;
    if !matches!(how, How::Setup(..)) {
        let cpu = bill.user + bill.system;
        write!(to, " cpu_ms={} rss_kb={}", cpu.as_millis(), bill.memory_peak_kib)?;
        if let Some(peak) = bill.group_peak_kib {
            write!(to, " group_kb={peak}")?;
        }
        if bill.oom_kills > 0 {
            write!(to, " oom={}", bill.oom_kills)?;
        }
        write!(to, " user_us={} sys_us={}", bill.user.as_micros(), bill.system.as_micros())?;
        write!(to, " faults={}+{}", bill.faults_major, bill.faults_minor)?;
        write!(to, " switches={}+{}", bill.switches_voluntary, bill.switches_forced)?;
        if let Some(setup) = bill.setup {
            write!(to, " setup_us={}", setup.as_micros())?;
        }
        write!(to, " wait_ms={}", bill.waited.as_millis())?;
    }
    let usual = matches!(how, How::Exit(_)) && outcome.cause.is_none();
    if usual { Ok(()) } else { write!(to, " peer={}", Word(peer)) }
}

/// How things stand; reasons for which nobody was refused are left out.
fn standing(status: &Status, to: &mut String) -> fmt::Result {
    let Status { open, most, waiting, served, failed, paused, spares, refused, .. } = status;
    write!(to, "status open={open}/{most} waiting={waiting} served={served} failed={failed}")?;
    if *spares > 0 {
        write!(to, " spares={spares}")?;
    }
    write!(to, " paused={paused} refused={}", refused.sum())?;
    for why in Reason::ALL.into_iter().filter(|why| refused.of(*why) > 0) {
        write!(to, " refused.{why}={}", refused.of(why))?;
    }
    Ok(())
}

/// How a process ended, as keys and values.
struct Ending<'a>(&'a How);

impl Display for Ending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            How::Exit(status) => write!(f, "exit={status}"),
            How::Signal(signal) => write!(f, "signal={signal}"),
            How::Setup(step, error) => write!(f, "setup={step} error={}", Word(Plain(error))),
            other => write!(f, "how={}", Word(other)),
        }
    }
}

/// A value of a log line: as it is when it is one plain word, else in quotes, with whatever could be mistaken escaped.
struct Word<T>(T);

impl<T: Display> Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut plain = IsPlain { yes: true, empty: true };
        write!(plain, "{}", self.0)?;
        if plain.yes && !plain.empty {
            return self.0.fmt(f);
        }
        f.write_char('"')?;
        write!(Escaped(f), "{}", self.0)?;
        f.write_char('"')
    }
}

/// Looks whether a value needs quotes, without a string for it.
struct IsPlain {
    yes: bool,
    empty: bool,
}

impl fmt::Write for IsPlain {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.empty &= text.is_empty();
        self.yes &= text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '\\');
        Ok(())
    }
}

struct Escaped<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(self.0, "\\{c}")?,
                c if c.is_control() => write!(self.0, "{}", c.escape_default())?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// What was told when, so that it is not told again too soon.
#[derive(Debug, Default)]
struct Told(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    cause: String,
    at: Instant,
    suppressed: u64,
}

impl Told {
    /// How long the same is not told again.
    const QUIET: Duration = Duration::from_secs(10);

    /// Causes that are remembered; the one told longest ago is forgotten for another.
    const MOST: usize = 64;

    /// Whether to tell it: how many were not told since the last time, or `None` for one more of those.
    fn tell(&mut self, cause: String, now: Instant) -> Option<u64> {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.cause == cause) {
            if now.saturating_duration_since(entry.at) < Told::QUIET {
                entry.suppressed += 1;
                return None;
            }
            entry.at = now;
            return Some(std::mem::take(&mut entry.suppressed));
        }
        if self.0.len() == Told::MOST
            && let Some((oldest, _)) = self.0.iter().enumerate().min_by_key(|(_, entry)| entry.at)
        {
            self.0.swap_remove(oldest);
        }
        self.0.push(Entry { cause, at: now, suppressed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_no_plain_word_is_quoted_and_nothing_in_it_ends_the_line() {
        let word = |text: &str| Word(text).to_string();
        assert_eq!(word("tcp://[::1]:7000"), "tcp://[::1]:7000");
        assert_eq!(word("two words"), "\"two words\"");
        assert_eq!(word("a\nb"), "\"a\\nb\"");
        assert_eq!(word("\u{1b}[31m"), "\"\\u{1b}[31m\"");
        assert_eq!(word("say \"x\\y\""), "\"say \\\"x\\\\y\\\"\"");
        assert_eq!(word(""), "\"\"");
    }

    #[test]
    fn the_same_is_told_once_in_ten_seconds_and_then_with_the_count_of_what_was_not() {
        let (mut told, start) = (Told::default(), Instant::now());
        let mut tell = |cause: &str, ms| told.tell(cause.into(), start + Duration::from_millis(ms));
        assert_eq!(tell("a", 0), Some(0));
        assert_eq!(tell("a", 1), None);
        assert_eq!(tell("b", 1), Some(0), "another cause has a time of its own");
        assert_eq!(tell("a", 9_999), None);
        assert_eq!(tell("a", 10_000), Some(2));
        assert_eq!(tell("a", 10_001), None);
        assert_eq!(tell("a", 30_000), Some(1));
    }

    #[test]
    fn no_more_causes_are_remembered_than_there_is_room_for() {
        let (mut told, start) = (Told::default(), Instant::now());
        for n in 0..1_000 {
            assert_eq!(told.tell(n.to_string(), start + Duration::from_millis(n)), Some(0));
        }
        assert_eq!(told.0.len(), Told::MOST);
        assert_eq!(told.tell("999".into(), start + Duration::from_secs(1)), None);
    }
}
