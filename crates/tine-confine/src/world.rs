//! World: the small tree of files that children see instead of the machine's own. pivot_root(2), mount_namespaces(7).
//!
//! It is put together once, by the process that children are forked from, of parts of the machine's tree, by descriptors, and cannot
//! be written to. What each child is to have for itself (`/tmp`, `/proc`) it mounts over places that are left for it.

use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use tine_os::mount::{self, Tree, Uses};

use crate::profile::Layer;

mod copy;

/// What the operator says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct World {
    /// Where system directories are taken from; `None`: those of the machine, without their secrets.
    pub root: Option<PathBuf>,
    /// What else is to be seen, and where.
    pub binds: Vec<Bind>,
    /// File systems in memory, of each child's own.
    pub memory: Vec<Memory>,
    /// Which of the namespaces that the profile names each child has for itself; the others it has together with all children of
    /// the service. Processes are never shared.
    pub own: Vec<Layer>,
    /// Whether a process of ours is the first in each pid namespace, and the program its child: the first one is spared signals that
    /// would end any other, and has to wait for orphans.
    pub init: bool,
}

/// A part of the machine's tree, and where it is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// What.
    pub from: PathBuf,
    /// Where.
    pub to: PathBuf,
    /// Whether it may be written to.
    #[serde(default)]
    pub write: bool,
}

/// A file system in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// Where.
    pub at: PathBuf,
    /// How many bytes at most.
    pub size: u64,
}

/// How much a `/tmp` holds of which nothing else was said: 16 MiB.
pub(crate) const TMP: u64 = 16 << 20;

/// What of the machine's tree is to be seen: programs, libraries, and what of /etc they cannot do without. No keys, no
/// passwords, no configuration of services.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
const ETC: [&str; 26] = [
    "alternatives",
    "bash.bashrc",
    "ca-certificates.conf",
    "fonts",
    "group",
    "hosts",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "localtime",
    "magic",
    "mime.types",
    "nsswitch.conf",
    "passwd",
    "perl",
    "profile",
    "protocols",
    "python3",
    "python3.11",
    "resolv.conf",
    "services",
    "ssl/certs",
    "terminfo",
    "timezone",
];
const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
];

/// Where older names of directories lead, beside the machine's system directories.
const LINKS: [(&str, &str); 2] = [("/var/tmp", "/tmp"), ("/var/run", "/run")];

/// The root itself holds directories, links, places to mount at, and copies.
const ROOT_SIZE: &CStr = c"8m";

/// What may be done with a part of which nothing else was said.
const PLAIN: Uses = Uses { write: false, devices: false, execute: true };

/// What is seen of a file or directory: it, a copy, or a link.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Tree { from: PathBuf, to: PathBuf, uses: Uses },
    Copy { of: PathBuf },
    Link { to: PathBuf, at: PathBuf },
    Directory { at: PathBuf },
}

/// A world that was looked at and is ready to be built.
#[derive(Debug)]
pub(crate) struct Plot {
    pieces: Vec<Piece>,
}

impl Default for World {
    fn default() -> World {
        World { root: None, binds: vec![], memory: vec![], own: vec![Layer::Pid, Layer::Mount], init: true }
    }
}

impl World {
    /// File systems in memory, `/tmp` among them.
    pub(crate) fn memories(&self) -> Vec<Memory> {
        let mut all = self.memory.clone();
        let tmp = Path::new("/tmp");
        if !all.iter().any(|memory| memory.at == tmp) && !self.binds.iter().any(|bind| bind.to == tmp) {
            all.push(Memory { at: tmp.to_owned(), size: TMP });
        }
        all
    }

    /// Whether a path is in one of these.
    pub(crate) fn is_in_memory(&self, path: &Path) -> bool {
        let links = LINKS.iter().filter(|_| self.root.is_none());
        let through =
            links.filter_map(|(at, to)| Some(Path::new(to).join(path.strip_prefix(at).ok()?))).next();
        let path = through.as_deref().unwrap_or(path);
        self.memories().iter().any(|memory| path.starts_with(&memory.at))
    }

