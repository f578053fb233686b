//! What takes processes to be seen: signals, connections that a child holds, orphans and control groups.

#![forbid(unsafe_code)]

mod cgroups;
mod deaths;
mod orphans;
mod signals;
mod spawned;
mod support;
mod watched;

fn main() {
    let tests =
        [signals::TESTS, watched::TESTS, orphans::TESTS, cgroups::TESTS, deaths::TESTS, spawned::TESTS]
            .concat();
    support::main(&tests, cgroups::tidy_up);
}
