//! A program to be served: writes what it sees of itself to stdout, as a program that was executed for it.

#![forbid(unsafe_code)]

fn main() -> std::io::Result<()> {
    tine_testkit::dump(&mut std::io::stdout(), true)
}