    /// Looks at all that is to be in it. `files`: what else is, at its own place, and whether it may be written to.
    ///
    /// # Errors
    /// The path that cannot be had, and why.
    ///
    /// `processes`: each child mounts a `/proc` of its own. Without privilege it may do so only where it sees one that nothing is hidden
    /// of; so the machine's lies there, and is covered by the child's.
    pub(crate) fn plot(
        &self,
        files: &[(PathBuf, bool)],
        processes: bool,
    ) -> Result<Plot, (PathBuf, io::Error)> {
        let mut pieces = Vec::new();
        match &self.root {
            None => {
                for path in SYSTEM {
                    pieces.extend(piece(Path::new(path), Path::new(path), PLAIN, false)?);
                }
                for name in ETC {
                    let path = Path::new("/etc").join(name);
                    pieces.extend(piece(&path, &path, PLAIN, false)?.map(Piece::or_copy));
                }
                for at in ["/run", "/home", "/root", "/var/lib", "/srv"] {
                    pieces.push(Piece::Directory { at: at.into() });
                }
                pieces.extend(LINKS.map(|(at, to)| Piece::Link { to: to.into(), at: at.into() }));
            }
            Some(root) => {
                let fail = |why| (root.clone(), why);
                for entry in fs::read_dir(root).map_err(fail)? {
                    let name = entry.map_err(fail)?.file_name();
                    if ["proc", "dev", "tmp", "sys"].iter().all(|ours| name != **ours) {
                        pieces.extend(piece(&root.join(&name), &Path::new("/").join(&name), PLAIN, false)?);
                    }
                }
            }
        }
        for name in DEVICES {
            let path = Path::new("/dev").join(name);
            let uses = Uses { write: true, devices: true, execute: false };
            pieces.extend(piece(&path, &path, uses, true)?);
        }
        for (at, to) in DEVICE_LINKS {
            pieces.push(Piece::Link { to: to.into(), at: Path::new("/").join(at) });
        }
        let proc = Path::new("/proc");
        pieces.extend(match processes {
            true => piece(proc, proc, Uses { write: true, devices: false, execute: false }, true)?,
            false => Some(Piece::Directory { at: proc.into() }),
        });
        pieces.extend(self.memories().into_iter().map(|memory| Piece::Directory { at: memory.at }));
        for Bind { from, to, write } in &self.binds {
            pieces.extend(piece(from, to, Uses { write: *write, ..PLAIN }, true)?);
        }
        for (path, write) in files {
            pieces.extend(piece(path, path, Uses { write: *write, ..PLAIN }, true)?);
        }
        Ok(Plot { pieces })
    }
}

/// A piece of the tree, if it is there; one that must be there is an error if not.
fn piece(from: &Path, to: &Path, uses: Uses, must: bool) -> Result<Option<Piece>, (PathBuf, io::Error)> {
    let fail = |why| (from.to_owned(), why);
    let about = match fs::symlink_metadata(from) {
        Err(why) if why.kind() == io::ErrorKind::NotFound && !must => return Ok(None),
        about => about.map_err(fail)?,
    };
    if !to.is_absolute() || to.components().any(|part| part == Component::ParentDir) {
        return Err((to.to_owned(), io::Error::other("a place in the tree is an absolute path without ..")));
    }
    // A system directory that is a link into another one stays one. What was named is what it leads to.
    if about.is_symlink() && !must {
        return Ok(Some(Piece::Link { to: fs::read_link(from).map_err(fail)?, at: to.to_owned() }));
    }
    fs::metadata(from).map_err(fail)?;
    Ok(Some(Piece::Tree { from: from.to_owned(), to: to.to_owned(), uses }))
}

impl Piece {
    /// What is small is copied, when it is seen at its own place.
    fn or_copy(self) -> Piece {
        match self {
            Piece::Tree { from, .. } if copy::is_apt(&from) => Piece::Copy { of: from },
            other => other,
        }
    }
}

impl Plot {
    /// Its pieces in words, in the order in which they are put together: places, and what is there. Neighbours of one kind are one.
    pub(crate) fn told(&self) -> Vec<(Vec<String>, String)> {
        let mut all: Vec<(Vec<String>, String)> = Vec::new();
        for piece in &self.pieces {
            let (at, what) = match piece {
                Piece::Directory { at } => (at, "an empty directory".to_owned()),
                Piece::Copy { of } => (of, "read, a copy".to_owned()),
                Piece::Link { to, at } => (at, format!("a link to {}", to.display())),
                Piece::Tree { from, to, uses } => {
                    let mut what = if uses.write { "read, write" } else { "read" }.to_owned();
                    what += if uses.execute { ", execute" } else { "" };
                    what += if uses.devices { ", a device" } else { "" };
                    let own = from == to;
                    (to, if own { what } else { format!("what is at {}: {what}", from.display()) })
                }
            };
            let at = at.display().to_string();
            match all.last_mut().filter(|(_, last)| *last == what) {
                Some((places, _)) => places.push(at),
                None => all.push((vec![at], what)),
            }
        }
        all
    }

