//! `cargo xtask vm`: boots Debian's kernel for clouds in an emulator and runs there what takes control groups of version 2 with all
//! controllers, or another kernel than this machine's; writes docs/vm.md.
//!
//! The machine has no disk and no network: the kernel unpacks a root file system (`vm/archive.rs`) with busybox, the programs
//! under test at the paths that they have here, and the libraries that they name. What runs there is in [`SUITES`]. It is emulated
//! (TCG), which works wherever this runs, and takes a minute or two. It is no part of `cargo xtask test`.

mod archive;
mod report;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::archive::Archive;
use self::report::Console;
use crate::Result;
use crate::args::Args;
use crate::run::{build, cargo, on_path, output, root, status, string_of, watched};

/// The test binaries that run there: package, feature, test. Another one is another line here.
const SUITES: &[(&str, &str, &str)] = &[("tine-cli", "vm", "vm")];

/// What they call beside the program itself: each with the Debian package that has it.
const TOOLS: &[(&str, &str)] =
    &[("unshare", "util-linux"), ("setpriv", "util-linux"), ("nsenter", "util-linux")];

/// The package that depends on the newest kernel.
const KERNEL: &str = "linux-image-cloud-amd64";

const QEMU: &str = "qemu-system-x86_64";

/// How long the machine may take, in seconds.
const SECONDS: u64 = 900;

/// What is written.
const PAGE: &str = "docs/vm.md";

/// What the kernel executes first. `@BUSYBOX@` and `@SUITES@` are put in.
const INIT: &str = r#"#!@BUSYBOX@ sh
@BUSYBOX@ --install -s /bin
export PATH=/usr/bin:/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t securityfs security /sys/kernel/security
mount -t cgroup2 cgroup /sys/fs/cgroup
ifconfig lo 127.0.0.1 up
echo "tine-vm: kernel $(uname -r)"
cd /tmp
verdict=ok
run() {
    "$@" --test-threads 1 --show-output || verdict=failed
}
@SUITES@
echo "tine-vm: verdict $verdict"
poweroff -f
"#;

pub fn run(args: &[String]) -> Result {
    let mut args = Args::new(args);
    let seconds = args.number_after("--seconds")?.unwrap_or(SECONDS);
    let given = args.value_after("--kernel")?.map(PathBuf::from);
    args.end()?;
    for (program, package) in [(QEMU, "qemu-system-x86"), ("busybox", "busybox-static")].iter().chain(TOOLS) {
        if !on_path(program) {
            return Err(format!("{program} is missing: apt-get install --no-install-recommends {package}"));
        }
    }
    let target = build(&["--package", "tine-cli", "--bin", "tine"])?;
    let folder = target.parent().unwrap_or(&target).join("vm");
    fs::create_dir_all(&folder).map_err(|why| format!("make {}: {why}", folder.display()))?;
    let kernel = given.map_or_else(|| kernel(&folder), Ok)?;
    let suites = SUITES.iter().map(suite).collect::<Result<Vec<_>>>()?;
    let system = system(&suites, &target.join("tine"), &folder)?;
    let console = boot(&kernel, &system, seconds);
    let emulator = first_line(&output(Command::new(QEMU).arg("--version"))?);
    let date = first_line(&output(Command::new("date").args(["-u", "+%F"]))?);
    let (console, ended) = console?;
    // What was cut off says nothing of what would have come.
    if console.verdict.is_some() {
        let page = root().join(PAGE);
        fs::write(&page, console.page(&date, &emulator)).map_err(|why| format!("write {PAGE}: {why}"))?;
        println!("wrote  {PAGE} checks={} kernel={}", console.checks.len(), console.kernel);
    }
    match (console.is_well(), &console.verdict, ended) {
        (true, ..) => Ok(()),
        (false, Some(_), _) => Err("not all checks are ok: what they said is above".to_owned()),
        (false, None, Err(why)) => {
            Err(format!("the machine came to no verdict in {seconds} seconds (--seconds): {why}"))
        }
        (false, None, Ok(())) => {
            Err("the machine ended without a verdict: its last lines say why".to_owned())
        }
    }
}

