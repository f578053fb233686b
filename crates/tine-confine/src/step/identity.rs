//! Groups, group and user. setgroups(2), setresgid(2), setresuid(2).

use std::io;

use crate::Identity;

pub(crate) fn enter(who: Option<&Identity>) -> io::Result<()> {
    who.map_or(Ok(()), tine_os::identity::assume)
}

/// A user, and a group of the same number, that no other child has.
pub(crate) fn become_own(first: u32, slot: u32) -> io::Result<()> {
    let own = first.checked_add(slot).ok_or(io::ErrorKind::InvalidInput)?;
    tine_os::identity::assume_alone(own)
}