    /// In the process that children are forked from, in a mount namespace of its own: builds it, and makes it the root.
    ///
    /// # Errors
    /// What failed, and at which path.
    pub(crate) fn build(&self) -> io::Result<()> {
        mount::separate()?;
        mount::make_replaceable()?;
        let root = Tree::in_memory(ROOT_SIZE, c"755")?;
        // Where it is attached does not matter: it is the root in a moment.
        root.attach(mount::directory(c"/")?.as_fd(), c"")?;
        let mut places = Places { root: &root, made: BTreeSet::new() };
        for piece in &self.pieces {
            let at = match piece {
                Piece::Tree { to: at, .. } | Piece::Copy { of: at } => at,
                Piece::Link { at, .. } | Piece::Directory { at } => at,
            };
            places.put(piece).map_err(|why| io::Error::new(why.kind(), Told { at: at.clone(), why }))?;
        }
        mount::become_root(&root)?;
        // Last, and for the root alone: what may be written to was said of each piece.
        mount::seal_root()
    }
}

/// An error that keeps its number and says where.
#[derive(Debug)]
struct Told {
    at: PathBuf,
    why: io::Error,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.at.display(), self.why)
    }
}

impl std::error::Error for Told {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.why)
    }
}

/// A root that is being built, and what is there.
struct Places<'a> {
    root: &'a Tree,
    made: BTreeSet<PathBuf>,
}

impl Places<'_> {
    fn put(&mut self, piece: &Piece) -> io::Result<()> {
        match piece {
            Piece::Directory { at } => self.directories(at),
            Piece::Link { to, at } => self.link(to, at),
            Piece::Copy { of } if copy::is_apt(of) => copy::put(of, self),
            Piece::Copy { of } => self.tree(of, of, PLAIN),
            Piece::Tree { from, to, uses } => self.tree(from, to, *uses),
        }
    }

    fn tree(&mut self, from: &Path, to: &Path, uses: Uses) -> io::Result<()> {
        let tree = Tree::of(&name(from)?)?;
        tree.restrict(uses)?;
        if fs::metadata(from)?.is_dir() {
            self.directories(to)?;
        } else {
            self.file(to, b"")?;
        }
        tree.attach(self.root.as_fd(), &below(to)?)
    }

    /// Makes a directory, and those above it.
    fn directories(&mut self, at: &Path) -> io::Result<()> {
        let mut so_far = PathBuf::from("/");
        for part in at.components().filter(|part| *part != Component::RootDir) {
            so_far.push(part);
            self.make(&so_far, mount::make_directory)?;
        }
        Ok(())
    }

    fn file(&mut self, at: &Path, contents: &[u8]) -> io::Result<()> {
        self.directories(at.parent().unwrap_or(at))?;
        self.make(at, |root, place| mount::make_file(root, place, contents))
    }

    fn link(&mut self, to: &Path, at: &Path) -> io::Result<()> {
        self.directories(at.parent().unwrap_or(at))?;
        let to = name(to)?;
        self.make(at, |root, place| mount::make_link(&to, root, place))
    }

    /// Makes something, unless it is there: within a part that cannot be written to there may be what is asked for.
    fn make(
        &mut self,
        at: &Path,
        how: impl FnOnce(BorrowedFd<'_>, &CStr) -> io::Result<()>,
    ) -> io::Result<()> {
        let place = below(at)?;
        let is_new = self.made.insert(at.to_owned()) && !mount::is_there(self.root.as_fd(), &place);
        if is_new { how(self.root.as_fd(), &place) } else { Ok(()) }
    }
}

fn name(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A path below the root.
fn below(path: &Path) -> io::Result<CString> {
    name(path.strip_prefix("/").unwrap_or(path))
}
