//! What the attempts are made on: files, services, terminals, a stranger. All of it is made here and belongs to nobody else.

use std::fs::{self, File, Permissions};
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{process, thread};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::{Folder, command, run};

/// The user and group that ordinary programs run as here.
pub const NOBODY: u32 = 65534;

const PLANTED: &str = "crates/tine-cli/tests/jailbreak";

/// What of it a child is shown that sees nothing else of the machine's: all but the secret and the decoy.
pub const SEEN: [&str; 9] =
    ["jailbreak", "copy", "suid", "filecaps", "audit.so", "allowed", "service", "open", "scratch"];

/// The program, compiled once for this run; and the library for LD_AUDIT beside it.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        crate::support::need("gcc", "gcc");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jailbreak");
        let all = fs::read_dir(&sources).unwrap_or_else(|why| panic!("{PLANTED}: {why}"));
        let files = all.filter_map(|entry| Some(entry.ok()?.path()));
        let is_program =
            |path: &PathBuf| path.extension().is_some_and(|e| e == "c") && !path.ends_with("audit.c");
        let files: Vec<PathBuf> = files.filter(is_program).collect();
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("jailbreak-{}", process::id()));
        fs::create_dir_all(&to).expect("cargo's own folder");
        let flags = ["-static", "-O1", "-Wall", "-Werror", "-o"];
        run(command("gcc").args(flags).arg(to.join("jailbreak")).args(&files));
        let flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"];
        run(command("gcc").args(flags).arg(to.join("audit.so")).arg(sources.join("audit.c")));
        to.join("jailbreak")
    })
}

/// A word that nobody has used before.
pub fn token() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}x{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Everything that is planted.
pub struct World {
    folder: Folder,
    /// Whose programs try, and whose the folders are.
    pub user: u32,
    secret: String,
    tcp: u16,
    udp: u16,
    names: String,
}

impl World {
    /// Plants it, for programs that run as this user.
    ///
    /// The threads that serve wait for clients until this process ends.
    pub fn new(user: u32) -> World {
        // Not in /tmp: a child that has one of its own sees nothing of it.
        let (folder, word) = (Folder::below(Path::new(env!("CARGO_TARGET_TMPDIR"))), token());
        let secret = format!("secret-{word}");
        let plant = |name: &str, text: &str, mode: u32| {
            fs::write(folder.file(name), text).expect("a folder of our own");
            fs::set_permissions(folder.file(name), Permissions::from_mode(mode)).expect("our own file");
        };
        plant("secret", &secret, 0o600);
        plant("decoy", "decoy-words", 0o644);
        plant("allowed", "anybody may know", 0o644);
        let built = program();
        folder.copy(built, "jailbreak");
        folder.copy(built, "copy");
        folder.copy(built, "suid");
        folder.copy(built, "filecaps");
        folder.copy(built.with_file_name("audit.so"), "audit.so");
        fs::set_permissions(folder.file("copy"), Permissions::from_mode(0o777)).expect("our own file");
        fs::set_permissions(folder.file("suid"), Permissions::from_mode(0o4755)).expect("our own file");
        // Of capabilities(7), version 2, effective: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
        let words: [u32; 5] = [0x0200_0001, 1 << 1 | 1 << 2, 0, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let none = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(folder.file("filecaps"), "security.capability", &bytes, none)
            .expect("root may set capabilities of files");

        let tcp = serve_tcp();
        let udp = serve_udp();
        serve_unix(UnixListener::bind(folder.file("service")).expect("a new path"), secret_file(&folder));
        fs::set_permissions(folder.file("service"), Permissions::from_mode(0o777)).expect("our own file");
        let names = format!("tine-service-{word}");
        let name = SocketAddr::from_abstract_name(&names).expect("a short name");
        serve_unix(UnixListener::bind_addr(&name).expect("a new name"), secret_file(&folder));
        let name = SocketAddr::from_abstract_name(format!("{names}-d")).expect("a short name");
        serve_unix_datagrams(UnixDatagram::bind_addr(&name).expect("a new name"));
        World { folder, user, secret, tcp, udp, names }
    }

    /// A path in the world.
    pub fn path(&self, name: &str) -> String {
        self.folder.text(name)
    }

    /// Makes those parts new which attempts change.
    pub fn renew(&self) {
        for name in ["open", "scratch"] {
            let path = self.folder.file(name);
            let _ = fs::remove_dir_all(&path); // not there at first
            fs::create_dir(&path).expect("our own folder");
            fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("our own folder");
            chown(&path, Some(self.user), Some(self.user)).expect("we are root");
        }
        let writable = self.folder.file("open/writable");
        fs::write(&writable, "as it was\n").expect("our own folder");
        fs::set_permissions(&writable, Permissions::from_mode(0o666)).expect("our own file");
        chown(&writable, Some(self.user), Some(self.user)).expect("we are root");
    }

    /// What every attempt is told.
    pub fn keys(&self) -> Vec<(&'static str, String)> {
        let at = |name: &str| self.folder.text(name);
        let version_2 = mounted("cgroup2").unwrap_or("/nonexistent".into());
        let version_1 = mounted("cgroup").unwrap_or("/nonexistent".into());
        vec![
            ("secret", at("secret")),
            ("secret-text", self.secret.clone()),
            ("decoy", at("decoy")),
            ("decoy-text", "decoy-words".into()),
            ("allowed", at("allowed")),
            ("folder", at("open")),
            ("writable", at("open/writable")),
            ("scratch", at("scratch")),
            ("program", at("copy")),
            ("other-program", at("jailbreak")),
            ("suid", at("suid")),
            ("filecaps", at("filecaps")),
            ("audit", at("audit.so")),
            ("tcp", self.tcp.to_string()),
            ("udp", self.udp.to_string()),
            ("service-text", "service-words".into()),
            ("taken-text", "taken-words".into()),
            ("unix", at("service")),
            ("abstract", format!("@{}", self.names)),
            ("abstract-datagram", format!("@{}-d", self.names)),
            ("cgroup", version_2.clone()),
            ("cgroup-procs", format!("{version_2}/cgroup.procs")),
            ("release-agent", format!("{version_1}/release_agent")),
        ]
    }
}

/// Where a file system of this kind is mounted first.
fn mounted(kind: &str) -> Option<String> {
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let rows = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    rows.filter(|row| row.get(2) == Some(&kind)).map(|row| row[1].to_owned()).next()
}

fn secret_file(folder: &Folder) -> File {
    File::open(folder.file("secret")).expect("it was just written")
}

fn serve_tcp() -> u16 {
    // Of both families: a client of IPv6 may come by the mapped address of IPv4.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || greet(client));
        }
    });
    port
}

