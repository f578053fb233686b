//! `tine man`: the manual page, written by hand but for the options, which come from their definitions.
//!
//! In the template a line `@options VERB@` stands for the list of a verb's options. The result is mdoc(7).

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory};

use crate::exit::{self, Outcome};
use crate::flags::Cli;

/// The page but for its options.
const TEMPLATE: &str = include_str!("../../man/tine.8.in");

/// How long a line of the page may be; readers do not care, but whoever reviews a change does.
const WIDTH: usize = 78;

/// Prints the page.
pub fn print() -> Outcome {
    exit::print(page().as_bytes())
}

fn page() -> String {
    let cli = Cli::command();
    let mut page = String::new();
    for line in TEMPLATE.lines() {
        match line.strip_prefix("@options ").and_then(|rest| rest.strip_suffix('@')) {
            Some(verb) => {
                page.push_str(&options(cli.find_subcommand(verb).expect("the template names verbs")))
            }
            None => {
                page.push_str(line);
                page.push('\n');
            }
        }
    }
    page
}

/// The options of a verb as a list, in the order in which help has them.
fn options(verb: &Command) -> String {
    let mut list = String::from(".Bl -tag -width Ds\n");
    for arg in verb.get_arguments().filter(|arg| !arg.is_positional()) {
        item(arg, &mut list);
    }
    list.push_str(".El\n");
    list
}

fn item(arg: &Arg, to: &mut String) {
    let short = arg.get_short().map(|short| format!("Fl {short}"));
    let long = arg.get_long().map(|long| format!("Fl -{}", long.replace('-', "\\-")));
    let value = if matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) {
        let names = arg.get_value_names().unwrap_or_default();
        names.iter().fold(String::new(), |text, name| text + " Ar " + name)
    } else {
        String::new()
    };
    let forms: Vec<_> = [short, long].into_iter().flatten().map(|form| form + &value).collect();
    let _ = writeln!(to, ".It {}", forms.join(" , "));
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    prose(&help, ".", to);
    let values = arg.get_possible_values();
    if values.iter().any(|value| value.get_help().is_some()) {
        to.push_str(".Pp\n.Bl -tag -width systemd -compact\n");
        for value in values {
            let _ = writeln!(to, ".It Cm {}", value.get_name());
            prose(&value.get_help().map(ToString::to_string).unwrap_or_default(), "", to);
        }
        to.push_str(".El\n");
    }
    if let Some(default) = arg.get_default_values().first().and_then(|value| value.to_str()) {
        if to.ends_with(".El\n") {
            to.push_str(".Pp\n");
        }
        prose(&format!("The default is {default}"), ".", to);
    }
}

/// Prose: each sentence on lines of its own; the last one, which has no full stop, ends in `stop`.
fn prose(text: &str, stop: &str, to: &mut String) {
    for sentence in text.split_inclusive(". ") {
        let mut line = String::new();
        for word in sentence.split_whitespace().map(escape) {
            if !line.is_empty() && line.len() + 1 + word.len() > WIDTH {
                let _ = writeln!(to, "{line}");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
        let stop = if line.ends_with('.') { "" } else { stop };
        let _ = writeln!(to, "{line}{stop}");
    }
}

/// A word as roff takes it: hyphens that begin a flag stay such, and nothing is taken for a request.
fn escape(word: &str) -> String {
    let word = word.replace('\\', "\\e");
    let flag = word.len() - word.trim_start_matches('-').len();
    let word = format!("{}{}", "\\-".repeat(flag), &word[flag..]);
    if word.starts_with(['.', '\'']) { format!("\\&{word}") } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_and_value_is_in_the_page() {
        let page = page();
        assert!(!page.contains("@options"), "a placeholder is left");
        let cli = Cli::command();
        for verb in ["serve", "explain", "doctor", "connect"] {
            let verb = cli.find_subcommand(verb).unwrap();
            for arg in verb.get_arguments() {
                if let Some(long) = arg.get_long() {
                    assert!(page.contains(&format!("Fl -{}", long.replace('-', "\\-"))), "--{long}");
                }
                if let Some(short) = arg.get_short() {
                    assert!(page.contains(&format!(".It Fl {short}")), "-{short}");
                }
                for value in arg.get_possible_values().iter().filter(|value| value.get_help().is_some()) {
                    assert!(page.contains(&format!(".It Cm {}", value.get_name())), "{}", value.get_name());
                }
            }
        }
    }

    #[test]
    fn prose_is_never_taken_for_a_request() {
        let mut page = String::new();
        prose("One thing, --long and -s. 'Two' \\n", ".", &mut page);
        assert_eq!(page, "One thing, \\-\\-long and \\-s.\n\\&'Two' \\en.\n");
    }
}
