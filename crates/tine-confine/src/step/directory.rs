//! The working directory. chdir(2).

use std::io;
use std::path::Path;

pub(crate) fn enter(directory: Option<&Path>) -> io::Result<()> {
    directory.map_or(Ok(()), std::env::set_current_dir)
}
