//! What the tests' fixtures share: a server made from the command line, whose events are lines on standard error.

use std::io::{self, Write};
use std::time::Duration;
use tine::admit::Reason;
use tine::{Event, Plan, Profile, Server, Spares, Status};

#[global_allocator]
static APART: tine::Apart = tine::Apart;

/// The server that the arguments ask for: `[children=N] [per_source=N] [reserve=N] [patience=SECONDS] [workers=N]
/// [spares=N[:MOST]] [age=SECONDS] [acceptors=N] [confine=PROFILE] [quiet] [ready=no] ADDR...`. With `quiet`, connections are not told one by one. Other
/// arguments of the form `name=value` are
/// the fixture's own.
///
/// The clients of a test come from one address: it may have all children, and none are kept for others, unless
/// `per_source` and `reserve` say otherwise.
///
/// It says `ready ADDR...` on standard output when it has taken over the signals, so that a test may send some.
pub fn server() -> Result<Server, tine::Error> {
    let (mut server, mut quiet, mut says_ready) = (Server::new().children(512), false, true);
    let age =
        value("age").map_or(Duration::from_secs(60), |seconds| Duration::from_secs(number(&seconds) as u64));
    server = server.limits(|limits| (limits.per_source, limits.reserve) = (Some(usize::MAX), Some(0)));
    for arg in std::env::args().skip(1) {
        server = match arg.split_once('=').unwrap_or((&arg, "")) {
            ("children", most) => server.children(number(most)),
            ("per_source", most) => server.limits(|limits| limits.per_source = Some(number(most))),
            ("reserve", count) => server.limits(|limits| limits.reserve = Some(number(count))),
            ("patience", seconds) => server.patience(Duration::from_secs(number(seconds) as u64)),
            ("workers", count) => server.workers(number(count)),
            ("spares", count) => {
                let (least, most) = count.split_once(':').unwrap_or((count, count));
                server.spares(Spares::new(number(least), number(most)).for_at_most(age))
            }
            ("confine", profile) => {
                let profile = Profile::named(profile).unwrap_or_else(|why| panic!("{why}"));
                server.confine(Plan { profile, ..Plan::default() })
            }
            ("acceptors", count) => server.acceptors(number(count)),
            ("quiet", _) => {
                quiet = true;
                server
            }
            ("ready", value) => {
                says_ready = value != "no";
                server
            }
            (name, _) if arg.contains('=') && name.bytes().all(|byte| byte.is_ascii_lowercase()) => server,
            _ => server.listen(&arg)?,
        };
    }
    let ready = format!("ready {}", server.addrs().join(" "));
    let mut listeners = server.addrs().len();
    Ok(server.on_event(move |event| {
        if !quiet || !matches!(event, Event::Accepted { .. } | Event::Ended { .. }) {
            tell(event);
        }
        if matches!(event, Event::Listening { .. }) {
            listeners -= 1;
            if listeners == 0 && says_ready {
                println!("{ready}");
                let _ = io::stdout().flush();
            }
        }
    }))
}

/// The value of a fixture's own argument `name=value`.
pub fn value(name: &str) -> Option<String> {
    std::env::args().find_map(|arg| Some(arg.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// Tells an event in one line and one write, so that what a child writes at the same time does not come between.
fn tell(event: &Event<'_>) {
    let line = match event {
        Event::Listening { listener, children, backlog, trees, acceptors, .. } => {
            let also = if *acceptors > 1 { format!(" acceptors={acceptors}") } else { String::new() };
            format!("listen {listener} children={children} backlog={backlog} trees={trees}{also}")
        }
        Event::Accepted { peer, child, open, most, .. } => {
            format!("accept peer={peer} child={child} open={open}/{most}")
        }
        Event::Ended { child, outcome, .. } => {
            let (wall, cpu) = (outcome.bill.wall, outcome.bill.user + outcome.bill.system);
            let (ms, cpu_ms, rss_kb) = (wall.as_millis(), cpu.as_millis(), outcome.bill.memory_peak_kib);
            let cause = outcome.cause.map_or(String::new(), |cause| format!(" reason={cause}"));
            format!("end    child={child} {}{cause} ms={ms} cpu_ms={cpu_ms} rss_kb={rss_kb}", outcome.how)
        }
        Event::Waiting { peer, place } => format!("wait   peer={peer} place={place}"),
        Event::Refused { peer, why, .. } => format!("refuse peer={peer} reason={why}"),
        Event::Paused { listener, what, error, pause } => {
            let ms = pause.as_millis();
            format!("pause  listener={listener} reason=\"{what}: {error}\" ms={ms}")
        }
        Event::Resumed { listener, after } => {
            format!("resume listener={listener} after_ms={}", after.as_millis())
        }
        Event::Replaced { worker, how, lost } => {
            format!("worker pid={worker} {how} lost={}", u8::from(*lost))
        }
        Event::Lost { spare, how } => format!("spare  pid={spare} {how}"),
        Event::AcceptorReplaced { acceptor, how, by } => format!("acceptor pid={acceptor} {how} by={by}"),
        Event::Truncated { listener } => format!("cut    listener={listener}"),
        Event::Dropped { listener } => format!("drop   listener={listener}"),
        Event::Status(now) => status(now),
        Event::Draining { open, patience } => format!("drain  open={open} seconds={}", patience.as_secs()),
        Event::Ending { open, signal } => format!("nudge  open={open} signal={signal}"),
        Event::Stopped { served } => format!("stop   served={served}"),
        Event::Odd { what, error } => format!("odd    what=\"{what}\" error=\"{error}\""),
        other => format!("other  {other:?}"),
    };
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// As the log of `tine serve` has it.
fn status(now: &Status) -> String {
    let Status { open, most, waiting, served, failed, paused, refused, .. } = now;
    let mut line = format!("status open={open}/{most} waiting={waiting} served={served} failed={failed}");
    line += &format!(" paused={paused} refused={}", refused.sum());
    for why in Reason::ALL.into_iter().filter(|why| refused.of(*why) > 0) {
        line += &format!(" refused.{why}={}", refused.of(why));
    }
    line
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("'{text}' is no number"))
}
