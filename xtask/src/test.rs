//! `cargo xtask test`: the one command that runs the whole suite, on a clean Debian with Rust and gcc too.
//!
//! A list of steps; each prints its name and its time, the first that fails ends the run. What cargo's tests print is
//! passed on and counted, and the count is the very last line.

use std::process::Command;
use std::time::Instant;

use crate::args::Args;
use crate::run::{cargo, on_path, root, status, watched, words};
use crate::{Result, deny, tidy};

/// The Debian packages whose programs the tests use as servers, clients and witnesses.
const PACKAGES: &[&str] = &[
    "git",
    "rsync",
    "curl",
    "busybox",
    "ucspi-tcp",
    "netcat-openbsd",
    "perl",
    "python3",
    "strace",
    "mandoc",
    "procps",
    "iproute2",
    "haproxy",
    "faketime",
];

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let install = !args.switch("--no-install");
    args.end()?;

    let mut suite = Suite { began: Instant::now(), steps: 0, tests: Tests::default() };
    let verdict = steps(&mut suite, install);
    suite.close(&verdict);
    verdict
}

fn steps(suite: &mut Suite, install: bool) -> Result {
    if install {
        suite.step("packages", || packages(PACKAGES))?;
        suite.step("tools", tools)?;
    }
    suite.cargo("format", &["fmt", "--all", "--check"])?;
    suite.cargo(
        "clippy",
        &["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"],
    )?;
    suite.step("documents", documents)?;
    suite.cargo("release", &["build", "--release", "-p", "tine-cli"])?;
    suite.tests("tests", &["--workspace"])?;
    for (package, target) in fault_tests()? {
        suite.tests("faults", &["-p", &package, "--features", "fault", "--test", &target])?;
    }
    suite.step("tidy", || tidy::run(&[]))?;
    if install {
        suite.step("deny", deny::install)?;
    }
    suite.step("deny", || status(&mut deny::command(false)))
}

/// A run of steps, and what the tests among them came to.
struct Suite {
    began: Instant,
    steps: u32,
    tests: Tests,
}

impl Suite {
    fn step(&mut self, name: &str, act: impl FnOnce() -> Result) -> Result {
        println!("step   {name}");
        let began = Instant::now();
        let verdict = act();
        let word = if verdict.is_ok() { "ok" } else { "fail" };
        println!("{word:<6} {name} seconds={:.1}", began.elapsed().as_secs_f64());
        self.steps += 1;
        verdict
    }

    fn cargo(&mut self, name: &str, args: &[&str]) -> Result {
        self.step(name, || status(said(&mut cargo(args))))
    }

    fn tests(&mut self, name: &str, args: &[&str]) -> Result {
        let mut tests = Tests::default();
        let verdict = self.step(name, || {
            let mut command = cargo(&["test", "--no-fail-fast"]);
            watched(said(command.args(args)), &mut std::io::stdout(), |line| tests.count(line))
        });
        if verdict.is_err() {
            tests.failed = tests.failed.max(1); // one that died tells no result
        }
        self.tests.passed += tests.passed;
        self.tests.failed += tests.failed;
        self.tests.ignored += tests.ignored;
        verdict
    }

    /// The summary, and then the count of tests alone on the last line. A run that failed elsewhere counts no tests:
    /// a line that says "0 failed" must not be its last.
    fn close(&self, verdict: &Result) {
        let word = if verdict.is_ok() { "ok" } else { "fail" };
        let seconds = self.began.elapsed().as_secs_f64();
        println!("{word:<6} all steps={} seconds={seconds:.1} ignored={}", self.steps, self.tests.ignored);
        if verdict.is_ok() || self.tests.failed > 0 {
            println!("{} passed, {} failed", self.tests.passed, self.tests.failed);
        }
    }
}

fn said(command: &mut Command) -> &mut Command {
    println!("run    {}", words(command));
    command
}

