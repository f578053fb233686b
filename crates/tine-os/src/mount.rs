//! Mounts: a tree of files put together from parts of others, by descriptors. mount_namespaces(7), open_tree(2), move_mount(2),
//! fsopen(2), mount_setattr(2), pivot_root(2), mount(2).
//!
//! A path is followed once, when its tree is opened; from there on descriptors are used, so that nobody can put something else in
//! its place.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

use crate::{check, fault};

/// A copy of a part of the tree of files, attached nowhere yet.
#[derive(Debug)]
pub struct Tree(OwnedFd);

/// How a tree may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uses {
    /// Whether it may be written to.
    pub write: bool,
    /// Whether its device files are devices.
    pub devices: bool,
    /// Whether its programs may be executed.
    pub execute: bool,
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const READ_ONLY: u64 = 1;
const NO_SUID: u64 = 2;
const NO_DEVICES: u64 = 4;
const NO_EXECUTE: u64 = 8;

/// What is mounted in this mount namespace from here on is seen in no other, and the other way round.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN in the namespace.
pub fn separate() -> io::Result<()> {
    fault::point("mount")?;
    let apart = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change(c"/", apart)?)
}

/// Where the root is the kernel's first one, as that of an initramfs is, covers it with itself: only a root that is mounted on something
/// can have another one in its place (pivot_root(2)). To be called after [`separate`].
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn make_replaceable() -> io::Result<()> {
    // Without a /proc there is nothing to go by; then it is the next step that fails.
    if !std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| is_first(&mounts)) {
        return Ok(());
    }
    let root = Tree::of(c"/")?;
    root.attach(directory(c"/")?.as_fd(), c"")?;
    fault::point("fchdir")?;
    rustix::process::fchdir(&root)?;
    fault::point("chroot")?;
    Ok(rustix::process::chroot(c".")?)
}

/// Whether the uppermost root is mounted on nothing, which is to say on itself: proc_pid_mountinfo(5).
fn is_first(mounts: &str) -> bool {
    let words = |line: &str| {
        let mut words = line.split(' ');
        let (own, parent, at) =
            (words.next()?.to_owned(), words.next()?.to_owned(), words.nth(2)?.to_owned());
        (at == "/").then_some((own, parent))
    };
    mounts.lines().filter_map(words).next_back().is_some_and(|(own, parent)| own == parent)
}

impl Tree {
    /// The tree at a path, with all that is mounted in it; symbolic links are followed.
    ///
    /// # Errors
    /// ENOENT and others of the path; EPERM without CAP_SYS_ADMIN; EINVAL when something there may not be shown apart from what is
    /// mounted over it.
    pub fn of(path: &CStr) -> io::Result<Tree> {
        fault::point("open_tree")?;
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        Ok(Tree(rustix::mount::open_tree(CWD, path, flags)?))
    }

    /// A fresh file system in memory, of at most so many bytes, whose root has this mode.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN; ENOMEM.
    pub fn in_memory(size: &CStr, mode: &CStr) -> io::Result<Tree> {
        fault::point("fsopen")?;
        let context = rustix::mount::fsopen(c"tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_set_string(&context, c"size", size)?;
        rustix::mount::fsconfig_set_string(&context, c"mode", mode)?;
        rustix::mount::fsconfig_create(&context)?;
        fault::point("fsmount")?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        Ok(Tree(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?))
    }

    /// Says how it may be used, with all that is mounted in it. No use that was not there before comes with it.
    ///
    /// # Errors
    /// EPERM when a use is taken back that somebody outside has forbidden for good.
    pub fn restrict(&self, uses: Uses) -> io::Result<()> {
        fault::point("mount_setattr")?;
        let mut set = NO_SUID;
        set |= if uses.write { 0 } else { READ_ONLY };
        set |= if uses.devices { 0 } else { NO_DEVICES };
        set |= if uses.execute { 0 } else { NO_EXECUTE };
        let attributes = Attributes { set, clear: 0, propagation: 0, userns: 0 };
        let (attributes, size) = (&raw const attributes, size_of::<Attributes>());
        let (fd, flags) = (self.0.as_raw_fd(), libc::AT_EMPTY_PATH | libc::AT_RECURSIVE);
        // SAFETY: the path is an empty string with its NUL, `attributes` a live structure of `size` bytes, and the descriptor is
        // owned, so open (mount_setattr(2)).
        let done =
            unsafe { libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, attributes, size) };
        check(done as libc::c_int).map(drop)
    }

