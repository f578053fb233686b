//! Who a process is, and who is at the other end of a Unix socket. setresuid(2), setgroups(2), credentials(7), unix(7).

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::{check, fault};

/// A user, a group and supplementary groups, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Real, effective and saved user id.
    pub uid: u32,
    /// Real, effective and saved group id.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
}

/// The process at the other end of a Unix stream when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Its process id, in our pid namespace; 0 when it is not visible there.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

/// This process's effective user id.
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// This process's effective group id.
pub fn effective_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// This process's effective group id and its supplementary groups.
///
/// # Errors
/// ENOMEM: getgroups(2).
pub fn effective_groups() -> io::Result<(u32, Vec<u32>)> {
    let groups = rustix::process::getgroups()?;
    let own = rustix::process::getegid().as_raw();
    Ok((own, groups.into_iter().map(rustix::process::Gid::as_raw).collect()))
}

/// Becomes `who`, for good: groups first, then group, then user, since each needs the privilege that the next gives up;
/// then looks whether it is true.
///
/// # Errors
/// EPERM without the privilege; [`io::ErrorKind::Other`] when the kernel said yes and did otherwise.
pub fn assume(who: &Identity) -> io::Result<()> {
    become_all(who.uid, who.gid, &who.groups)
}

/// As [`assume`], a user with the group of the same number, and no other.
///
/// # Errors
/// As there.
pub fn assume_alone(id: u32) -> io::Result<()> {
    become_all(id, id, &[])
}

fn become_all(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // Each change makes the kernel copy all that it knows of who we are.
    if !(groups.is_empty() && has_no_groups()?) {
        fault::point("setgroups")?;
        // SAFETY: the pointer and length are those of one live slice, and gid_t is u32 on Linux (setgroups(2)).
        check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) })?;
    }
    fault::point("setresgid")?;
    // SAFETY: takes plain numbers; the process has one thread, so "all threads" is this one (setresgid(2)).
    check(unsafe { libc::setresgid(gid, gid, gid) })?;
    fault::point("setresuid")?;
    // SAFETY: takes plain numbers; one thread, as with setresgid above (setresuid(2)).
    check(unsafe { libc::setresuid(uid, uid, uid) })?;
    verify(uid, gid)
}

fn has_no_groups() -> io::Result<bool> {
    fault::point("getgroups")?;
    // SAFETY: nothing is written where no room is given; how many there are is returned (getgroups(2)).
    Ok(check(unsafe { libc::getgroups(0, std::ptr::null_mut()) })? == 0)
}

fn verify(uid: u32, gid: u32) -> io::Result<()> {
    let (mut real, mut effective, mut saved) = (0, 0, 0);
    // SAFETY: the three pointers are to live integers of ours (getresuid(2)).
    check(unsafe { libc::getresuid(&mut real, &mut effective, &mut saved) })?;
    let users = [real, effective, saved];
    // SAFETY: the three pointers are to the same live integers, which are read only after it (getresgid(2)).
    check(unsafe { libc::getresgid(&mut real, &mut effective, &mut saved) })?;
    let groups = [real, effective, saved];
    if users == [uid; 3] && groups == [gid; 3] {
        Ok(())
    } else {
        Err(io::Error::other("the identity is not the one that was asked for"))
    }
}

/// Who connected a Unix stream, as the kernel noted it then: SO_PEERCRED in unix(7).
///
/// # Errors
/// ENOPROTOOPT and others when the socket is not of that kind.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<Credentials> {
    fault::point("getsockopt")?;
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    let value = (&raw mut found).cast();
    // SAFETY: `value` points to a live `ucred` of `length` bytes, and the descriptor is borrowed, so open.
    check(unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, value, &mut length) })?;
    Ok(Credentials { pid: found.pid.unsigned_abs(), uid: found.uid, gid: found.gid })
}
