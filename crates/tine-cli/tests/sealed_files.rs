//! The tree of files that sealed programs see: what is in it, and that it is built in it and not on the machine.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Folder, fed, left_out_without_root};
use tine_testkit::server::{listeners_among, tine_command};
use tine_testkit::{Server, ask};

#[test]
fn a_place_beneath_a_link_is_made_in_the_tree_and_not_on_the_machine() {
    if left_out_without_root("to make something in /run, where it went wrong") {
        return;
    }
    let folder = Folder::new();
    fs::write(folder.file("file"), "seen\n").unwrap();
    // /var/run is a link to /run there, and on the machine.
    let name = format!("tine-test-{}", std::process::id());
    let bind = format!("{}:/var/run/{name}", folder.text(""));
    let file = format!("/run/{name}/file");
    let args = ["127.0.0.1:0", "--confine", "sealed", "--bind", &bind, "--", "cat", &file];
    let server = Server::tine(&args);
    assert_eq!(ask(server.addr(0), b"").unwrap(), b"seen\n");
    assert!(server.stop().success());
    assert!(!Path::new("/run").join(name).exists());
}

#[test]
fn what_is_named_beneath_var_tmp_is_refused_as_it_is_beneath_tmp() {
    if left_out_without_root("sealed, which takes user namespaces otherwise") {
        return;
    }
    let folder = Folder::below(Path::new("/var/tmp"));
    let path = folder.text("");
    let output =
        fed(&mut tine_command(&["127.0.0.1:0", "--confine", "sealed", "--read", &path, "--", "true"]), b"");
    let said = String::from_utf8_lossy(&output.stderr);
    let expected =
        format!("tine: --read: {path}: it is in a directory that each client has one of its own of");
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(output.status.code(), Some(100));
    // Its name is of this process, so that nobody else has made one there.
    assert!(!Path::new("/tmp").join(folder.path().file_name().unwrap()).exists());
}

#[test]
fn everybody_may_read_it_whatever_the_umask_of_its_server() {
    if left_out_without_root("users of each child's own") {
        return;
    }
    let look = "cmp /etc/passwd - && ls /etc/ssl /etc/alternatives /srv >/dev/null && echo all";
    let args = ["127.0.0.1:0", "--confine", "sealed", "--", "sh", "-c", look];
    let tine = tine_command(&args);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(tine.get_program()).args(tine.get_args());
    let server = Server::attempt(command, listeners_among(&args)).unwrap();
    assert_eq!(ask(server.addr(0), &fs::read("/etc/passwd").unwrap()).unwrap(), b"all\n", "{}", server.log());
    assert!(server.stop().success());
}

#[test]
fn the_program_of_a_rule_is_there_and_can_be_executed() {
    if left_out_without_root("sealed, which takes user namespaces otherwise") {
        return;
    }
    let folder = Folder::outside_tmp();
    let program = folder.program("other", "#!/bin/sh\necho other\n");
    let rules = folder.text("rules");
    fs::write(&rules, format!("allow 127.0.0.1 exec={program}\nallow 127.0.0.2 exec={program}\n")).unwrap();
    // Kept to its program, and with a tree of its own; beneath nothing that is read anyway.
    for confined in [&["--confine", "guarded", "--exec", "/bin/true"][..], &["--confine", "sealed"]] {
        let options = [&["127.0.0.1:0", "--rules", &rules], confined].concat();
        let server = Server::tine(&[&options[..], &["--", "/bin/false"]].concat());
        assert_eq!(ask(server.addr(0), b"").unwrap(), b"other\n", "{confined:?}");
        assert!(server.stop().success());
        let told = tine_command(&[]);
        let mut explain = Command::new(told.get_program());
        let told = fed(explain.arg("explain").args(&options).args(["--", "/bin/false"]), b"");
        let told = String::from_utf8_lossy(&told.stdout);
        assert!(told.contains(&format!("- {program}: by way of /bin/sh")), "{told}");
    }
}

#[test]
fn a_program_that_is_covered_is_named_and_not_a_flag() {
    if left_out_without_root("sealed, which takes user namespaces otherwise") {
        return;
    }
    let folder = Folder::below(Path::new("/var/tmp"));
    let program = folder.program("program", "#!/bin/sh\n");
    let rules = folder.text("rules");
    fs::write(&rules, format!("allow all exec={program}\n")).unwrap();
    let sealed = ["127.0.0.1:0", "--confine", "sealed"];
    let expected = format!("tine: {program}: it is in a directory that each client has one of its own of");
    for rest in [&["--", &program][..], &["--rules", &rules, "--", "true"]] {
        for verb in ["serve", "explain"] {
            let mut command = Command::new(tine_command(&[]).get_program());
            let output = fed(command.arg(verb).args(sealed).args(rest), b"");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.starts_with(&expected), "{verb} {rest:?}: {said}");
            assert_eq!(output.status.code(), Some(100));
        }
    }
}
