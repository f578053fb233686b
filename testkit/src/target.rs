//! Where cargo put the programs under test.
//!
//! A test, a bench and a chore all run from somewhere below `target/<profile>`, and what they drive lies
//! beside them. A program that is missing is built, in the same profile and target directory; one that is
//! there is taken as it is, so that a program built with special features stays what it is.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The manifest of the workspace that this crate is a part of.
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");

/// The example `name` of `package`, built if it is missing.
pub fn example(package: &str, name: &str) -> PathBuf {
    let program = profile_dir().join("examples").join(name);
    built(program, &["--package", package, "--example", name])
}

/// The example `name` of `package` with `features`: built in any case, for what lies there may lack them.
pub fn example_with(package: &str, name: &str, features: &str) -> PathBuf {
    let program = profile_dir().join("examples").join(name);
    build(&program, &["--package", package, "--example", name, "--features", features]);
    program
}

/// The program `name` of the workspace, built if it is missing: `tine` (of the crate tine-cli), or one whose
/// crate has its name.
pub fn binary(name: &str) -> PathBuf {
    let package = if name == "tine" { "tine-cli" } else { name };
    built(profile_dir().join(name), &["--package", package, "--bin", name])
}

/// `target/<profile>`, found from the running program: tests lie in `deps` below it, examples in `examples`,
/// programs in it.
pub fn profile_dir() -> PathBuf {
    let program = env::current_exe().expect("the path of this program");
    let dir = program.parent().expect("a program is in a folder");
    let below = dir.ends_with("deps") || dir.ends_with("examples");
    if below { dir.parent().expect("deps is in a folder").to_owned() } else { dir.to_owned() }
}

/// `program`, after building it with `what` if it is not there.
fn built(program: PathBuf, what: &[&str]) -> PathBuf {
    if !program.exists() {
        build(program.parent().expect("a program is in a folder"), what);
    }
    assert!(program.exists(), "cargo build {} made no {}", what.join(" "), program.display());
    program
}

/// Runs `cargo build` with this program's own profile and target directory.
fn build(beside: &Path, what: &[&str]) {
    let dir = profile_dir();
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev", // the one profile whose folder has another name
        Some(name) => name,
    };
    let target = dir.parent().expect("target/<profile> has a parent");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .args(["build", "--quiet", "--manifest-path", MANIFEST, "--profile", profile, "--target-dir"])
        .arg(target)
        .args(what)
        .output()
        .expect("cargo can be run");
    assert!(
        done.status.success(),
        "cargo build {} for {}:\n{}",
        what.join(" "),
        beside.display(),
        String::from_utf8_lossy(&done.stderr)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_folder_holds_this_test() {
        let program = env::current_exe().unwrap();
        assert!(program.starts_with(profile_dir().join("deps")), "{}", program.display());
    }

    #[test]
    fn an_example_that_is_missing_is_built() {
        let program = example("tine-testkit", "golden");
        let output = Command::new(program).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("\nfd.1 "));
    }
}