    /// Attaches it at a path below a directory; what is there is covered.
    ///
    /// # Errors
    /// ENOENT; EPERM without CAP_SYS_ADMIN; ENOTDIR for a directory on a file, or a file on a directory.
    pub fn attach(&self, below: BorrowedFd<'_>, at: &CStr) -> io::Result<()> {
        let place = within(below, if at.is_empty() { c"." } else { at })?;
        fault::point("move_mount")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        Ok(rustix::mount::move_mount(&self.0, c"", &place, c"", flags)?)
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A directory, for paths below it.
///
/// # Errors
/// What open(2) says.
pub fn directory(path: &CStr) -> io::Result<OwnedFd> {
    fault::point("open")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Whatever is at a path, and whether it is a directory.
///
/// # Errors
/// What open(2) and fstat(2) say.
pub fn anything(path: &CStr) -> io::Result<(OwnedFd, bool)> {
    fault::point("open")?;
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    Ok((fd, kind.is_dir()))
}

/// How often a path with `..` in it is followed anew when something on the machine was moved meanwhile.
const ATTEMPTS: usize = 100;

/// What a path leads to, with the directory for its root: a link in it, of ours or of somebody's who may write there, would otherwise
/// lead to the machine's own files.
fn within(below: BorrowedFd<'_>, at: &CStr) -> io::Result<OwnedFd> {
    fault::point("openat2")?;
    let (flags, how) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    let mut attempt = 1;
    loop {
        match rustix::fs::openat2(below, at, flags, Mode::empty(), how) {
            Err(rustix::io::Errno::AGAIN) if attempt < ATTEMPTS => attempt += 1,
            opened => return Ok(opened?),
        }
    }
}

/// The directory that the last name of a path is in, and that name.
fn parent<'a>(below: BorrowedFd<'_>, at: &'a CStr) -> io::Result<(OwnedFd, &'a CStr)> {
    let slash = at.to_bytes().iter().rposition(|byte| *byte == b'/');
    let above = CString::new(slash.map_or(&b"."[..], |slash| &at.to_bytes()[..slash]))?;
    let last = &at.to_bytes_with_nul()[slash.map_or(0, |slash| slash + 1)..];
    Ok((within(below, &above)?, CStr::from_bytes_with_nul(last).expect("the end of a string is one")))
}

/// Makes a directory that others may enter, where there is none.
///
/// # Errors
/// What openat2(2) and mkdir(2) say.
pub fn make_directory(below: BorrowedFd<'_>, at: &CStr) -> io::Result<()> {
    let (parent, name) = parent(below, at)?;
    let mode = Mode::from_raw_mode(0o755);
    fault::point("mkdir")?;
    match rustix::fs::mkdirat(&parent, name, mode) {
        Err(rustix::io::Errno::EXIST) => return Ok(()),
        other => other?,
    }
    // Whatever the umask is.
    fault::point("fchmodat")?;
    Ok(rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?)
}

/// Makes a file that everybody may read, or, empty, attach another one to.
///
/// # Errors
/// What openat2(2), open(2), fchmod(2) and pwrite(2) say.
pub fn make_file(below: BorrowedFd<'_>, at: &CStr, contents: &[u8]) -> io::Result<()> {
    let (parent, name) = parent(below, at)?;
    let (flags, mode) =
        (OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::from_raw_mode(0o444));
    fault::point("open")?;
    let file = File::from(rustix::fs::openat(parent, name, flags, mode)?);
    fault::point("fchmod")?;
    rustix::fs::fchmod(&file, mode)?;
    fault::point("pwrite")?;
    file.write_all_at(contents, 0)
}

/// Whether something is there; a link that leads nowhere is something.
pub fn is_there(below: BorrowedFd<'_>, at: &CStr) -> bool {
    let there =
        |(parent, name)| rustix::fs::statat::<_, OwnedFd>(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    parent(below, at).is_ok_and(there)
}

/// Makes a symbolic link.
///
/// # Errors
/// What openat2(2) and symlink(2) say.
pub fn make_link(to: &CStr, below: BorrowedFd<'_>, at: &CStr) -> io::Result<()> {
    let (parent, name) = parent(below, at)?;
    fault::point("symlink")?;
    Ok(rustix::fs::symlinkat(to, parent, name)?)
}

/// Makes a tree that is attached in this mount namespace its root, and lets go of all that was there before.
///
/// # Errors
/// EINVAL where the root is the kernel's first one (pivot_root(2)); EPERM without CAP_SYS_ADMIN.
pub fn become_root(tree: &Tree) -> io::Result<()> {
    fault::point("fchdir")?;
    rustix::process::fchdir(tree)?;
    fault::point("pivot_root")?;
    // Put under itself, the old root lies on top of the new one, where it can be let go of: pivot_root(2) has this under NOTES.
    rustix::process::pivot_root(c".", c".")?;
    fault::point("umount")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    fault::point("chdir")?;
    Ok(rustix::process::chdir(c"/")?)
}

/// Nothing can be made, changed or removed in the root's own file system any more; what is mounted in it stays as it is.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN in the namespace.
pub fn seal_root() -> io::Result<()> {
    fault::point("mount_setattr")?;
    let attributes =
        Attributes { set: READ_ONLY | NO_SUID | NO_DEVICES, clear: 0, propagation: 0, userns: 0 };
    let (attributes, size) = (&raw const attributes, size_of::<Attributes>());
    // SAFETY: the path is a string with its NUL, `attributes` a live structure of `size` bytes (mount_setattr(2)).
    let done =
        unsafe { libc::syscall(libc::SYS_mount_setattr, libc::AT_FDCWD, c"/".as_ptr(), 0, attributes, size) };
    check(done as libc::c_int).map(drop)
}

/// In a child: mounts a fresh file system in memory. Asks for no memory of this process. `options` are those of tmpfs(5).
///
/// # Errors
/// What mount(2) says.
pub fn mount_memory(at: &CStr, options: &CStr) -> io::Result<()> {
    fault::point("mount")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(rustix::mount::mount(c"tmpfs", at, c"tmpfs", flags, options)?)
}

/// In a child that is the first of its pid namespace, or in it: mounts what shows the processes of that namespace and nothing else.
/// proc(5).
///
/// # Errors
/// EPERM where an unprivileged user may not see all of a proc file system.
pub fn mount_processes(at: &CStr, options: &CStr) -> io::Result<()> {
    fault::point("mount")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount(c"proc", at, c"proc", flags, options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_root_is_mounted_on_itself_and_what_covers_it_is_not() {
        let first = "1 1 0:2 / / rw - rootfs none rw\n20 1 0:19 / /proc rw,relatime - proc proc rw\n";
        assert!(is_first(first));
        assert!(!is_first(&format!("{first}31 1 0:2 / / rw - rootfs none rw\n")));
        assert!(!is_first("22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"));
        assert!(!is_first(""));
    }
}
