//! Running other programs: cargo above all, always from the root of the workspace.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// The root of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace's root")
}

/// A cargo command with these arguments: the same cargo that runs this program.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// A command as a person would type it.
pub fn words(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            text.push_str(&format!("{}={:?} ", name.display(), value.display().to_string()));
        }
    }
    let program = Path::new(command.get_program());
    text.push_str(&program.file_name().unwrap_or(program.as_os_str()).to_string_lossy());
    for arg in command.get_args() {
        text.push(' ');
        text.push_str(&arg.to_string_lossy());
    }
    text
}

/// Runs a command to its end, its output going where ours goes.
pub fn status(command: &mut Command) -> Result {
    let status = command.status().map_err(|why| format!("{}: {why}", words(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", words(command))) }
}

/// Runs a command and hands back what it wrote on stdout; stderr goes where ours goes.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|why| format!("{}: {why}", words(command)))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("{}: {}", words(command), output.status))
    }
}

/// Runs a command, shows `each` every line of its stdout and passes the line on to `out`.
pub fn watched(command: &mut Command, out: &mut impl Write, mut each: impl FnMut(&str)) -> Result {
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|why| format!("{}: {why}", words(command)))?;
    let mut lines = BufReader::new(child.stdout.take().expect("stdout was asked to be a pipe"));
    let mut line = Vec::new();
    while lines
        .read_until(b'\n', &mut line)
        .map_err(|why| format!("read what {} says: {why}", words(command)))?
        > 0
    {
        each(&String::from_utf8_lossy(&line));
        out.write_all(&line).and_then(|()| out.flush()).map_err(|why| format!("pass a line on: {why}"))?;
        line.clear();
    }
    let status = child.wait().map_err(|why| format!("{}: {why}", words(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{}: {status}", words(command))) }
}

/// Is there a program of this name on the PATH?
pub fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// Builds with `cargo build` and these arguments; hands back the folder the results are in (`debug` or `release`).
pub fn build(args: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(&["build", "--quiet"]);
    status(command.args(args))?;
    let profile = if args.contains(&"--release") { "release" } else { "debug" };
    Ok(target()?.join(profile))
}

/// Where cargo puts what it builds: asked of cargo, for it may be set in several places.
fn target() -> Result<PathBuf> {
    let json = output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let json = String::from_utf8_lossy(&json);
    string_of(&json, "target_directory")
        .map(PathBuf::from)
        .ok_or("cargo metadata names no target_directory".to_string())
}

/// The value of a key in a piece of JSON whose value is a string without escapes.
pub fn string_of(json: &str, key: &str) -> Option<String> {
    let (_, rest) = json.split_once(&format!("\"{key}\":\""))?;
    let (value, _) = rest.split_once('"')?;
    (!value.contains('\\')).then(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::{cargo, output, string_of, watched, words};
    use std::process::Command;

    #[test]
    fn a_command_reads_as_typed() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(words(&command), "RUSTDOCFLAGS=\"-D warnings\" cargo doc --no-deps");
        assert!(words(&cargo(&["fmt"])).ends_with("cargo fmt"));
    }

    #[test]
    fn a_command_that_fails_is_an_error_that_names_it() {
        let why = output(Command::new("sh").args(["-c", "exit 3"])).expect_err("exit 3 is no success");
        assert!(why.contains("sh -c exit 3") && why.contains('3'), "{why}");
        let why = output(&mut Command::new("/nonexistent/tool")).expect_err("there is no such program");
        assert!(why.contains("tool") && why.contains("No such file"), "{why}");
    }

    #[test]
    fn a_watched_command_shows_each_line_even_the_last_without_newline() {
        let (mut seen, mut out) = (Vec::new(), Vec::new());
        watched(Command::new("printf").arg("one\\ntwo"), &mut out, |line| {
            seen.push(line.trim_end().to_string())
        })
        .expect("printf succeeds");
        assert_eq!(seen, ["one", "two"]);
        assert_eq!(out, b"one\ntwo");
    }

    #[test]
    fn a_key_of_cargos_json_is_found() {
        assert_eq!(
            string_of(r#"{"a":1,"target_directory":"/x/y","b":2}"#, "target_directory").unwrap(),
            "/x/y"
        );
        assert_eq!(string_of(r#"{"a":1}"#, "target_directory"), None);
    }
}
