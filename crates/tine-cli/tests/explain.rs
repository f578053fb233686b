//! `tine explain` and `tine doctor`, as they are run: by whom, with which code, and what machines read. What they say is tested beside
//! them, where it does not depend on the machine.

mod support;

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use serde_json::Value;

use support::{Folder, command, is_root, left_out_without_root};

/// A user without any privilege.
const NOBODY: u32 = 65_534;

/// What is said on both outputs, and the code.
fn said(command: &mut Command) -> (String, String, Option<i32>) {
    let output = command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .expect("tine can be run");
    let text = |bytes| String::from_utf8(bytes).expect("it is text");
    (text(output.stdout), text(output.stderr), output.status.code())
}

fn tine(args: &[&str]) -> (String, String, Option<i32>) {
    said(command(env!("CARGO_BIN_EXE_tine")).args(args))
}

fn mistake(args: &[&str]) -> String {
    let (out, told, code) = tine(args);
    assert_eq!(out, "", "a mistake is told on standard error");
    format!("{told}-> {code:?}")
}

fn json(args: &[&str]) -> (Value, Option<i32>) {
    let (out, _, code) = tine(args);
    (serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {out}")), code)
}

#[test]
fn what_is_no_address_is_told_with_the_form() {
    assert_snapshot!(mistake(&["explain", "rsync", "--daemon"]), @r#"
    error: unexpected argument '--daemon' found

      tip: a similar argument exists: '--drain'
      tip: to pass '--daemon' as a value, use '-- --daemon'

    Usage: tine explain [ADDR...] [OPTIONS] [-- PROGRAM [ARG...]]

    For more information, try '--help'.
    The program that is to be served, and its own options, follow '--'.
    -> Some(100)
    "#);
    assert_snapshot!(mistake(&["explain", "rsync"]), @r#"
    tine: explain: address 'rsync': there is no port; the forms are tcp://HOST:PORT, HOST:PORT, :PORT, unix:/PATH, unix:@NAME, seqpacket:/PATH, udp://HOST:PORT, unixgram:/PATH, vsock:CID:PORT, fd:N or systemd:NAME; the program and its arguments follow '--', and an address may be left out: tine explain [OPTIONS] -- PROGRAM
    -> Some(100)
    "#);
}

#[test]
fn mistakes_are_told_in_the_words_that_serve_has() {
    assert_snapshot!(mistake(&["explain", "--confine", "seled"]), @r#"
    tine: --confine seled: no profile is called 'seled'; there are none, guarded and sealed, and a file of your own by its path, as in ./seled.toml
    -> Some(100)
    "#);
    assert_snapshot!(mistake(&["explain", "--syscall", "mout", "--", "cat"]), @r#"
    tine: --syscall mout: no call is called 'mout' that a profile refuses
    -> Some(100)
    "#);
    assert_snapshot!(mistake(&["explain", "--write", "/nonexistent", "--", "cat"]), @r#"
    tine: --write: /nonexistent: No such file or directory
    -> Some(100)
    "#);
    assert_snapshot!(mistake(&["explain", "--", "no-such-program"]), @r#"
    tine: program no-such-program: not found in PATH (/usr/bin:/bin)
    -> Some(100)
    "#);
    assert_snapshot!(mistake(&["doctor", "guarded"]), @r#"
    error: unexpected argument 'guarded' found

    Usage: tine doctor [OPTIONS]

    For more information, try '--help'.
    -> Some(100)
    "#);
}

#[test]
fn an_address_and_a_program_may_be_left_out() {
    for args in [
        &["explain"][..],
        &["explain", "127.0.0.1:0"],
        &["explain", ":7000", "--confine", "none", "--", "cat"],
    ] {
        let (out, told, code) = tine(args);
        assert_eq!((told.as_str(), code), ("", Some(0)), "{args:?}");
        assert!(out.starts_with("Profile "), "{out}");
    }
}

#[test]
fn the_steps_of_a_child_are_those_of_the_contract_in_their_order() {
    let args = [
        "explain",
        "--json",
        "--confine",
        "none",
        "--umask",
        "027",
        "--rlimit",
        "nofile=64",
        "--pids",
        "9",
        "--",
        "cat",
    ];
    let (told, code) = json(&args);
    assert_eq!(code, Some(0));
    let steps: Vec<_> =
        told["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    let contract =
        ["tree", "session", "descriptors", "limits", "identity", "directory", "umask", "signals", "exec"];
    assert_eq!(steps, contract);
    let step = |name: &str| &told["steps"][contract.iter().position(|other| *other == name).unwrap()];
    assert_eq!(step("umask")["what"], "027");
    assert_eq!(step("tree")["items"][0]["names"][0], "pids.max");
    assert_eq!(step("tree")["items"][0]["what"], "9");
    assert_eq!(step("descriptors")["items"][0]["what"], "the client");
    let limits = step("limits")["items"].as_array().unwrap();
    let nofile = limits.iter().find(|item| item["names"][0] == "nofile").unwrap();
    assert_eq!((&nofile["what"], &nofile["reason"]), (&"64".into(), &"asked for".into()));
    assert_eq!(step("exec")["items"][0]["names"][0], "/usr/bin/cat");
}

#[test]
fn an_ordinary_user_is_told_what_another_one_would_have() {
    let folder = Folder::new();
    let mut tine = command(folder.copy(env!("CARGO_BIN_EXE_tine"), "tine"));
    if is_root() {
        tine.uid(NOBODY).gid(NOBODY);
    }
    let (out, told, code) = said(tine.args([
        "explain",
        "--confine",
        "sealed",
        "--confine-missing",
        "warn",
        "--user",
        "0:0",
        "--",
        "cat",
    ]));
    assert_eq!((told.as_str(), code), ("", Some(0)));
    assert!(out.contains("identity: user 0, group 0"), "{out}");
    assert!(out.contains("needs root: start tine as root"), "{out}");
}

#[test]
fn the_doctor_ends_with_0_when_guarded_works_and_with_111_when_not() {
    let (told, code) = json(&["doctor", "--json"]);
    let guarded = &told["profiles"][1];
    assert_eq!(guarded["profile"], "guarded");
    assert_eq!(guarded["works"], told["works"]);
    assert_eq!(code, Some(if told["works"] == true { 0 } else { 111 }));
    assert_eq!(told["findings"].as_array().unwrap().len(), 12);
}

/// As a container has it: something lies over a part of /proc.
#[test]
fn where_proc_is_covered_the_doctor_names_it_and_sealed_without_mounts_works() {
    if left_out_without_root("a covered /proc") {
        return;
    }
    let within = |rest: &str| {
        let script = format!("mount -t tmpfs none /proc/sys && exec {} {rest}", env!("CARGO_BIN_EXE_tine"));
        said(Command::new("unshare").args(["--mount", "sh", "-c", &script]))
    };
    if within("--version").2 != Some(0) {
        eprintln!("left out: nothing can be mounted over /proc/sys here");
        return;
    }
    let (out, told, code) = within("doctor");
    assert_eq!((told.as_str(), code), ("", Some(0)), "guarded needs no /proc");
    assert!(out.contains("systempaths=unconfined"), "{out}");
    let (_, told, code) = within("serve 127.0.0.1:0 --confine sealed -- cat");
    assert_eq!(code, Some(111), "{told}");
    assert!(told.contains("a /proc of each child's own cannot be mounted"), "{told}");
    let (out, _, code) = within("explain --confine sealed --own pid -- cat");
    assert!(code == Some(0) && out.contains("This system enforces all of it."), "{out}");
}
