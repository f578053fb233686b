//! Chance, from the kernel: nothing that a fork could copy. getrandom(2).

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::fault;

/// A number, each as likely as any other.
///
/// # Errors
/// EAGAIN before the machine has gathered any chance at all.
pub fn number() -> io::Result<u32> {
    fault::point("getrandom")?;
    let mut bytes = [0u8; 4];
    getrandom(&mut bytes, GetRandomFlags::NONBLOCK)?;
    Ok(u32::from_ne_bytes(bytes))
}
