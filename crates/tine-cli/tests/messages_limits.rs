//! What an operator reads after a mistake about limits, penalties, rules, balancers and ends: each message whole, with the
//! code that tine ends with. As `messages.rs`, whose form it has.

mod support;

use std::fs;
use std::process::Stdio;

use insta::assert_snapshot;

use support::{Folder, command};

/// Some rules, the last of which is wrong.
const RULES: &str = "# these may\nallow 10.0.0.0/8\n\nallow 10.1.0.0/16 childs=3\n";

/// Serves with these options in a folder that has the file `rules`; gives all that tine says, and its code.
fn said(options: &[&str]) -> String {
    let folder = Folder::new();
    fs::write(folder.file("rules"), RULES).expect("it is a folder of ours");
    let mut tine = command(env!("CARGO_BIN_EXE_tine"));
    tine.args(["serve", "127.0.0.1:0"]).args(options).args(["--", "cat"]);
    let tine = tine.env_clear().env("PATH", "/usr/bin:/bin").current_dir(folder.path()).stdin(Stdio::null());
    let output = tine.output().expect("tine can be run");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "a mistake is told on standard error");
    let said = String::from_utf8(output.stderr).expect("messages are text");
    format!("{said}-> {:?}", output.status.code().expect("tine is not killed by a mistake"))
}

