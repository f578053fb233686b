//! The few forms of argument that verbs take: `--switch`, `--name VALUE`, and one number with `_` or `,` in it.

use crate::Result;

/// Arguments not looked at yet.
pub struct Args {
    left: Vec<String>,
}

impl Args {
    pub fn new(args: &[String]) -> Self {
        Args { left: args.to_vec() }
    }

    /// Takes `--switch` out; true if it was there.
    pub fn switch(&mut self, name: &str) -> bool {
        let before = self.left.len();
        self.left.retain(|arg| arg != name);
        self.left.len() < before
    }

    /// Takes `--name NUMBER` out.
    pub fn number_after(&mut self, name: &str) -> Result<Option<u64>> {
        let Some(value) = self.value_after(name)? else { return Ok(None) };
        number(&value).map(Some).ok_or(format!("{name} needs a number, not {value:?}"))
    }

    /// Takes `--name VALUE` out.
    pub fn value_after(&mut self, name: &str) -> Result<Option<String>> {
        let Some(at) = self.left.iter().position(|arg| arg == name) else { return Ok(None) };
        if at + 1 == self.left.len() {
            return Err(format!("{name} needs something after it"));
        }
        let value = self.left.remove(at + 1);
        self.left.remove(at);
        Ok(Some(value))
    }

    /// Takes everything after `--name` out, if it is there.
    pub fn all_after(&mut self, name: &str) -> Option<Vec<String>> {
        let at = self.left.iter().position(|arg| arg == name)?;
        let rest = self.left.split_off(at + 1);
        self.left.pop();
        Some(rest)
    }

    /// Takes the number that stands alone, if there is one.
    pub fn number(&mut self) -> Option<u64> {
        let at = self.left.iter().position(|arg| number(arg).is_some())?;
        number(&self.left.remove(at))
    }

    /// Refuses whatever is left.
    pub fn end(self) -> Result {
        match self.left.first() {
            None => Ok(()),
            Some(arg) => Err(format!("unexpected argument {arg:?}; see cargo xtask --help")),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    text.replace(['_', ','], "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::Args;

    fn args(words: &[&str]) -> Args {
        Args::new(&words.iter().map(|word| word.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn numbers_and_switches_may_stand_in_any_order() {
        let mut args = args(&["--from", "12", "1,000_000", "--handler"]);
        assert!(args.switch("--handler"));
        assert!(!args.switch("--handler"));
        assert_eq!(args.number_after("--from"), Ok(Some(12)));
        assert_eq!(args.number(), Some(1_000_000));
        assert_eq!(args.end(), Ok(()));
    }

    #[test]
    fn a_program_keeps_all_of_its_arguments() {
        let mut args = args(&["5", "--program", "/bin/cat", "-u"]);
        assert_eq!(args.all_after("--program"), Some(vec!["/bin/cat".to_string(), "-u".to_string()]));
        assert_eq!(args.number(), Some(5));
        assert_eq!(args.end(), Ok(()));
    }

    #[test]
    fn a_value_may_be_anything_that_is_there() {
        let mut args = args(&["--only", "rate/tine", "--nsjail"]);
        assert_eq!(args.value_after("--only"), Ok(Some("rate/tine".to_string())));
        assert!(args.value_after("--nsjail").is_err());
        assert_eq!(args.value_after("--rounds"), Ok(None));
    }

    #[test]
    fn what_nobody_took_is_refused() {
        assert!(args(&["--frobnicate"]).end().is_err());
        assert!(args(&["--from"]).number_after("--from").is_err());
        assert!(args(&["--from", "x"]).number_after("--from").is_err());
    }
}
