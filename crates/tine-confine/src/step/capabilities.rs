//! Capabilities: none is left. capabilities(7).

use std::io;

use crate::wear::Wear;

pub(crate) fn enter(wear: &Wear) -> io::Result<()> {
    if wear.privileges { tine_os::privilege::drop_all() } else { Ok(()) }
}
