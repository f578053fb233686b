//! `cargo xtask bench`: installs peers, builds everything, and hands over to the benchmark's own program, `bench/src/bin/compare.rs`.
//!
//! What cannot be installed is missing in the table, and said to be; it never keeps the rest from being measured.
//! Packages whose installation would start a service are unpacked into `target/bench/peers` instead.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::args::Args;
use crate::run::{build, cargo, output, root, status};
use crate::test::{apt, packages};

/// Peers, and what bare loops are built with.
const PACKAGES: &[&str] = &[
    "gcc",
    "libc6-dev",
    "ucspi-tcp",
    "ipsvd",
    "socat",
    "ncat",
    "systemd",
    "perl",
    "libnet-server-perl",
    "python3",
];

/// Peers whose packages start them as a service, and exclude each other.
const UNPACKED: &[&str] = &["xinetd", "openbsd-inetd"];

/// What those need only as services.
const SERVICE_ONLY: &[&str] = &["lsb-base", "update-inetd", "tcpd", "netbase", "init-system-helpers"];

/// Bare loops and the programs that servers start: what each is built from and how.
const LOOPS: &[(&str, &[&str])] = &[
    ("target", &["-nostdlib", "-static", "-fno-stack-protector"]),
    ("session", &["-nostdlib", "-static", "-fno-stack-protector"]),
    ("stream", &["-static", "-pthread"]),
    ("datagram", &["-static"]),
];

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let mut passed = Vec::new();
    if args.switch("--quick") {
        passed.push("--quick".to_string());
    }
    for name in ["--only", "--rounds", "--s6-tcpserver", "--nsjail", "--against"] {
        if let Some(value) = args.value_after(name)? {
            passed.extend([name.to_string(), value]);
        }
    }
    args.end()?;

    let built = build(&["--release", "-p", "tine-cli", "-p", "tine-bench"])?;
    let work = built.parent().expect("the folder of a profile lies in target").join("bench");
    fs::create_dir_all(&work).map_err(|why| format!("make {}: {why}", work.display()))?;
    handler(&work)?;
    if let Err(why) = packages(PACKAGES).and_then(|()| unpack(&work)) {
        println!("note   not all peers could be installed: {why}");
    }
    for (name, options) in LOOPS {
        let source = root().join(format!("bench/loops/{name}.c"));
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-Wall", "-Wextra"]).args(*options).arg("-o").arg(work.join(name)).arg(source);
        status(&mut gcc)?;
    }
    status(Command::new(built.join("compare")).args(passed).current_dir(root()))
}

/// Builds the servers made with the library as README.md says, and as the loops in C are built that they are compared with:
/// linked statically.
fn handler(work: &Path) -> Result {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let version = String::from_utf8_lossy(&version);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc names no host")?;
    let folder = work.join("static");
    let mut build = cargo(&["build", "--quiet", "--release", "-p", "tine-bench", "--bin", "handler"]);
    build.args(["--target", host, "--target-dir"]).arg(&folder);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    status(&mut build)?;
    let built = folder.join(host).join("release/handler");
    fs::copy(&built, work.join("handler")).map_err(|why| format!("copy {}: {why}", built.display()))?;
    Ok(())
}

/// Fetches packages and unpacks them; installs the libraries that they need.
fn unpack(work: &Path) -> Result {
    let (debs, peers) = (work.join("debs"), work.join("peers"));
    for folder in [&debs, &peers] {
        fs::create_dir_all(folder).map_err(|why| format!("make {}: {why}", folder.display()))?;
    }
    for package in UNPACKED {
        if found(&debs, package)?.is_none() {
            status(apt(&["download", "--quiet", package]).current_dir(&debs))?;
        }
        let deb = found(&debs, package)?.ok_or(format!("apt-get has downloaded no {package}"))?;
        status(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(&peers))?;
        let depends = output(Command::new("dpkg-deb").arg("-f").arg(&deb).arg("Depends"))?;
        let libraries = libraries(&String::from_utf8_lossy(&depends));
        let known = Command::new("dpkg").arg("-s").args(&libraries).output();
        if !known.is_ok_and(|known| known.status.success()) {
            status(apt(&["install", "--yes", "--quiet", "--no-install-recommends"]).args(&libraries))?;
        }
    }
    Ok(())
}

/// The file of a package that was downloaded.
fn found(debs: &Path, package: &str) -> Result<Option<std::path::PathBuf>> {
    let entries = fs::read_dir(debs).map_err(|why| format!("read {}: {why}", debs.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&format!("{package}_")))
    };
    Ok(paths.filter(is).max())
}

/// The names in a list of dependencies, first choices only, without what only a service needs.
fn libraries(depends: &str) -> Vec<String> {
    let name = |part: &str| part.split_whitespace().next().map(str::to_string);
    let all = depends.split(',').filter_map(name);
    all.filter(|name| !SERVICE_ONLY.contains(&name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::libraries;

    #[test]
    fn what_a_peer_needs_is_read_from_its_package() {
        let depends = "libc6 (>= 2.14), libwrap0 (>= 7.6-4~), netbase, libx | liby, lsb-base (>= 3.0-6)\n";
        assert_eq!(libraries(depends), ["libc6", "libwrap0", "libx"]);
    }
}
