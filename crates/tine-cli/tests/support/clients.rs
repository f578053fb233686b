//! Clients of all families and of many sources, who hear what becomes of them; PROXY headers; a network of one's own.

#![allow(dead_code)] // each test program uses its part

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;
use std::{env, thread};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tine_testkit::Stream;
use tine_testkit::refusals::{connect_from, reset};
use tine_testkit::server::DEADLINE;

use crate::support::{left_out_without_root, need, run};

/// What clients say, and hear when an echo serves them.
pub const HELLO: &str = "hello\n";

/// From where clients come, and where to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// In a network of its own, see [`is_inside`].
    V6,
    /// IPv4, at a listener for both.
    Mapped,
    /// Users of this machine.
    Unix,
}

/// Somebody who has connected and said something.
pub struct Client(Way);

enum Way {
    Own(Stream),
    /// A process of another user's, and the lines that it hears.
    Other(Child, Receiver<String>),
    Gone,
}

/// The other users that clients of Unix sockets are.
const UIDS: u32 = 54_400;

/// The user of a source, of a Unix socket's client that is not who runs the tests.
pub fn uid(source: u8) -> u32 {
    UIDS + u32::from(source)
}

impl Family {
    /// Where a server listens; `folder` is for sockets.
    pub fn listener(self, folder: &str) -> String {
        match self {
            Family::V4 => "127.0.0.1:0".to_owned(),
            Family::V6 => "[fd00:9::1]:0".to_owned(),
            Family::Mapped => ":0".to_owned(),
            Family::Unix => format!("unix:{folder}/socket?mode=0666"),
        }
    }

    /// A client of a source, who says this: 0 is who runs the tests, or a first address. Others are all of other networks.
    pub fn client(self, address: &str, source: u8, says: &str) -> Client {
        let from: IpAddr = match (self, source) {
            (Family::Unix, 0) => {
                return Client(Way::Own(Stream::connect(address).expect("it listens"))).says(says);
            }
            (Family::Unix, source) => return Client::of_user(uid(source), address, says),
            (Family::V6, source) => format!("fd00:{source}::1").parse().expect("an address"),
            (Family::V4 | Family::Mapped, source) => Ipv4Addr::new(127, source, 0, 1).into(),
        };
        Client::from(from, address.parse().expect("an address and a port"), says)
    }
}

/// Says something at a Unix socket, and passes on what it hears until it is killed.
const OTHER: &str = r#"
    use Socket; $| = 1; $SIG{PIPE} = "IGNORE";
    socket(S, PF_UNIX, SOCK_STREAM, 0) && connect(S, sockaddr_un($ARGV[0])) or die "connect: $!\n";
    syswrite(S, $ARGV[1]);
    print while <S>;
    print "the end\n";
    sleep 1000;
"#;

impl Client {
    /// One from this address, who says this.
    pub fn from(source: impl Into<IpAddr>, to: SocketAddr, says: &str) -> Client {
        let source = source.into();
        let stream = connect_from(source, to).unwrap_or_else(|why| panic!("{source} to {to}: {why}"));
        Client(Way::Own(Stream::Tcp(stream))).says(says)
    }

    /// A process of this user's, at a Unix socket.
    pub fn of_user(uid: u32, address: &str, says: &str) -> Client {
        need("perl", "perl");
        let path = address.strip_prefix("unix:").expect("the address of a Unix socket");
        let mut command = Command::new("perl");
        command.args(["-e", OTHER, path, says]).uid(uid).gid(uid).current_dir("/");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("perl can be run");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (to, from) = channel();
        thread::spawn(move || lines.lines().map_while(Result::ok).try_for_each(|line| to.send(line + "\n")));
        Client(Way::Other(child, from))
    }

    fn says(self, words: &str) -> Client {
        if let Way::Own(stream) = &self.0 {
            // Who was refused already cannot say it any more, and hears why.
            let _ = (&mut &*stream).write_all(words.as_bytes());
        }
        self
    }

    /// The port that it comes from.
    pub fn port(&self) -> u16 {
        match &self.0 {
            Way::Own(Stream::Tcp(stream)) => stream.local_addr().expect("it is connected").port(),
            _ => panic!("it has no port, or is gone"),
        }
    }

    /// The next line, or as much of it as came before the end; nothing is the end.
    pub fn hears(&mut self) -> String {
        match &mut self.0 {
            Way::Own(stream) => {
                let mut line = Vec::new();
                let mut byte = [0];
                while line.last() != Some(&b'\n') {
                    match stream.read(&mut byte) {
                        Ok(0) => break,
                        Ok(_) => line.push(byte[0]),
                        Err(why) if why.kind() == ErrorKind::ConnectionReset => break,
                        Err(why) => panic!("read after {:?}: {why}", String::from_utf8_lossy(&line)),
                    }
                }
                String::from_utf8(line).expect("text")
            }
            Way::Other(_, lines) => match lines.recv_timeout(DEADLINE) {
                Ok(line) if line == "the end\n" => String::new(),
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => panic!("nothing heard in time"),
                Err(RecvTimeoutError::Disconnected) => panic!("it could not connect"),
            },
            Way::Gone => String::new(),
        }
    }

