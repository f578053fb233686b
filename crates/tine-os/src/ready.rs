//! Many descriptors watched at a cost that does not grow with their number. epoll(7).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
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
        fault::point("epoll_ctl")?;
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?)
    }

    /// Watches a descriptor for room to write, or its end.
    ///
    /// # Errors
    /// ENOMEM, ENOSPC.
    pub fn add_writable(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        fault::point("epoll_ctl")?;
        Ok(epoll::add(&self.0, fd, epoll::EventData::new_u64(number), epoll::EventFlags::OUT)?)
    }

    /// Stops watching a descriptor.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        fault::point("epoll_ctl")?;
        Ok(epoll::delete(&self.0, fd)?)
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