/// Says its words, and reads what the client has said, lest the close be taken for a reset.
fn greet(mut client: TcpStream) {
    let _ = client.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = client.write_all(b"service-words\n"); // whoever has left has left
    let _ = client.shutdown(Shutdown::Write);
    let _ = client.read_to_end(&mut Vec::new());
}

fn serve_udp() -> u16 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = socket.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        let mut bytes = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&bytes[..length], from); // whoever has left has left
        }
    });
    port
}

fn serve_unix(listener: UnixListener, secret: File) {
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            if let Err(why) = conspire(client, &secret) {
                eprintln!("the accomplice: {why}");
            }
        }
    });
}

/// Does as it is told: `hello` is answered, `give` with a descriptor of the secret, and what comes with `take` is written to.
fn conspire(mut client: UnixStream, secret: &File) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut word = [0; 64];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut came = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(&client, &mut [IoSliceMut::new(&mut word)], &mut came, flags)?;
    let taken: Vec<OwnedFd> = came
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    match &word[..got.bytes] {
        b"give\n" => {
            let descriptors = [secret.as_fd()];
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut with = SendAncillaryBuffer::new(&mut room);
            with.push(SendAncillaryMessage::ScmRights(&descriptors));
            rustix::net::sendmsg(&client, &[IoSlice::new(b"here")], &mut with, SendFlags::NOSIGNAL)?;
            Ok(())
        }
        b"take\n" if !taken.is_empty() => {
            rustix::io::write(&taken[0], b"hijacked\n")?;
            client.write_all(b"taken-words\n")
        }
        _ => client.write_all(b"service-words\n"),
    }
}

fn serve_unix_datagrams(socket: UnixDatagram) {
    thread::spawn(move || {
        let mut bytes = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to_addr(b"service-words", &from); // whoever has left has left
        }
    });
}

/// The operator's terminal: a pty whose other side this process has, the user's by name.
pub struct Terminal {
    _operator: OwnedFd,
    /// Where a program finds it.
    pub path: String,
    session: Option<Child>,
}

impl Terminal {
    pub fn new(user: u32) -> Terminal {
        let operator = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&operator).and_then(|()| unlockpt(&operator)).expect("our own pty");
        let path = ptsname(&operator, Vec::new()).expect("it has a name").into_string().expect("a plain one");
        chown(&path, Some(user), None).expect("we are root");
        Terminal { _operator: operator, path, session: None }
    }

    /// It becomes the terminal of a session that does nothing.
    pub fn owned(mut self) -> Terminal {
        let open = File::options().read(true).write(true).open(&self.path).expect("our own pty");
        let mut command = Command::new("setsid");
        let session = command.args(["--ctty", "sleep", "60"]).stdin(open).stdout(Stdio::null()).spawn();
        let session = session.expect("setsid of util-linux");
        const TTY: usize = 7 - 3; // the seventh field of proc_pid_stat(5), counted from the third
        tine_testkit::server::until("the session has its terminal", || {
            let stat = tine_testkit::procfs::stat(session.id())?;
            (stat.fields[TTY] != "0").then_some(())
        });
        self.session = Some(session);
        self
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(session) = &mut self.session {
            let _ = session.kill(); // it may have ended
            let _ = session.wait();
        }
    }
}

/// A process of the user's that has nothing to do with the server.
pub struct Stranger(Child);

impl Stranger {
    pub fn new(user: u32) -> Stranger {
        Stranger(as_user(Command::new("sleep").arg("60"), user).stdin(Stdio::null()).spawn().expect("sleep"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn is_dead(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended
        let _ = self.0.wait();
    }
}

/// A command that runs as this user.
pub fn as_user(command: &mut Command, user: u32) -> &mut Command {
    use std::os::unix::process::CommandExt;
    if user == 0 { command } else { command.uid(user).gid(user) }
}
