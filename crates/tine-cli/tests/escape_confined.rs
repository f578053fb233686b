//! Ways out, tried under confinement: what leads out of `guarded` or `sealed` all the same has its reason in the table.

mod jailbreak;
mod support;

use std::env;
use std::sync::{Mutex, PoisonError};

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
    // One after the other: each makes many attempts at once, and some are a matter of time.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let wrong = differences_shut(&scenario, &wanted(), expected);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn root_gets_out_of_guarded_only_where_the_table_says_why() {
    nobody_gets_out(Scenario::new(GUARDED), |attempt| attempt.guarded);
}

/// Tine as well is the ordinary user here: it has no privilege that could keep its children from it.
#[test]
fn an_ordinary_user_gets_out_of_guarded_only_where_the_table_says_why() {
    nobody_gets_out(Scenario::new(GUARDED).all_by_nobody(), |attempt| attempt.guarded);
}

#[test]
fn root_gets_out_of_sealed_only_where_the_table_says_why() {
    nobody_gets_out(Scenario::new(SEALED), |attempt| attempt.sealed);
}

#[test]
fn an_ordinary_user_gets_out_of_sealed_only_where_the_table_says_why() {
    nobody_gets_out(Scenario::new(SEALED).all_by_nobody(), |attempt| attempt.sealed_alike);
}

/// What is read under `guarded` because nothing was named is not read when something else was.
#[test]
fn nothing_is_read_but_what_was_named_when_something_was() {
    if left_out_without_root("the ways out") {
        return;
    }
    let reading: Vec<Attempt> = wanted().into_iter().filter(Attempt::is_reading).collect();
    let scenario = Scenario::new(&[GUARDED, &["{seen}"]].concat());
    let wrong = differences_shut(&scenario, &reading, |_| Shut::Blocked);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
