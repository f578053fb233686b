//! Chance, from the kernel: nothing that a fork could copy. getrandom(2).

use std::io;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::fault;

/// A number, each as likely as any other.
///
/// # Errors
/// EAGAIN before the machine has gathered any chance at all.
pub fn number() -> io::Result<u32> {
    bytes().map(u32::from_ne_bytes)
}

/// As [`number`], of twice as many bits.
///
/// # Errors
/// As there.
pub fn word() -> io::Result<u64> {
    bytes().map(u64::from_ne_bytes)
}

fn bytes<const LENGTH: usize>() -> io::Result<[u8; LENGTH]> {
    fault::point("getrandom")?;
    let mut bytes = [0u8; LENGTH];
    // So few come whole or not at all.
    getrandom(&mut bytes, GetRandomFlags::NONBLOCK)?;
    Ok(bytes)
}
