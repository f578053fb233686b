//! Groups, group and user. setgroups(2), setresgid(2), setresuid(2).

use std::io;

use crate::Identity;

pub(crate) fn enter(who: Option<&Identity>) -> io::Result<()> {
    who.map_or(Ok(()), tine_os::identity::assume)
}
