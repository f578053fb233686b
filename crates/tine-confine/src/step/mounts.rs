//! File systems of the child's own: `/tmp` and its like in memory, and `/proc` with nobody else in it. mount(2), tmpfs(5), proc(5).

use std::io;

use tine_os::mount;

use crate::wear::Wear;

/// No other process is shown, and nothing of the machine but processes.
const OPTIONS: &std::ffi::CStr = c"subset=pid,hidepid=invisible";

pub(crate) fn enter(wear: &Wear) -> io::Result<()> {
    for (at, options) in &wear.memories {
        mount::mount_memory(at, options)?;
    }
    if wear.processes { mount::mount_processes(c"/proc", OPTIONS) } else { Ok(()) }
}
