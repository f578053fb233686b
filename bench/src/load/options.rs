//! The generator's options; clap reads them.

use std::time::Duration;

use clap::Parser;

use super::target::Target;

/// Clients that check every byte: in a closed loop, at a rate, all at once, or idle.
#[derive(Clone, Debug, Parser)]
#[command(name = "load", version)]
pub struct Options {
    /// Where the server is: tcp://127.0.0.1:PORT, unix:/PATH, unix:@NAME; with --udp udp://127.0.0.1:PORT
    #[arg(long)]
    pub to: Target,

    /// Clients under way at once; each begins the next one when it ends
    #[arg(long, default_value_t = 8)]
    pub clients: usize,

    /// How long it is measured
    #[arg(long, default_value = "2", value_parser = seconds)]
    pub seconds: Duration,

    /// How long the same goes on before that
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    pub warmup: Duration,

    /// From how many addresses of 127.0.0.0/8 clients come
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=SOURCES_MOST))]
    pub sources: u32,

    /// After how long without its end a client gives up
    #[arg(long, default_value = "10", value_parser = seconds)]
    pub timeout: Duration,

    /// An open loop: so many arrivals a second, each at its time, whatever became of those before; latency counts from
    /// that time
    #[arg(long, conflicts_with = "burst")]
    pub rate: Option<f64>,

    /// Idle clients that are opened before and kept open
    #[arg(long, default_value_t = 0)]
    pub hold: usize,

    /// With --hold: nothing but that. Says when all are open, waits for a line or the end of standard input, ends all at once
    #[arg(long, requires = "hold")]
    pub release: bool,

    /// Sessions that stay open, each saying a byte every so often (--every): alone for --seconds, then while --clients arrive for
    /// as long
    #[arg(long, default_value_t = 0, conflicts_with_all = ["burst", "rate", "hold", "udp"], value_parser = open)]
    pub open: usize,

    /// With --open: the time from one byte of a session to the next
    #[arg(long, default_value = "0.005", value_parser = interval)]
    pub every: Duration,

    /// So many clients at once, and no more
    #[arg(long)]
    pub burst: Option<usize>,

    /// Datagrams in place of connections
    #[arg(long)]
    pub udp: bool,

    /// With --udp: sockets that datagrams are sent from
    #[arg(long, default_value_t = 8)]
    pub flows: usize,

    /// With --udp: datagrams under way in each flow
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub in_flight: u32,

    /// With --udp: bytes in a datagram
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..=1400))]
    pub size: u32,

    /// With --udp: give the kernel many datagrams in one piece (UDP_SEGMENT)
    #[arg(long)]
    pub gso: bool,
}

/// 127.1.0.1 to 127.16.255.1.
const SOURCES_MOST: i64 = 4096;

fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|_| "it is a number of seconds, such as 2 or 0.5".to_string())?;
    Duration::try_from_secs_f64(value).map_err(|why| why.to_string())
}

fn interval(text: &str) -> Result<Duration, String> {
    match seconds(text)? {
        Duration::ZERO => Err("bytes come with some time between them".into()),
        time => Ok(time),
    }
}

/// More than anybody asks for; poll(2) looks at all of them each time.
const OPEN_MOST: usize = 1_000;

fn open(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count <= OPEN_MOST);
    count.ok_or_else(|| format!("it is a number up to {OPEN_MOST}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold_together() {
        Options::command().debug_assert();
    }

    #[test]
    fn options_are_read_as_they_are_written() {
        let options = Options::try_parse_from([
            "load",
            "--to",
            "tcp://127.0.0.1:7000",
            "--clients",
            "64",
            "--seconds",
            "0.25",
            "--rate",
            "1000",
        ])
        .expect("they are options");
        assert_eq!(options.clients, 64);
        assert_eq!(options.seconds, Duration::from_millis(250));
        assert_eq!(options.rate, Some(1000.0));
        assert!(Options::try_parse_from(["load", "--to", "tcp://127.0.0.1:1", "--release"]).is_err());
        let open = |options: &[&str]| {
            Options::try_parse_from([&["load", "--to", "tcp://127.0.0.1:1", "--open", "8"], options].concat())
        };
        assert_eq!(open(&["--every", "0.004"]).expect("they are options").every, Duration::from_millis(4));
        assert!(open(&["--every", "0"]).is_err() && open(&["--burst", "9"]).is_err());
        assert!(Options::try_parse_from(["load", "--to", "tcp://127.0.0.1:1", "--sources", "0"]).is_err());
        assert!(Options::try_parse_from(["load", "--to", "tcp://127.0.0.1:1", "--seconds", "-1"]).is_err());
    }
}