/// The newest kernel that apt knows, fetched if it is not there from another time.
fn kernel(folder: &Path) -> Result<PathBuf> {
    let fail =
        |why: String| format!("no kernel to boot: {why}; apt-get update, or --kernel /PATH/TO/vmlinuz");
    let depends = output(Command::new("apt-cache").args(["depends", KERNEL])).map_err(fail)?;
    let depends = String::from_utf8_lossy(&depends);
    let package = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: "))
        .ok_or_else(|| fail(format!("apt-cache depends {KERNEL} names none")))?;
    let image = folder.join("boot").join(package.replacen("linux-image-", "vmlinuz-", 1));
    if !image.exists() {
        println!("fetch  {package}");
        status(Command::new("apt-get").args(["download", package]).current_dir(folder)).map_err(fail)?;
        let fetched = fs::read_dir(folder).map_err(|why| fail(why.to_string()))?.flatten();
        let deb = fetched
            .map(|entry| entry.path())
            .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(package)))
            .ok_or_else(|| fail(format!("apt-get download {package} left nothing")))?;
        status(Command::new("dpkg-deb").arg("-x").args([&deb, folder])).map_err(fail)?;
    }
    if image.exists() { Ok(image) } else { Err(fail(format!("{package} has no {}", image.display()))) }
}

/// Builds a test binary, and says where it is.
fn suite((package, feature, test): &(&str, &str, &str)) -> Result<PathBuf> {
    let args =
        ["test", "--quiet", "--no-run", "--message-format", "json", "-p", package, "--features", feature];
    let told = output(cargo(&args).args(["--test", test]))?;
    let told = String::from_utf8_lossy(&told);
    let wanted =
        |line: &&str| line.contains("\"kind\":[\"test\"]") && string_of(line, "executable").is_some();
    let line = told.lines().find(wanted).ok_or(format!("cargo made no test {test} of {package}"))?;
    Ok(PathBuf::from(string_of(line, "executable").expect("it was looked for")))
}

/// Lays out the root file system; gives where it was written to.
fn system(suites: &[PathBuf], tine: &Path, folder: &Path) -> Result<PathBuf> {
    let mut archive = Archive::default();
    for path in ["/proc", "/sys", "/dev", "/tmp", "/bin", "/etc"] {
        archive.folder(Path::new(path));
    }
    let busybox = find("busybox")?;
    let commands: String = suites.iter().map(|suite| format!("run {}\n", suite.display())).collect();
    let init = INIT.replace("@BUSYBOX@", &busybox.display().to_string()).replace("@SUITES@\n", &commands);
    archive.file(Path::new("/init"), init.as_bytes());
    archive.file(Path::new("/etc/passwd"), b"root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n");
    archive.file(Path::new("/etc/group"), b"root:x:0:\nuser:x:1000:\n");
    let mut libraries = BTreeSet::new();
    for program in suites.iter().map(PathBuf::as_path).chain([tine]) {
        libraries.extend(named_by(program)?);
        // What they say of themselves for debuggers is most of them.
        let bare = folder.join("stripped");
        status(Command::new("strip").arg("-o").args([&bare, program]))?;
        archive.file(program, &read(&bare)?);
    }
    let tools = TOOLS.iter().map(|(name, _)| find(name)).collect::<Result<Vec<_>>>()?;
    for program in tools.iter().chain([&busybox]) {
        libraries.extend(named_by(program)?);
        archive.file(program, &read(program)?);
    }
    for library in libraries {
        archive.file(&library, &read(&library)?);
    }
    let path = folder.join("root.cpio");
    fs::write(&path, archive.finish()).map_err(|why| format!("write {}: {why}", path.display()))?;
    Ok(path)
}

/// Boots, shows what is said, and reads it. Also how the emulator ended.
fn boot(kernel: &Path, system: &Path, seconds: u64) -> Result<(Console, Result)> {
    let mut machine = Command::new("timeout");
    machine.args([
        "--kill-after=5",
        &seconds.to_string(),
        QEMU,
        "-accel",
        "tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "1024",
    ]);
    machine.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    machine.arg("-kernel").arg(kernel).arg("-initrd").arg(system);
    // A kernel that panics ends the machine; one that kills for memory says nothing in between.
    machine.args(["-append", "console=ttyS0 quiet loglevel=1 panic=-1"]).stdin(std::process::Stdio::null());
    println!("boot   {} seconds={seconds}", kernel.display());
    let mut console = Console::default();
    let ended = watched(&mut machine, &mut std::io::stdout(), |line| console.read(line));
    Ok((console, ended))
}

/// Where a program is.
fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or(format!("{name} is not on the PATH"))
}

/// The libraries that a program is linked with, its loader among them: ldd(1). One that is static has none.
fn named_by(program: &Path) -> Result<Vec<PathBuf>> {
    let told = Command::new("ldd").arg(program).output().map_err(|why| format!("ldd: {why}"))?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    Ok(told
        .lines()
        .flat_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|why| format!("read {}: {why}", path.display()))
}

fn first_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_its_libraries_and_the_loader() {
        let own = std::env::current_exe().expect("this is a program");
        let named = named_by(&own).expect("ldd can be run");
        assert!(named.iter().any(|path| path.to_string_lossy().contains("libc.so")), "{named:?}");
        assert!(named.iter().any(|path| path.to_string_lossy().contains("ld-")), "{named:?}");
    }
}
