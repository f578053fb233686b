//! The churn in a place of its own: pid, mount and IPC namespaces, temporary folders and a control group that nobody else makes
//! anything in, so that whatever there is more of at the end is the server's. Takes root, and unshare(1).
//!
//! See pid_namespaces(7), mount_namespaces(7), ipc_namespaces(7), cgroups(7).

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tine_testkit::groups;
use tine_testkit::server::{DEADLINE, until_within};

use crate::Result;
use crate::run::{on_path, root, status};

/// What is said to a churn that is there already.
pub const WITHIN: &str = "--within";

/// Folders that are hidden by empty ones, unless something that is needed lies there.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Goes into the group, mounts what is its own, and runs the rest. The shell stays: the first process of a pid namespace is spared the
/// signals of a terminal, and is given all orphans.
const ENTER: &str = "set -e; group=$1; shift; test -z \"$group\" || echo 0 > \"$group/cgroup.procs\"; \
                     while test \"$1\" != --; do mount -t tmpfs tmpfs \"$1\"; shift; done; shift; \"$@\" || exit $?";

/// Whether it can be had here; if not, why.
pub fn possible() -> std::result::Result<(), &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("that takes root");
    }
    if !on_path("unshare") || !on_path("nsenter") {
        return Err("that takes unshare and nsenter, of util-linux");
    }
    Ok(())
}

/// Runs this verb again, with the same arguments, in a place of its own.
pub fn run(args: &[String]) -> Result {
    let own = env::current_exe().map_err(|why| format!("the path of this program: {why}"))?;
    let group = group()?;
    let mut command = Command::new("unshare");
    command.args(["--fork", "--kill-child", "--pid", "--mount-proc", "--mount", "--ipc", "--"]);
    command.args(["sh", "-c", ENTER, "sh"]).arg(group.as_deref().unwrap_or(Path::new("")));
    command.args(hidden(&[root(), &own])).arg("--");
    command.arg(&own).args(["churn", WITHIN]).args(args).env_remove("TMPDIR");
    // It has said why itself.
    let end =
        status(&mut command).map_err(|_| "it failed where it was apart; the lines above say why".to_string());
    let Some(group) = group else { return end };
    if end.is_err() {
        // What was left there has been told; nobody is in it, for all ended with the pid namespace.
        for below in groups::below(&group).iter().rev() {
            let _ = fs::remove_dir(below);
        }
    }
    let gone = removed(&group);
    end.and(gone)
}

/// A new control group of version 2, where there are any.
fn group() -> Result<Option<PathBuf>> {
    let Some(home) = groups::group_of("self") else { return Ok(None) };
    let group = home.join(format!("xtask-churn-{}", std::process::id()));
    fs::create_dir(&group).map_err(|why| format!("make {}: {why}", group.display()))?;
    Ok(Some(group))
}

/// A group that somebody is in, or that has others below it, cannot be removed.
fn removed(group: &Path) -> Result {
    let mut last = None;
    let gone = until_within(DEADLINE, || match fs::remove_dir(group) {
        Ok(()) => Some(()),
        Err(why) => {
            last = Some(why);
            None
        }
    });
    let why = || format!("remove {}: {}", group.display(), last.expect("it was tried"));
    gone.ok_or_else(why)
}

/// Folders that nothing is needed from.
fn hidden(needed: &[&Path]) -> Vec<&'static str> {
    let mut hidden = TEMPORARY.to_vec();
    hidden.retain(|folder| Path::new(folder).is_dir() && !needed.iter().any(|path| path.starts_with(folder)));
    hidden
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::hidden;

    #[test]
    fn a_folder_that_something_is_needed_from_is_not_hidden() {
        assert!(hidden(&[Path::new("/srv/tine")]).contains(&"/tmp"));
        assert!(!hidden(&[Path::new("/srv/tine"), Path::new("/tmp/tine/target")]).contains(&"/tmp"));
    }
}
