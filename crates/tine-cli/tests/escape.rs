//! Ways out, tried where nothing is confined: each must lead out, or it could not show what closes it. Root's are tried as
//! root; as an ordinary user those that take none.

mod jailbreak;
mod support;

use std::collections::BTreeSet;
use std::process::Command;

use jailbreak::table::attempts;
use jailbreak::{Outcome, Scenario, differences_open, world};
use support::{left_out_without_root, told};

/// The attempts, or those that this variable names, by how their names begin.
fn wanted() -> Vec<jailbreak::table::Attempt> {
    let only = std::env::var("ESCAPES").unwrap_or_default();
    attempts().into_iter().filter(|attempt| attempt.name.starts_with(&only)).collect()
}

#[test]
fn root_gets_out_by_each_way_when_nothing_is_confined() {
    if left_out_without_root("the ways out") {
        return;
    }
    let wrong = differences_open(&Scenario::new(&["--confine", "none"]), &wanted());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_ordinary_user_gets_out_by_each_way_that_takes_no_root_when_nothing_is_confined() {
    if left_out_without_root("the ways out of another user's programs") {
        return;
    }
    let wrong = differences_open(&Scenario::new(&["--confine", "none"]).by_nobody(), &wanted());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The harness itself: what something else than tine confines is seen to be confined.
#[test]
fn what_is_closed_by_other_means_is_seen_to_be_closed() {
    if left_out_without_root("the ways out") {
        return;
    }
    let blocked = |within: &[&str], names: &[&str]| {
        let chosen: Vec<_> = attempts().into_iter().filter(|attempt| names.contains(&attempt.name)).collect();
        assert_eq!(chosen.len(), names.len(), "{names:?}");
        for (name, outcome) in Scenario::new(&["--confine", "none"]).within(within).outcomes(&chosen) {
            assert!(matches!(outcome, Outcome::Blocked(_)), "{within:?}: {name} {outcome}");
        }
    };
    blocked(
        &["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--"],
        &["S11.setuid-program", "S11.file-capabilities", "S9.mount", "S13.raw-socket"],
    );
    // Whoever has another numbering of processes finds nobody by the numbers out here.
    blocked(
        &["unshare", "--pid", "--fork", "--mount-proc", "--"],
        &[
            "S1.seize-sibling",
            "S3.environ",
            "S4.sibling-socket",
            "S5.kill-sibling",
            "S5.kill-master",
            "S6.list",
        ],
    );
    blocked(
        &["unshare", "--net", "--"],
        &["S14.tcp", "S14.fastopen", "S14.udp", "S15.abstract", "S6.connections"],
    );
    blocked(
        &["unshare", "--ipc", "--"],
        &["S29.shm", "S29.msg", "S29.sem", "S29.host-shm", "S29.host-mqueue"],
    );
}

#[test]
fn every_way_that_the_program_knows_has_a_row_and_every_row_a_way() {
    let known = told(Command::new(world::program()).arg("list"));
    let known: BTreeSet<&str> = known.lines().filter(|name| !name.contains(".inner-")).collect();
    let all = attempts();
    let rows: BTreeSet<&str> = all.iter().map(|attempt| attempt.name).collect();
    assert_eq!(known, rows);
    assert_eq!(rows.len(), all.len(), "a row twice");
    for section in 1..=36 {
        assert!(rows.iter().any(|name| name.starts_with(&format!("S{section}."))), "nothing of S{section}");
    }
}
