//! The working directory. chdir(2).

use std::ffi::CStr;
use std::io;

pub(crate) fn enter(directory: Option<&CStr>) -> io::Result<()> {
    directory.map_or(Ok(()), tine_os::fork::enter_directory)
}