/// Sums of the `test result:` lines of libtest.
#[derive(Debug, Default, PartialEq)]
struct Tests {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tests {
    fn count(&mut self, line: &str) {
        let Some(result) = line.trim_start().strip_prefix("test result: ") else { return };
        let Some((_, counts)) = result.split_once(". ") else { return };
        for part in counts.split("; ") {
            let mut words = part.split_whitespace();
            let (Some(Ok(number)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// Installs those of these Debian packages that are missing, if it can; tells how to otherwise.
pub fn packages(wanted: &[&'static str]) -> Result {
    let missing = missing(wanted)?;
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if !is_root()? {
        return Err(format!("packages that are needed are missing; as root, run: {by_hand}"));
    }
    status(said(apt(&["update"]).args(["--quiet"])))?;
    status(said(apt(&["install", "--yes", "--quiet", "--no-install-recommends"]).args(&missing)))
}

pub fn apt(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn missing(wanted: &[&'static str]) -> Result<Vec<&'static str>> {
    if !on_path("dpkg-query") {
        return Err(format!(
            "no Debian here: install what these packages hold by other means, then pass --no-install: {}",
            wanted.join(" ")
        ));
    }
    // dpkg-query fails when it does not know a package at all, and still lists the others.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${db:Status-Status}\\n"])
        .args(wanted)
        .output()
        .map_err(|why| format!("dpkg-query: {why}"))?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(wanted.iter().copied().filter(|name| !is_installed(&listed, name)).collect())
}

fn is_installed(listed: &str, name: &str) -> bool {
    listed.lines().any(|line| line.split_once(' ') == Some((name, "installed")))
}

fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata("/proc/self").map_err(|why| format!("/proc/self: {why}"))?;
    Ok(own.uid() == 0)
}

/// rustfmt and clippy are parts of their own of a minimal Rust.
fn tools() -> Result {
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(verb, _)| !cargo(&[verb, "--version"]).output().is_ok_and(|output| output.status.success()))
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !on_path("rustup") {
        return Err(format!("cargo lacks {} and there is no rustup to fetch them", missing.join(" and ")));
    }
    status(said(Command::new("rustup").args(["component", "add"]).args(missing)))
}

/// All of rustdoc with warnings denied. The program and the library are both called `tine` and rustdoc would write both
/// to one folder, so the program goes first and the library, which people read, last.
fn documents() -> Result {
    let flags = |command: &mut Command| {
        command.env("RUSTDOCFLAGS", "-D warnings");
        status(said(command))
    };
    let all = ["doc", "--no-deps", "--document-private-items"];
    flags(cargo(&all).args(["-p", "tine-cli", "--bins"]))?;
    flags(cargo(&all).args(["--workspace", "--exclude", "tine-cli"]))
}

/// Each test file named `fault*`, with its package: they need the feature `fault`, without which they are not built.
fn fault_tests() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let crates = root().join("crates");
    for entry in crates.read_dir().map_err(|why| format!("read {}: {why}", crates.display()))? {
        let folder = entry.map_err(|why| format!("read {}: {why}", crates.display()))?.path();
        let Ok(tests) = folder.join("tests").read_dir() else { continue };
        for test in tests.flatten() {
            let name = test.file_name().to_string_lossy().into_owned();
            let package = folder.file_name().expect("an entry has a name").to_string_lossy();
            if let Some(target) = name.strip_suffix(".rs").filter(|target| target.starts_with("fault")) {
                found.push((package.into_owned(), target.to_string()));
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{Suite, Tests, is_installed};
    use std::time::Instant;

    #[test]
    fn results_of_all_test_programs_are_summed() {
        let mut tests = Tests::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 9.00s",
            "a test that prints test result: ok. 900 passed",
        ] {
            tests.count(line);
        }
        assert_eq!(tests, Tests { passed: 4, failed: 2, ignored: 1 });
    }

    #[test]
    fn a_package_half_removed_is_missing() {
        let listed = "git installed\nperl config-files\nnetcat-openbsd installed\n";
        assert!(is_installed(listed, "git"));
        assert!(!is_installed(listed, "perl"));
        assert!(!is_installed(listed, "netcat"));
    }

    #[test]
    fn a_step_hands_its_failure_on() {
        let mut suite = Suite { began: Instant::now(), steps: 0, tests: Tests::default() };
        assert_eq!(suite.step("good", || Ok(())), Ok(()));
        assert_eq!(suite.step("bad", || Err("no".to_string())), Err("no".to_string()));
        assert_eq!(suite.steps, 2);
    }
}
