//! What a virtual machine says on its console, and the page that is written from it.

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The test's name.
    pub name: String,
    /// `ok`, or how it did not end well.
    pub result: String,
    /// What it has measured or been told.
    pub notes: Vec<String>,
}

/// What was read so far.
#[derive(Debug, Default)]
pub struct Console {
    /// The kernel's release.
    pub kernel: String,
    /// All of it, in order.
    pub checks: Vec<Check>,
    /// The last word of the machine, which it says before it powers off.
    pub verdict: Option<String>,
    /// Whose lines are being read, after the results.
    notes_of: Option<String>,
}

/// How the machine's own lines begin.
pub const MARK: &str = "tine-vm: ";

impl Console {
    /// Reads one line.
    pub fn read(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(said) = line.strip_prefix(MARK) {
            match said.split_once(' ') {
                Some(("kernel", release)) => self.kernel = release.to_owned(),
                Some(("verdict", word)) => self.verdict = Some(word.to_owned()),
                _ => {}
            }
        } else if let Some((name, result)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            let (name, result) = (name.to_owned(), result.to_owned());
            self.checks.push(Check { name, result, notes: Vec::new() });
        } else if let Some(section) = line.strip_prefix("---- ") {
            self.notes_of = section.split(' ').next().map(str::to_owned);
        } else if let Some(note) = line.strip_prefix("note ")
            && let Some(check) =
                self.checks.iter_mut().find(|check| Some(&check.name) == self.notes_of.as_ref())
        {
            check.notes.push(note.to_owned());
        }
    }

    /// Whether the machine came to its end and all was well.
    pub fn is_well(&self) -> bool {
        let all = !self.checks.is_empty() && self.checks.iter().all(|check| check.result == "ok");
        all && self.verdict.as_deref() == Some("ok")
    }

    /// The page.
    pub fn page(&self, date: &str, emulator: &str) -> String {
        let mut page = format!(
            "# What a virtual machine shows\n\n\
             Written by `cargo xtask vm`, not by hand. It boots another kernel, whose control groups are all of version 2, and runs\n\
             there what other machines cannot: [`crates/tine-cli/tests/vm.rs`](../crates/tine-cli/tests/vm.rs) has each check.\n\n\
             | | |\n|---|---|\n| kernel | {} |\n| date | {date} |\n| emulator | {emulator}, without hardware's help: times say nothing |\n\
             | verdict | {} of {} checks are ok |\n\n| check | result |\n|---|---|\n",
            self.kernel,
            self.checks.iter().filter(|check| check.result == "ok").count(),
            self.checks.len()
        );
        for Check { name, result, .. } in &self.checks {
            page.push_str(&format!("| {} | {result} |\n", words(name)));
        }
        page.push_str("\n## What was measured and told\n\n");
        for Check { name, notes, .. } in self.checks.iter().filter(|check| !check.notes.is_empty()) {
            page.push_str(&format!("- {}:\n", words(name)));
            notes.iter().for_each(|note| page.push_str(&format!("  `{}`\n", note.replace('`', "'"))));
        }
        page
    }
}

/// A test's name is a sentence.
fn words(name: &str) -> String {
    name.rsplit("::").next().unwrap_or(name).replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "tine-vm: kernel 6.1.0\r\n\nrunning 2 tests\r\ntest a_b ... ok\r\ntest c ... FAILED\r\n\
                        ---- a_b stdout ----\r\nnote n=1\r\n---- c stdout ----\r\nother\r\ntine-vm: verdict failed\r\n";

    fn console(said: &str) -> Console {
        let mut console = Console::default();
        said.lines().for_each(|line| console.read(line));
        console
    }

    #[test]
    fn results_notes_and_the_verdict_are_read_from_a_console() {
        let read = console(SAID);
        assert_eq!((read.kernel.as_str(), read.verdict.as_deref()), ("6.1.0", Some("failed")));
        let results: Vec<_> =
            read.checks.iter().map(|check| (check.name.as_str(), check.result.as_str())).collect();
        assert_eq!(results, [("a_b", "ok"), ("c", "FAILED")]);
        assert_eq!(read.checks[0].notes, ["n=1"]);
        let page = read.page("today", "qemu");
        assert!(page.contains("| a b | ok |\n| c | FAILED |") && page.contains("- a b:\n  `n=1`"), "{page}");
        assert!(page.contains("1 of 2 checks"), "{page}");
    }

    #[test]
    fn all_is_well_only_with_results_that_are_and_a_verdict() {
        assert!(!console(SAID).is_well());
        assert!(console("test a ... ok\ntine-vm: verdict ok\n").is_well());
        assert!(!console("test a ... ok\n").is_well(), "it was cut off");
        assert!(!console("tine-vm: verdict ok\n").is_well(), "nothing was tried");
        assert!(!console("test a ... ok\ntest b ... FAILED\ntine-vm: verdict ok\n").is_well());
    }
}
