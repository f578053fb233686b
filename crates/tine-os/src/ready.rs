//! Many descriptors watched at a cost that does not grow with their number. epoll(7).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{Timespec, epoll};

use crate::fault;

/// A set of descriptors, each under a number of the caller's. Closing a descriptor that has no duplicate takes it out.
#[derive(Debug)]
pub struct Ready(OwnedFd);

impl Ready {
    /// An empty set.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Ready> {
        fault::point("epoll_create1")?;
        Ok(Ready(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Watches a descriptor for something to read, or its end.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub fn add(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        self.add_for(fd, number, epoll::EventFlags::IN)
    }

    /// Watches a descriptor for room to write, or its end.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub fn add_writable(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        self.add_for(fd, number, epoll::EventFlags::OUT)
    }

    /// Watches a connection for its death: both directions ended, or an error such as a reset. Told once; a client that
    /// only ends its own direction is not told.
    ///
    /// Meant for a connection that a child has and we have not: the set watches the open file and not our descriptor of it,
    /// so it goes on after we have closed that, for as long as the child holds another, and forgets the file with the
    /// last one (epoll(7), questions 2 and 6). So a client that goes is heard of without a descriptor of it in our table. Not
    /// told is what the child does with it alone: closing it, or ending.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC; EPERM for a file that cannot be watched.
    pub fn add_hangup(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        // EPOLLHUP and EPOLLERR are always told (epoll_ctl(2)). By edge, as nobody can take a dead connection out.
        self.add_for(fd, number, epoll::EventFlags::ET)
    }

    /// Watches a connection for its death, as [`Ready::add_hangup`] does, and for each sign of life.
    ///
    /// Such a sign is that the client sends or ends its direction; of a Unix socket, also that the client reads what was
    /// sent to it; of TCP, that there is room again after there was none. What the child itself sends or reads is none.
    /// The first sign comes at once: there is room to write.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC; EPERM for a file that cannot be watched.
    pub fn add_activity(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        self.add_for(fd, number, epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET)
    }

    fn add_for(&self, fd: impl AsFd, number: u64, events: epoll::EventFlags) -> io::Result<()> {
        fault::point("epoll_ctl")?;
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(number), events)?)
    }

    /// Watches an open file for the first thing to read, or its end, and tells of it once; as [`Ready::add_hangup`], for as
    /// long as anybody holds it.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub fn add_first(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        use epoll::EventFlags;
        fault::point("epoll_ctl")?;
        let when = EventFlags::IN | EventFlags::RDHUP | EventFlags::ONESHOT;
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(number), when)?)
    }

    /// Stops watching a descriptor.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        fault::point("epoll_ctl")?;
        Ok(epoll::delete(&self.0, fd)?)
    }

    /// Appends the numbers of those that are ready now, at most a few dozen a call; never waits.
    ///
    /// # Errors
    /// What epoll_wait(2) says; an interruption is no error.
    pub fn collect(&self, numbers: &mut Vec<u64>) -> io::Result<()> {
        self.wait(Some(Duration::ZERO), numbers)
    }

    /// Waits until some are ready or the time is over; appends their numbers. An interruption is nobody.
    ///
    /// # Errors
    /// What epoll_wait(2) says.
    pub fn wait(&self, patience: Option<Duration>, numbers: &mut Vec<u64>) -> io::Result<()> {
        let mut events = [const { MaybeUninit::<epoll::Event>::uninit() }; 64];
        let patience =
            patience.map(|p| Timespec { tv_sec: p.as_secs() as i64, tv_nsec: p.subsec_nanos().into() });
        match fault::point("epoll_wait")
            .and_then(|()| Ok(epoll::wait(&self.0, &mut events, patience.as_ref())?))
        {
            Ok((told, _)) => numbers.extend(told.iter().map(|event| event.data.u64())),
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
        Ok(())
    }
}

impl AsFd for Ready {
    /// Readable when [`Ready::collect`] has something to tell, so that a set can be watched by poll(2) or by another set.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
