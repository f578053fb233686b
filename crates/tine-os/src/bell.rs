//! Waking another process that shares a descriptor with us. eventfd(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;

use crate::fault;

/// A bell: whoever has it may ring it, and the one whose it is sees it as something to read. However often it is rung, it
/// is heard once.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A silent bell.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Bell> {
        fault::point("eventfd2")?;
        Ok(Bell(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Rings it. Never waits.
    ///
    /// # Errors
    /// What write(2) says; that it has been rung too often to be counted is none.
    pub fn ring(&self) -> io::Result<()> {
        fault::point("write")?;
        match rustix::io::write(&self.0, &1_u64.to_ne_bytes()) {
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
            Err(why) => Err(why.into()),
        }
    }

    /// Silences it; tells whether it was rung.
    ///
    /// # Errors
    /// What read(2) says; that it is silent is none.
    pub fn silence(&self) -> io::Result<bool> {
        fault::point("read")?;
        match rustix::io::read(&self.0, &mut [0_u8; 8]) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(why) => Err(why.into()),
        }
    }
}

impl AsFd for Bell {
    /// Readable while it rings.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_is_heard_once_however_often_it_was_rung() {
        let bell = Bell::new().unwrap();
        assert!(!bell.silence().unwrap());
        (0..3).for_each(|_| bell.ring().unwrap());
        assert!(bell.silence().unwrap());
        assert!(!bell.silence().unwrap());
    }
}
