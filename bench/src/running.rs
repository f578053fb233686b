//! Servers started and ended: each at a port of its own, in a process group of its own, ended by its process id.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::load::stream::ask;
use crate::load::target::Target;
use crate::servers::{Kind, Place, Server, unix_name};

/// How long a server may take until it answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to end once told to.
const GRACE: Duration = Duration::from_secs(5);

/// A server that answers.
pub struct Running {
    child: Child,
    /// Where it listens.
    pub target: Target,
    /// Where its standard output and error go.
    pub log: PathBuf,
    /// From the moment before it was started until it had answered its first client.
    pub started: Duration,
}

/// Ports that servers listen at: below those that clients come from.
const PORTS: std::ops::Range<u16> = 7_200..19_900;

/// Hands out ports, none of them twice before all were had.
pub struct Ports(u16);

impl Default for Ports {
    fn default() -> Ports {
        Ports(PORTS.start + (std::process::id() % 5_000) as u16)
    }
}

impl Ports {
    /// A port at which nobody listens.
    ///
    /// # Errors
    /// When there is none.
    pub fn take(&mut self) -> Result<u16, String> {
        for _ in PORTS {
            self.0 = if self.0 + 1 < PORTS.end { self.0 + 1 } else { PORTS.start };
            let at = (Ipv4Addr::LOCALHOST, self.0);
            if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
                return Ok(self.0);
            }
        }
        Err("no port is free".into())
    }
}

impl Running {
    /// Starts a server and waits until it has answered.
    ///
    /// # Errors
    /// Why it cannot be started, or that it does not answer.
    pub fn start(server: &Server, place: &Place) -> Result<Running, String> {
        let mut command = server.command(place)?;
        let log = place.logs().join(format!("{}.{}", server.name, place.port));
        let failed = |why: io::Error| format!("{}: {why}", command.get_program().display());
        // It writes a line for each client, whatever it is told.
        let out = if server.name == "systemd-socket-activate" {
            File::options().write(true).open("/dev/null").map_err(failed)?
        } else {
            File::create(&log).map_err(failed)?
        };
        let err = out.try_clone().map_err(failed)?;
        let target = if server.name == "tine-unix" {
            Target::Unix(unix_name(place))
        } else {
            Target::Inet(SocketAddrV4::new(Ipv4Addr::LOCALHOST, place.port))
        };
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let began = Instant::now();
        let child = command.spawn().map_err(|why| format!("{}: {why}", command.get_program().display()))?;
        let mut running = Running { child, target, log, started: Duration::ZERO };
        let mut last;
        loop {
            last = if server.kind == Kind::Datagram { asked(&running.target) } else { ask(&running.target) };
            if last.is_ok() {
                break;
            }
            if let Ok(Some(status)) = running.child.try_wait() {
                return Err(format!("ended at once with {status}: {}", running.last_words()));
            }
            if began.elapsed() > PATIENCE {
                break;
            }
            thread::sleep(Duration::from_micros(50));
        }
        running.started = began.elapsed();
        match last {
            Ok(()) => Ok(running),
            Err(why) => Err(format!("does not answer ({why}): {}", running.last_words())),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it how it stands, with SIGUSR1; gives the number of children that it says it has served, if it says so.
    pub fn served(&self) -> Option<u64> {
        let before = fs::read_to_string(&self.log).ok()?.len();
        kill_process(self.rustix_pid(), Signal::USR1).ok()?;
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            let text = fs::read_to_string(&self.log).ok()?;
            if let Some(line) = text.get(before..)?.lines().find(|line| line.starts_with("status ")) {
                return number_after(line, "served=");
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    fn rustix_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().last().unwrap_or("it said nothing").to_string()
    }
}

impl Drop for Running {
    /// Told to end, given time, killed; then whatever of its group it has left.
    fn drop(&mut self) {
        let pid = self.rustix_pid();
        let _ = kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        // The group has the number of the process that we started in it; nobody else is in it.
        let _ = kill_process_group(pid, Signal::KILL);
    }
}

fn asked(target: &Target) -> io::Result<()> {
    let Target::Inet(to) = target else { return Err(io::Error::other("no address for datagrams")) };
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.send(b"are you there?")?;
    let mut reply = [0; 64];
    let length = socket.recv(&mut reply)?;
    if &reply[..length] == b"are you there?" { Ok(()) } else { Err(io::Error::other("the reply is wrong")) }
}

fn number_after(line: &str, key: &str) -> Option<u64> {
    line.split_whitespace().find_map(|word| word.strip_prefix(key))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_itself_is_read() {
        let line = "status open=0/12000 waiting=0 served=10017 failed=0 paused=0 refused=0";
        assert_eq!(number_after(line, "served="), Some(10_017));
        assert_eq!(number_after(line, "lost="), None);
    }
}