    /// All lines until the end.
    pub fn hears_all(&mut self) -> String {
        let mut all = String::new();
        loop {
            match self.hears() {
                line if line.is_empty() => return all,
                line => all += &line,
            }
        }
    }

    /// Whether it hears its hello; otherwise, what it hears.
    ///
    /// # Errors
    /// It hears something else, or the end.
    pub fn is_served_or_why(&mut self) -> io::Result<()> {
        match self.hears() {
            line if line == HELLO => Ok(()),
            other => Err(io::Error::other(format!("heard {other:?} instead of an echo"))),
        }
    }

    /// It hears its hello.
    pub fn is_served(&mut self) {
        assert_eq!(self.hears(), HELLO);
    }

    /// Whether it has heard nothing since the last time.
    pub fn has_heard_nothing(&mut self) -> bool {
        match &mut self.0 {
            Way::Own(stream) => {
                stream.set_timeout(Some(Duration::from_millis(1))).expect("not zero");
                let nothing =
                    matches!(stream.read(&mut [0]), Err(why) if why.kind() == ErrorKind::WouldBlock);
                stream.set_timeout(Some(DEADLINE)).expect("not zero");
                nothing
            }
            Way::Other(_, lines) => lines.try_recv() == Err(TryRecvError::Empty),
            Way::Gone => true,
        }
    }

    /// It says nothing any more, and may go on listening.
    pub fn finishes(&mut self) {
        match &self.0 {
            Way::Own(stream) => stream.finish().expect("the connection stands"),
            _ => panic!("another user's client leaves only"),
        }
    }

    /// It goes, in a way that cannot be mistaken for one who will say no more and waits for the answer.
    pub fn leaves(mut self) {
        match std::mem::replace(&mut self.0, Way::Gone) {
            Way::Own(Stream::Tcp(stream)) => reset(stream).expect("the socket is ours"),
            way => drop(Client(way)),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Way::Other(child, _) = &mut self.0 {
            let _ = child.kill(); // it has ended already if it could not connect
            let _ = child.wait();
        }
    }
}

/// Does something on one of the processors that there are, the one that this number falls to: who connects there over the
/// loopback arrives there.
pub fn on_processor<T>(number: usize, what: impl FnOnce() -> T) -> T {
    let all = sched_getaffinity(None).expect("the own processors");
    let numbers: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|number| all.is_set(*number)).collect();
    let mut one = CpuSet::new();
    one.set(numbers[number % numbers.len()]);
    sched_setaffinity(None, &one).expect("one of its own");
    let done = what();
    sched_setaffinity(None, &all).expect("those that it had");
    done
}

/// Whether this is the process that has a network of its own, with addresses fd00:0::1 to fd00:9::1, and a second one of each
/// in its /64. Otherwise one is started, which runs this same test, and must succeed.
pub fn is_inside(test: &str) -> bool {
    const INSIDE: &str = "TINE_TEST_NETWORK";
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    if left_out_without_root("a network of its own, with several IPv6 addresses") {
        return false;
    }
    need("unshare", "util-linux");
    need("ip", "iproute2");
    let script = r#"
        ip link set lo up
        for net in 0 1 2 3 4 5 6 7 8 9; do
            for host in 1 2; do ip -6 address add fd00:$net::$host/64 dev lo nodad; done
        done
        exec "$0" --exact "$1" --nocapture"#;
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-ec", script]).arg(env::current_exe().expect("this program")).arg(test);
    let output = run(command.env(INSIDE, "yes"));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains(" 1 passed"), "{told}");
    false
}

/// A PROXY header, version 1, of a client at this address.
pub fn proxy_v1(client: IpAddr) -> String {
    match client {
        IpAddr::V4(client) => format!("PROXY TCP4 {client} 192.0.2.254 4711 80\r\n"),
        IpAddr::V6(client) => format!("PROXY TCP6 {client} 2001:db8:ffff::1 4711 80\r\n"),
    }
}

/// A PROXY header, version 2: of a client at this address, or LOCAL.
pub fn proxy_v2(client: Option<IpAddr>) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    let (command, family, mut ends): (u8, u8, Vec<u8>) = match client {
        None => (0x20, 0x00, Vec::new()),
        Some(IpAddr::V4(client)) => (0x21, 0x11, [client.octets(), [192, 0, 2, 254]].concat()),
        Some(IpAddr::V6(client)) => (0x21, 0x21, [client.octets(), [0xfd; 16]].concat()),
    };
    if client.is_some() {
        ends.extend([4711u16, 80].map(u16::to_be_bytes).concat());
    }
    header.extend([command, family]);
    header.extend((ends.len() as u16).to_be_bytes());
    header.extend(ends);
    header
}
