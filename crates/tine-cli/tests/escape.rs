//! Ways out, tried where nothing is confined: each must lead out, or it could not show what closes it. Root's are tried as
//! root; as an ordinary user those that take none.

mod jailbreak;
mod support;

use std::collections::BTreeSet;
use std::process::Command;

use jailbreak::table::attempts;
use jailbreak::{Scenario, differences_open, world};
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
    let wrong = differences_open(&Scenario::new(&[]), &wanted());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_ordinary_user_gets_out_by_each_way_that_takes_no_root_when_nothing_is_confined() {
    if left_out_without_root("the ways out of another user's programs") {
        return;
    }
    let wrong = differences_open(&Scenario::new(&[]).by_nobody(), &wanted());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
