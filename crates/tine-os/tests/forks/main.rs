//! What takes processes to be seen: signals, connections that a child holds, orphans, control groups, and a log that several
//! of them share.

#![forbid(unsafe_code)]

mod apart;
mod cgroups;
mod deaths;
mod orphans;
mod rings;
mod signals;
mod spawned;
mod support;
mod watched;

#[global_allocator]
static APART: tine_os::apart::Apart = tine_os::apart::Apart;

fn main() {
    let tests = [
        apart::TESTS,
        signals::TESTS,
        watched::TESTS,
        orphans::TESTS,
        cgroups::TESTS,
        deaths::TESTS,
        spawned::TESTS,
        rings::TESTS,
    ];
    support::main(&tests.concat(), cgroups::tidy_up);
}