#[test]
fn no_children() {
    assert_snapshot!(said(&["-c", "0"]), @r"
    error: invalid value '0' for '--children <N>': without a child nobody can be served; the least is 1

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn more_children_than_there_can_be_processes() {
    assert_snapshot!(said(&["-c", "5000000"]), @r"
    error: invalid value '5000000' for '--children <N>': it is a number from 1 to 4194304

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn no_client_of_a_source() {
    assert_snapshot!(said(&["-C", "0:sorry"]), @r"
    error: invalid value '0:sorry' for '--per-source <N[:MESSAGE]>': without a child nobody can be served; the least is 1

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_long_message_for_a_source() {
    assert_snapshot!(said(&["-C", &("2:".to_owned() + &"x".repeat(501))]), @r"
    error: invalid value '2:xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' for '--per-source <N[:MESSAGE]>': a message has at most 500 bytes, this one 501

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_mask_that_is_none() {
    assert_snapshot!(said(&["--source-mask=33:64"]), @r"
    error: invalid value '33:64' for '--source-mask <BITS:BITS>': it is 0 to 32 and 0 to 128, as in 32:64

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn nobody_but_newcomers() {
    assert_snapshot!(said(&["--reserve", "256"]), @r"
    tine: --reserve 256: of 256 children (-c) at least one is for everybody
    -> 100
    ");
}

#[test]
fn a_rate_of_nothing() {
    assert_snapshot!(said(&["--rate=0/s"]), @r"
    error: invalid value '0/s' for '--rate <RATE[:BURST]>': '0/s' is no rate: a number, / and s, m or h, as in 10/s, 5/m or 10/s:50

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_rate_without_a_time() {
    assert_snapshot!(said(&["--rate-per-source", "10"]), @r"
    error: invalid value '10' for '--rate-per-source <RATE[:BURST]>': '10' is no rate: a number, / and s, m or h, as in 10/s, 5/m or 10/s:50

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn an_unknown_way_of_being_full() {
    assert_snapshot!(said(&["--on-full", "stay"]), @r"
    error: invalid value 'stay' for '--on-full <HOW>': it is wait, queue:N:TIME[:MESSAGE], refuse[:MESSAGE] or START:PERCENT:FULL

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_room_without_a_time() {
    assert_snapshot!(said(&["--on-full", "queue:10"]), @r"
    error: invalid value 'queue:10' for '--on-full <HOW>': it is wait, queue:N:TIME[:MESSAGE], refuse[:MESSAGE] or START:PERCENT:FULL

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_room_without_a_place() {
    assert_snapshot!(said(&["--on-full=queue:0:10s"]), @r"
    error: invalid value 'queue:0:10s' for '--on-full <HOW>': '0' is no number of clients that wait

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_room_for_a_time_that_is_none() {
    assert_snapshot!(said(&["--on-full=queue:10:soon:wait"]), @r"
    error: invalid value 'queue:10:soon:wait' for '--on-full <HOW>': 'soon' is no time: a number and ms, s, m, h or d, as in 250ms, 90s or 10m

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_room_larger_than_the_descriptors() {
    assert_snapshot!(said(&["--on-full=queue:10000000:1m"]), @r"
    error: invalid value 'queue:10000000:1m' for '--on-full <HOW>': '10000000' is no number of clients that wait

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn chance_that_ends_before_it_begins() {
    assert_snapshot!(said(&["--on-full=30:10:20"]), @r"
    error: invalid value '30:10:20' for '--on-full <HOW>': 30 children to begin with are more than 20 to end with

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn chance_of_more_than_a_hundred() {
    assert_snapshot!(said(&["--on-full=10:101:20"]), @r"
    error: invalid value '10:101:20' for '--on-full <HOW>': it is wait, queue:N:TIME[:MESSAGE], refuse[:MESSAGE] or START:PERCENT:FULL

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn chance_beyond_the_children() {
    assert_snapshot!(said(&["-c", "20", "--on-full=10:30:40"]), @r"
    tine: --on-full: all are refused at 40 children, and there are never more than 20 (-c)
    -> 100
    ");
}

#[test]
fn an_unknown_penalty() {
    assert_snapshot!(said(&["--penalty", "krach=90s"]), @r"
    error: invalid value 'krach=90s' for '--penalty <NAME=TIME,...>': there is no penalty for 'krach'; there are crash, signal, exit, exit.STATUS, timeout, nobytes, refused, max and min

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_penalty_without_a_time() {
    assert_snapshot!(said(&["--penalty", "crash"]), @r"
    error: invalid value 'crash' for '--penalty <NAME=TIME,...>': 'crash' is no penalty: the form is NAME=TIME, as in crash=90s

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_penalty_for_success() {
    assert_snapshot!(said(&["--penalty", "exit.0=10s"]), @r"
    error: invalid value 'exit.0=10s' for '--penalty <NAME=TIME,...>': '0' is no exit status that could be penalised: 1 to 255

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_penalty_that_nobody_reaches() {
    assert_snapshot!(said(&["--penalty", "crash=90s,min=2m,max=1m"]), @r"
    error: invalid value 'crash=90s,min=2m,max=1m' for '--penalty <NAME=TIME,...>': min is longer than max, so that nobody would ever be kept out

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn an_exempt_network_with_a_host_in_it() {
    assert_snapshot!(said(&["--penalty-exempt", "10.1.2.3/8"]), @r"
    error: invalid value '10.1.2.3/8' for '--penalty-exempt <PREFIX,...>': '10.1.2.3/8' is an address in a network: the network is 10.0.0.0/8, the address alone 10.1.2.3

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn an_allowed_network_with_too_many_bits() {
    assert_snapshot!(said(&["--allow", "10.0.0.0/33"]), @r"
    tine: --allow 10.0.0.0/33: '10.0.0.0/33': after the slash is a number of bits, 0 to 32, not '33'
    -> 100
    ");
}

#[test]
fn a_user_whom_nobody_knows() {
    assert_snapshot!(said(&["--allow", "user:no-such-user"]), @r"
    tine: --allow user:no-such-user: there is no user 'no-such-user'
    -> 100
    ");
}

#[test]
fn the_same_allowed_and_denied() {
    assert_snapshot!(said(&["--allow", "10.0.0.0/8", "--deny", "10.0.0.0/8"]), @r"
    tine: --deny 10.0.0.0/8: '10.0.0.0/8' has a rule already, one that no file has
    -> 100
    ");
}

#[test]
fn proxy_from_nobody() {
    assert_snapshot!(said(&["--proxy", "required"]), @r"
    error: the following required arguments were not provided:
      --proxy-from <PREFIX,...>

    Usage: tine serve ADDR... [OPTIONS] -- PROGRAM [ARG...]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn proxy_from_what_is_no_network() {
    assert_snapshot!(said(&["--proxy", "required", "--proxy-from", "10.0.0.0/8,balancer"]), @r"
    tine: --proxy-from 10.0.0.0/8,balancer: 'balancer' is no network: those are as 192.0.2.0/24, 2001:db8::/32, 192.0.2.7 or 2001:db8::7
    -> 100
    ");
}

#[test]
fn proxy_sometimes() {
    assert_snapshot!(said(&["--proxy", "sometimes", "--proxy-from", "10.0.0.0/8"]), @r"
    error: invalid value 'sometimes' for '--proxy <WHEN>'
      [possible values: required]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn balancers_without_proxy() {
    assert_snapshot!(said(&["--proxy-from", "10.0.0.0/8"]), @r"
    error: the following required arguments were not provided:
      --proxy <WHEN>

    Usage: tine serve ADDR... [OPTIONS] -- PROGRAM [ARG...]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn no_time_for_the_first_byte() {
    assert_snapshot!(said(&["--first-byte-timeout", "0"]), @r"
    error: invalid value '0' for '--first-byte-timeout <TIME>': nobody is as fast as that; without the option there is no deadline

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_time_that_is_none() {
    assert_snapshot!(said(&["--idle-timeout", "soon"]), @r"
    error: invalid value 'soon' for '--idle-timeout <TIME>': 'soon' is no time: a number and ms, s, m, h or d, as in 250ms, 90s or 10m

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_time_of_more_than_a_year() {
    assert_snapshot!(said(&["--time-limit", "400d"]), @r"
    error: invalid value '400d' for '--time-limit <TIME>': '400d' is more than a year

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_signal_that_is_none() {
    assert_snapshot!(said(&["--end", "hup:2s,please"]), @r"
    error: invalid value 'hup:2s,please' for '--end <SIGNAL[:TIME],...>': 'please' is no signal to end with; there are hup, int, quit, term, usr1, usr2, cont, kill

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_sequence_that_goes_on_after_the_kill() {
    assert_snapshot!(said(&["--end", "kill,term"]), @r"
    error: invalid value 'kill,term' for '--end <SIGNAL[:TIME],...>': nothing comes after kill: it is the last step, without a time

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn an_empty_sequence() {
    assert_snapshot!(said(&["--end", ""]), @r"
    error: invalid value '' for '--end <SIGNAL[:TIME],...>': '' is no signal to end with; there are hup, int, quit, term, usr1, usr2, cont, kill

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn trees_of_another_kind() {
    assert_snapshot!(said(&["--trees", "forest"]), @r"
    error: invalid value 'forest' for '--trees <BY>'
      [possible values: auto, cgroup, subreaper]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn rules_that_are_not_there() {
    assert_snapshot!(said(&["--rules", "no-such-file"]), @r"
    tine: --rules: rules no-such-file: No such file or directory
    -> 100
    ");
}

#[test]
fn rules_with_a_mistake() {
    assert_snapshot!(said(&["--rules", "rules"]), @r"
    tine: --rules: rules rules line 4: 'childs' is no option of a rule; there are children, rate, exempt, message, env.NAME, exec
    -> 100
    ");
}

#[test]
fn spares_that_are_no_two_numbers() {
    assert_snapshot!(said(&["--spare", "8"]), @r"
    error: invalid value '8' for '--spare <MIN:MAX>': it is MIN:MAX, as in 8:32, and at most 1024

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn more_spares_at_least_than_at_most() {
    assert_snapshot!(said(&["--spare", "8:4"]), @r"
    error: invalid value '8:4' for '--spare <MIN:MAX>': 8 at least are more than 4 at most

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn no_spares_at_most() {
    assert_snapshot!(said(&["--spare", "0:0"]), @r"
    error: invalid value '0:0' for '--spare <MIN:MAX>': none at most is none at all; leave the option out

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn very_many_spares() {
    assert_snapshot!(said(&["--spare", "8:5000"]), @r"
    error: invalid value '8:5000' for '--spare <MIN:MAX>': it is MIN:MAX, as in 8:32, and at most 1024

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn an_age_of_no_spares() {
    assert_snapshot!(said(&["--spare-age", "1m"]), @r"
    error: the following required arguments were not provided:
      --spare <MIN:MAX>

    Usage: tine serve ADDR... [OPTIONS] -- PROGRAM [ARG...]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn an_age_of_nothing() {
    assert_snapshot!(said(&["--spare", "1:2", "--spare-age", "0"]), @r"
    error: invalid value '0' for '--spare-age <TIME>': a spare of no age is none; without the option it is 1m

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn spares_behind_a_balancer() {
    assert_snapshot!(said(&["--spare", "8:32", "--proxy", "required", "--proxy-from", "127.0.0.0/8"]), @r"
    error: the argument '--spare <MIN:MAX>' cannot be used with '--proxy <WHEN>'

    Usage: tine serve ADDR... [OPTIONS] -- PROGRAM [ARG...]

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn a_limit_without_a_suffix_that_no_program_begins_in() {
    assert_snapshot!(said(&["--memory", "64"]), @r"
    error: invalid value '64' for '--memory <SIZE>': no program begins in 64 bytes of memory; the least is 256K

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn no_amount_of_memory() {
    assert_snapshot!(said(&["--memory", "much"]), @r"
    error: invalid value 'much' for '--memory <SIZE>': it is a number of bytes, with K, M or G if it is large, as in 64M

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn not_even_the_program_itself() {
    assert_snapshot!(said(&["--pids", "0"]), @r"
    error: invalid value '0' for '--pids <N>': it is a number from 1, the program itself, to 4194304

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn no_processor_time() {
    assert_snapshot!(said(&["--cpu", "half"]), @r"
    error: invalid value 'half' for '--cpu <PERCENT>': it is a number from 1 to 1000000, in hundredths of one processor

    For more information, try '--help'.
    -> 100
    ");
}

#[test]
fn limits_of_a_connection_without_its_group() {
    assert_snapshot!(said(&["--memory", "64M", "--cpu", "50", "--trees", "subreaper"]), @r"
    tine: --memory, --cpu: that takes a control group for each connection; leave out --trees subreaper
    -> 100
    ");
}

#[test]
fn limits_where_version_1_has_the_controllers() {
    // Where they can be had, as in a virtual machine of the newest kind, there is no such message.
    let hybrid = fs::read_to_string("/proc/self/cgroup").expect("this kernel has control groups");
    let first = |name: &str| hybrid.lines().any(|line| line.split(':').nth(1) == Some(name));
    if !first("pids") {
        eprintln!(
            "skip   version 1 of control groups has no controllers here: cargo xtask vm tries the others"
        );
        return;
    }
    let told = said(&["--pids", "32"]);
    let (before, path_and_after) = told.split_once(" in /").expect("the group is named");
    assert_eq!(before, "tine: limit each connection (pids 32): no controller pids");
    let (_, after) = path_and_after.split_once(": ").expect("what to do is said");
    assert_snapshot!(after, @r"
    version 1 of control groups has pids on this machine: boot with systemd.unified_cgroup_hierarchy=1, so that version 2 has it
    -> 111
    ");
}
