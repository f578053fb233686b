//! Where it was measured, and with which versions of what: for whoever doubts the figures or repeats them.

use std::fs;
use std::process::Command;

use crate::servers::Place;

/// Names and values, in the order in which they are shown.
pub fn machine() -> Vec<(String, String)> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processors = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.lines().next().unwrap_or_default().trim_start_matches("MemTotal:").trim().to_string();
    let virtualised =
        said("systemd-detect-virt", &["--vm"]).filter(|word| word != "none").unwrap_or_else(|| {
            let hypervisor = value(&cpuinfo, "flags").is_some_and(|flags| flags.contains(" hypervisor"));
            if hypervisor { "yes, of an unknown kind" } else { "none seen" }.to_string()
        });
    let setting = |path: &str| fs::read_to_string(path).map_or("?".into(), |text| text.trim().to_string());
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system =
        system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("?").trim_matches('"');
    let rows = [
        ("processor", value(&cpuinfo, "model name").unwrap_or("?").to_string()),
        ("processors", processors.to_string()),
        ("memory", memory),
        ("kernel", setting("/proc/sys/kernel/osrelease") + ", " + &setting("/proc/sys/kernel/version")),
        ("system", system.to_string()),
        ("virtual machine", virtualised),
        ("container", said("systemd-detect-virt", &["--container"]).unwrap_or("?".into())),
        ("clock source", setting("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        ("net.core.somaxconn", setting("/proc/sys/net/core/somaxconn")),
        ("load before", setting("/proc/loadavg")),
    ];
    rows.map(|(name, value)| (name.to_string(), value)).to_vec()
}

/// Debian's packages that peers and tools come from.
const PACKAGES: &[&str] = &[
    "ucspi-tcp",
    "ipsvd",
    "socat",
    "ncat",
    "systemd",
    "perl",
    "libnet-server-perl",
    "python3",
    "gcc",
    "libc6",
];

/// Packages that are unpacked and not installed, whose version their file's name tells.
const UNPACKED: &[&str] = &["xinetd", "openbsd-inetd"];

/// Names and versions.
pub fn versions(place: &Place) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        rows.push((name.to_string(), value.unwrap_or("not there".into())));
    };
    let tine = place.built.join("tine");
    let commit = said("git", &["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"]);
    add(
        "tine",
        said(&tine.to_string_lossy(), &["--version"]).map(|version| match commit {
            Some(commit) => format!("{} at {commit}", version.trim_start_matches("tine ")),
            None => version,
        }),
    );
    add("rustc", said("rustc", &["--version"]));
    for package in PACKAGES {
        add(
            package,
            said("dpkg-query", &["-W", "-f", "${Version}", package]).filter(|version| !version.is_empty()),
        );
    }
    for package in UNPACKED {
        add(package, unpacked(place, package));
    }
    // They are of no package, so what they say of themselves is all there is.
    for (name, path) in [("s6-tcpserver", &place.s6), ("nsjail", &place.nsjail)] {
        add(name, path.as_ref().map(|_| "from the path given".to_string()));
    }
    rows
}

fn unpacked(place: &Place, package: &str) -> Option<String> {
    let names = fs::read_dir(place.work.join("debs"))
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut versions: Vec<String> = names
        .filter_map(|name| {
            Some(name.strip_prefix(package)?.strip_prefix('_')?.split('_').next()?.replace("%3a", ":"))
        })
        .collect();
    versions.sort();
    versions.pop()
}

fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_string();
    (!text.is_empty()).then_some(text)
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?
        .split_once(':')
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_key() {
        let text = "processor\t: 0\nmodel name\t: A processor: fast\n";
        assert_eq!(value(text, "model name"), Some("A processor: fast"));
        assert_eq!(value(text, "model"), None);
    }

    #[test]
    fn a_machine_has_a_kernel() {
        assert!(machine().iter().any(|(name, value)| name == "kernel" && value.contains('.')));
    }
}
