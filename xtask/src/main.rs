//! The project's own chores, one file a verb: what CI runs, what a release runs, what keeps documents true.
//!
//! Called as `cargo xtask VERB`. Nothing here is shipped, and nothing here decides how tine behaves: a chore looks at
//! the tree or drives the built programs from outside, and says what it found in lines that begin with a verb.

#![forbid(unsafe_code)]

mod args;
mod bench;
mod churn;
mod datagrams;
mod deny;
mod escapes;
mod faults;
mod fuzz;
mod man;
mod refusals;
mod run;
mod test;
mod tidy;
mod traces;
mod vm;

use std::process::ExitCode;

/// What a verb hands back; the text is shown to whoever called it.
type Result<T = ()> = std::result::Result<T, String>;

/// One chore: its name, its arguments, what it is for, and the function that does it.
struct Verb {
    name: &'static str,
    args: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Result,
}

const VERBS: &[Verb] = &[
    Verb {
        name: "test",
        args: "[--no-install]",
        about: "everything CI checks, from Debian packages to licences; stops at the first failure",
        run: test::run,
    },
    Verb {
        name: "tidy",
        args: "",
        about: "facts about the tree: unsafe, ARCHITECTURE.md, man page, promises and their tests",
        run: tidy::run,
    },
    Verb {
        name: "man",
        args: "[--check]",
        about: "write man/tine.8 and completions/ from the program's own flags, or only compare",
        run: man::run,
    },
    Verb {
        name: "churn",
        args: "[N] [--acceptors N] [--spare MIN:MAX] [--handler | [--confine PROFILE] [--serve FLAGS] [--program [PROG ARG...]]]",
        about: "N connections (1,000,000), every reply checked, nothing left behind; as root, not on the machine either",
        run: churn::run,
    },
    Verb {
        name: "refusals",
        args: "[--count N] [--only KIND...]",
        about: "N clients (100,000) refused in each way there is; counters exact, nothing left behind",
        run: refusals::run,
    },
    Verb {
        name: "datagrams",
        args: "[N] [--kill-every K]",
        about: "N datagrams (1,000,000) echoed while workers are killed; accounts for each one",
        run: datagrams::run,
    },
    Verb {
        name: "bench",
        args: "[--quick] [--only PATTERN] [--rounds N] [--against FILE] [--s6-tcpserver PATH] [--nsjail PATH]",
        about: "tine, its peers and bare loops against each other; writes docs/performance.md, its charts and raw numbers",
        run: bench::run,
    },
    Verb {
        name: "faults",
        args: "[--from N | --only N] [--spares] [--acceptors N] [--confine none|guarded|sealed] [--seconds S]",
        about: "fail the 1st, 2nd, 3rd ... system call of a scripted day until a day is clean",
        run: faults::run,
    },
    Verb {
        name: "escapes",
        args: "[--only BEGINNING --to FILE] | --neighbour [--confine none|guarded|sealed]",
        about: "what each layer of confinement stops, into docs/escapes.md; or how long a neighbour waits meanwhile",
        run: escapes::run,
    },
    Verb {
        name: "fuzz",
        args: "[--seconds S]",
        about: "random bytes for the PROXY parser, half an hour; needs a nightly compiler and cargo-fuzz",
        run: fuzz::run,
    },
    Verb {
        name: "traces",
        args: "[--events N] [--from N | --seed N]",
        about: "10,000,000 random events for admission, each answer checked against second books",
        run: traces::run,
    },
    Verb {
        name: "vm",
        args: "[--seconds S] [--kernel FILE]",
        about: "boot another kernel in an emulator for what takes control groups with controllers; writes docs/vm.md",
        run: vm::run,
    },
    Verb {
        name: "deny",
        args: "[--advisories]",
        about: "licences, sources and bans of all dependencies; or known vulnerabilities (needs a network)",
        run: deny::run,
    },
];

/// Exit code for a mistake in the arguments, as in tine itself.
const EXIT_USAGE: u8 = 100;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else {
        eprint!("{}", usage());
        return ExitCode::from(EXIT_USAGE);
    };
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        eprint!("xtask: there is no verb {name:?}\n\n{}", usage());
        return ExitCode::from(EXIT_USAGE);
    };
    if rest.iter().take_while(|arg| *arg != "--").any(|arg| arg == "-h" || arg == "--help") {
        println!(
            "Usage: {}\n\n{}",
            format!("cargo xtask {} {}", verb.name, verb.args).trim_end(),
            verb.about
        );
        return ExitCode::SUCCESS;
    }
    match (verb.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask {name}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let mut text = String::from("Usage: cargo xtask VERB [ARGUMENTS]\n\n");
    for verb in VERBS {
        text.push_str(format!("  {} {}", verb.name, verb.args).trim_end());
        text.push_str(&format!("\n      {}\n", verb.about));
    }
    text.push_str(
        "\nExit codes: 0 all is well, 100 no such verb, any other: it is not, and the last lines say why.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::{VERBS, usage};

    #[test]
    fn the_usage_text_names_every_verb_once() {
        let text = usage();
        for verb in VERBS {
            let heads =
                text.lines().filter(|line| line.trim_start().split(' ').next() == Some(verb.name)).count();
            assert_eq!(heads, 1, "{}", verb.name);
        }
    }
}
