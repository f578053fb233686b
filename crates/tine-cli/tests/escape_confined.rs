//! Ways out, tried under confinement: none leads out of `sealed`, and out of `guarded` only those whose reason is in the table.

mod jailbreak;
mod support;

use std::env;

use jailbreak::table::{Attempt, Shut, attempts};
use jailbreak::{GUARDED, SEALED, Scenario, differences_shut};
use support::left_out_without_root;

/// The attempts, or those that this variable names, by how their names begin.
fn wanted() -> Vec<Attempt> {
    let only = env::var("ESCAPES").unwrap_or_default();
    attempts().into_iter().filter(|attempt| attempt.name.starts_with(&only)).collect()
}

fn nobody_gets_out(scenario: Scenario, expected: impl Fn(&Attempt) -> Shut) {
    if left_out_without_root("the ways out") {
        return;
    }
    let wrong = differences_shut(&scenario, &wanted(), expected);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn root_gets_out_of_guarded_only_where_the_table_says_why() {
    nobody_gets_out(Scenario::new(GUARDED), |attempt| attempt.guarded);
}

#[test]
fn an_ordinary_user_gets_out_of_guarded_only_where_the_table_says_why() {
    nobody_gets_out(Scenario::new(GUARDED).by_nobody(), |attempt| attempt.guarded);
}

#[test]
fn root_gets_out_of_sealed_by_no_way() {
    nobody_gets_out(Scenario::new(SEALED), |attempt| attempt.sealed);
}

#[test]
fn an_ordinary_user_gets_out_of_sealed_by_no_way() {
    nobody_gets_out(Scenario::new(SEALED).by_nobody(), |attempt| attempt.sealed);
}

/// Nothing given is nothing taken away: the same ways lead out of `none` as out of a server that was told nothing.
#[test]
fn root_gets_out_of_none_by_each_way() {
    if left_out_without_root("the ways out") {
        return;
    }
    let wrong = jailbreak::differences_open(&Scenario::new(&["--confine", "none"]), &wanted());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
