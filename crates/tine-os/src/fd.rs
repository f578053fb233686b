//! Descriptors: made close-on-exec, inherited ones adopted once, a child's placed and all others closed.
//!
//! dup2(2), fcntl(2), close_range(2), pipe(2), poll(2).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::FdFlags;
use rustix::pipe::PipeFlags;

use crate::{check, fault};

/// Opens `/dev/null` for reading and writing.
///
/// # Errors
/// What open(2) says.
pub fn null() -> io::Result<OwnedFd> {
    fault::point("open")?;
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

/// A directory, to look up what is in it; nothing else can be done with it.
///
/// # Errors
/// What open(2) says.
pub fn directory(path: &str) -> io::Result<OwnedFd> {
    fault::point("open")?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?)
}

/// A file without a name, in memory: memfd_create(2).
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn memory() -> io::Result<OwnedFd> {
    fault::point("memfd_create")?;
    Ok(rustix::fs::memfd_create(c"tine", rustix::fs::MemfdFlags::CLOEXEC)?)
}

/// Makes sure that descriptors 0, 1 and 2 are open, so that none of ours ever lands there.
///
/// # Errors
/// What open(2) says of `/dev/null`.
pub fn fill_standard() -> io::Result<()> {
    loop {
        let null = null()?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        // The lowest free number was one of the three: it stays taken, for ever, on purpose.
        std::mem::forget(null);
    }
}

