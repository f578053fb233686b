//! What the tests' fixtures share: a server made from the command line, whose events are lines on standard error.

use std::io::{self, Write};
use std::time::Duration;
use tine::{Event, Server};

/// The server that the arguments ask for: `[children=N] [patience=SECONDS] [workers=N] [quiet] [ready=no] ADDR...`. With
/// `quiet`, connections are not told one by one. Other arguments of the form `name=value` are the fixture's own.
///
/// It says `ready ADDR...` on standard output when it has taken over the signals, so that a test may send some.
pub fn server() -> Result<Server, tine::Error> {
    let (mut server, mut quiet, mut says_ready) = (Server::new().children(512), false, true);
    for arg in std::env::args().skip(1) {
        server = match arg.split_once('=').unwrap_or((&arg, "")) {
            ("children", most) => server.children(number(most)),
            ("patience", seconds) => server.patience(Duration::from_secs(number(seconds) as u64)),
            ("workers", count) => server.workers(number(count)),
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
#[allow(dead_code, reason = "not every fixture has arguments of its own")]
pub fn value(name: &str) -> Option<String> {
    std::env::args().find_map(|arg| Some(arg.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// Tells an event in one line and one write, so that what a child writes at the same time does not come between.
fn tell(event: &Event<'_>) {
    let line = match event {
        Event::Listening { listener, children, backlog } => {
            format!("listen {listener} children={children} backlog={backlog}")
        }
        Event::Accepted { peer, child, open, most } => {
            format!("accept peer={peer} child={child} open={open}/{most}")
        }
        Event::Ended { child, outcome, .. } => {
            let (wall, cpu) = (outcome.bill.wall, outcome.bill.user + outcome.bill.system);
            let (ms, cpu_ms, rss_kb) = (wall.as_millis(), cpu.as_millis(), outcome.bill.memory_peak_kib);
            format!("end    child={child} {} ms={ms} cpu_ms={cpu_ms} rss_kb={rss_kb}", outcome.how)
        }
        Event::Refused { peer, why } => format!("refuse peer={peer} reason=\"{why}\""),
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
        Event::Truncated { listener } => format!("cut    listener={listener}"),
        Event::Dropped { listener } => format!("drop   listener={listener}"),
        Event::Status(now) => format!(
            "status open={}/{} served={} failed={} paused={}",
            now.open, now.most, now.served, now.failed, now.paused
        ),
        Event::Draining { open, patience } => format!("drain  open={open} seconds={}", patience.as_secs()),
        Event::Ending { open, signal } => format!("nudge  open={open} signal={signal}"),
        Event::Stopped { served } => format!("stop   served={served}"),
        Event::Odd { what, error } => format!("odd    what=\"{what}\" error=\"{error}\""),
        other => format!("other  {other:?}"),
    };
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn number(text: &str) -> usize {
    text.parse().unwrap_or_else(|_| panic!("'{text}' is no number"))
}
