//! How tine ends: four codes, and a message that says what was tried, on what, what the kernel said and what to do.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::process::ExitCode;

use tine::{Error, PlanError, StartError};

/// The operator erred: usage, an address, a program that is none. It will not work the next time either.
pub const OPERATOR: u8 = 100;

/// The system refused: a port is taken, a permission is missing. It may work later, or for somebody else.
pub const SYSTEM: u8 = 111;

/// A connection of `tine connect` broke.
pub const BROKEN: u8 = 1;

// 101, that tine erred, is what a panic ends with.

/// Why a verb did not end well.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

/// What a verb gives.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// The operator erred.
    pub fn operator(message: impl Display) -> Failure {
        Failure { code: OPERATOR, message: message.to_string() }
    }

    /// The system refused.
    pub fn system(message: impl Display) -> Failure {
        Failure { code: SYSTEM, message: message.to_string() }
    }

    /// The connection ends because nobody reads what it brings: nothing to tell.
    pub fn silent() -> Failure {
        Failure::broken("")
    }

    /// The connection broke.
    pub fn broken(message: impl Display) -> Failure {
        Failure { code: BROKEN, message: message.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(why: Error) -> Failure {
        let code = match &why {
            // It was there when it was looked for first.
            Error::Start(StartError::Plan(PlanError::Missing(_))) => SYSTEM,
            Error::Addr(_) | Error::Program(_) => OPERATOR,
            Error::Start(
                StartError::NoListener
                | StartError::Transport { .. }
                | StartError::Descriptors { .. }
                | StartError::Plan(_)
                | StartError::Rules(_),
            ) => OPERATOR,
            _ => SYSTEM,
        };
        Failure { code, message: why.to_string() }
    }
}

/// Tells what went wrong, on standard error, and gives the code to end with.
pub fn report(outcome: Outcome) -> ExitCode {
    let Err(Failure { code, message }) = outcome else { return ExitCode::SUCCESS };
    if !message.is_empty() {
        say(format_args!("tine: {}", Plain(&message)));
    }
    ExitCode::from(code)
}

/// Writes a line on standard error, if there is still one.
pub fn say(line: impl Display) {
    // In one piece; whether anybody reads it is not for us to know.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Writes to standard output; a reader that has gone has read all that it wanted.
pub fn print(text: &[u8]) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::system(format_args!("write standard output: {why}")))
        }
        _ => Ok(()),
    }
}

/// Writes something to standard output for machines.
pub fn print_json(what: &impl serde::Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(what);
    let text = text.map_err(|why| Failure::system(format_args!("write JSON: {why}")))?;
    print(format!("{text}\n").as_bytes())
}

/// A message without the numbers that std appends to what the kernel says: ` (os error 2)`.
pub struct Plain<T>(pub T);

impl<T: Display> Display for Plain<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once(" (os error ") {
            f.write_str(before)?;
            rest = after.split_once(')').map_or("", |(_, after)| after);
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_are_left_out_wherever_they_are() {
        let plain = |text: &str| Plain(text).to_string();
        assert_eq!(plain("bind x: Permission denied (os error 13); ask"), "bind x: Permission denied; ask");
        assert_eq!(plain("a (os error 1) b (os error 2)"), "a b");
        assert_eq!(plain("nothing (of the kind)"), "nothing (of the kind)");
    }
}
