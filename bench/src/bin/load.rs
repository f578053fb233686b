//! `load`: the generator alone. Prints one line of JSON; the exit code is 1 when any reply was wrong or missing.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use tine_bench::load::{self, options::Options};

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(why) => {
            let _ = why.print();
            return if why.use_stderr() { ExitCode::from(100) } else { ExitCode::SUCCESS };
        }
    };
    match load::run(&options) {
        Ok(report) => {
            println!("{}", serde_json::to_string(&report).expect("a report is JSON"));
            if report.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(why) => {
            eprintln!("load: {why}");
            ExitCode::from(111)
        }
    }
}