/// Puts `/dev/null` in the place of standard output, so that whoever reads it sees the end.
///
/// # Errors
/// What open(2) and dup2(2) say.
pub fn silence_stdout() -> io::Result<()> {
    let null = null()?;
    fault::point("dup")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Another descriptor for the same open file, close-on-exec and above the standard three.
///
/// # Errors
/// EMFILE when there is no room.
pub fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    fault::point("dup")?;
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// A pipe, both ends close-on-exec and neither of them blocking.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    fault::point("pipe2")?;
    Ok(rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// Takes over a descriptor that this program was started with, by its number.
///
/// Such a descriptor is not close-on-exec, while all that Rust code opens is; taking it makes it so. A number can
/// therefore be taken once, and never one that something in this process already owns.
///
/// # Errors
/// EBADF when nothing was inherited under that number or it has been taken already.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: fcntl(2) only looks the number up; one that is not open is answered with EBADF.
    let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is open, came through exec (no close-on-exec flag) and so has no owner in this process;
    // the flag set next keeps it from being taken again.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// Sets whether calls on the open file may block.
///
/// # Errors
/// What fcntl(2) says.
pub fn set_blocking(fd: impl AsFd, blocking: bool) -> io::Result<()> {
    fault::point("fcntl")?;
    let fd = fd.as_fd();
    let mut flags = rustix::fs::fcntl_getfl(fd)?;
    flags.set(rustix::fs::OFlags::NONBLOCK, !blocking);
    rustix::fs::fcntl_setfl(fd, flags)?;
    Ok(())
}

/// In a child: makes `from[i]` descriptor i, leaves descriptor 2 as it is where `from[2]` is it, and closes all others
/// but those of `keep`, which must be sorted.
///
/// The placed ones are not close-on-exec; those of `keep` stay as they are. None of `from` may itself be one of the
/// numbers that are being written to unless it is in its place already: the parent keeps 0 to 2 filled with others.
///
/// # Errors
/// What dup2(2) and close_range(2) say.
pub fn place(from: &[BorrowedFd<'_>], keep: &[RawFd]) -> io::Result<()> {
    for (target, source) in from.iter().enumerate() {
        let (source, target) = (source.as_raw_fd(), target as RawFd);
        if source == target {
            fault::point("fcntl")?;
            rustix::io::fcntl_setfd(from[target as usize], FdFlags::empty())?;
        } else {
            fault::point("dup2")?;
            // SAFETY: `target` is overwritten in a child whose descriptors this function is called to rearrange:
            // what owned it belongs to the parent's side of the fork and is never touched here again.
            check(unsafe { libc::dup2(source, target) })?;
        }
    }
    close_from(from.len() as RawFd, keep)
}

/// Descriptors 0, 1 and 2 of a process that has them open, as [`fill_standard`] sees to. Nothing is asked for, not even memory.
pub fn standard() -> [BorrowedFd<'static>; 3] {
    [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()]
}

/// Whether nobody reads the other end of a pipe any more.
pub fn is_broken(write: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&write, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::ERR)
}

/// In a child: closes every descriptor from `first` on but those of `keep`, which must be sorted.
///
/// # Errors
/// What close_range(2) says.
pub fn close_from(first: RawFd, keep: &[RawFd]) -> io::Result<()> {
    let mut next = first;
    for kept in keep.iter().copied().filter(|kept| *kept >= first) {
        if kept > next {
            close_range(next, kept - 1)?;
        }
        next = kept + 1;
    }
    close_range(next, RawFd::MAX)
}

/// In a child, after [`place`]: the descriptor now at `number`, owned.
///
/// # Errors
/// EBADF when nothing is open there.
pub fn placed(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number's flag is changed in a child in which only `place` has opened it; EBADF if it has not.
    check(unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: `place` has just put this descriptor there in a child that has closed all others, so that nothing
    // else in this process owns the number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// In a child: puts `fd` where something else is that [`place`] has put there, in its stead.
///
/// # Errors
/// EBADF when nothing is open there.
pub fn put(fd: OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    let mut there = placed(number)?;
    fault::point("dup2")?;
    rustix::io::dup3(&fd, &mut there, rustix::io::DupFlags::CLOEXEC)?;
    Ok(there)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    fault::point("close_range")?;
    // SAFETY: called in a child to close what belongs to the parent's side of the fork; owners of these numbers
    // exist only in memory that the child never runs the destructors of (it leaves by exec or `_exit`).
    let done = unsafe { libc::close_range(first as libc::c_uint, last as libc::c_uint, 0) };
    check(done).map(drop)
}

/// Waits until one of `fds` can be read, or `patience` is over; marks which in `ready`.
///
/// An interrupted wait is nobody ready. `ready` is cleared first and has one entry for each of `fds` afterwards.
///
/// # Errors
/// ENOMEM, EINVAL: what poll(2) says.
pub fn wait_readable(
    fds: &[BorrowedFd<'_>],
    patience: Option<Duration>,
    ready: &mut Vec<bool>,
) -> io::Result<()> {
    ready.clear();
    ready.resize(fds.len(), false);
    let mut polls: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let patience =
        patience.map(|p| Timespec { tv_sec: p.as_secs() as i64, tv_nsec: p.subsec_nanos().into() });
    match fault::point("poll").and_then(|()| Ok(rustix::event::poll(&mut polls, patience.as_ref())?)) {
        Ok(_) => {}
        Err(why) if why.kind() == io::ErrorKind::Interrupted => return Ok(()),
        Err(why) => return Err(why),
    }
    for (ready, poll) in ready.iter_mut().zip(&polls) {
        *ready = !poll.revents().is_empty();
    }
    Ok(())
}

/// Reads what there is; 0 is the end.
///
/// # Errors
/// EAGAIN when there is nothing: read(2).
pub fn read(fd: impl AsFd, bytes: &mut [u8]) -> io::Result<usize> {
    fault::point("read")?;
    Ok(rustix::io::read(fd, bytes)?)
}

/// Writes what there is room for.
///
/// # Errors
/// EAGAIN when there is none, EPIPE when nobody reads: write(2).
pub fn write(fd: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    fault::point("write")?;
    Ok(rustix::io::write(fd, bytes)?)
}

/// Waits until `fd` can be written to.
///
/// # Errors
/// EINTR, ENOMEM: poll(2).
pub fn wait_writable(fd: BorrowedFd<'_>) -> io::Result<()> {
    fault::point("poll")?;
    rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None)?;
    Ok(())
}

/// Another descriptor for the same open file, close-on-exec and above all that [`place`] writes to: a worker of ours has six.
///
/// The lowest there is: a child that shares the master's table takes a copy of it as far as the highest that it needs, and
/// this is for what it needs.
///
/// # Errors
/// EMFILE when there is no room.
pub fn duplicate_low(fd: impl AsFd) -> io::Result<OwnedFd> {
    fault::point("dup")?;
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 8)?)
}

/// Another descriptor for the same open file, close-on-exec and above all that [`place`] writes to.
///
/// # Errors
/// EMFILE when there is no room.
pub fn duplicate_high(fd: impl AsFd) -> io::Result<OwnedFd> {
    fault::point("dup")?;
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 16)?)
}
