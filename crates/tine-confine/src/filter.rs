//! Filters: lines that say which calls are refused become a program that the kernel asks about each call. seccomp(2).
//!
//! A call is found by halving the list of numbers, so that those that are not refused cost a few comparisons however long the list
//! is; and the kernel remembers which numbers are allowed whatever their arguments, and asks about those no more.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use tine_os::seccomp::{self, Instruction, Key, answer, code, data};

/// Calls that are refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Denial {
    /// Their names.
    pub calls: Vec<String>,
    /// The argument that it depends on, counted from 0; its low 32 bits are looked at. None: refused whatever the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argument: Option<u32>,
    /// Refused when it is one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<String>,
    /// Refused when it is none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unless: Vec<String>,
    /// Refused when it has a bit of one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bits: Vec<String>,
    /// What the caller is told.
    #[serde(default)]
    pub answer: Answer,
    /// Which words of the operator's leave the line out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_by: Option<Opening>,
    /// Why.
    pub reason: String,
}

/// What becomes of a call that is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Answer {
    /// It is not permitted.
    #[default]
    #[serde(rename = "EPERM")]
    NotPermitted,
    /// There is no such call.
    #[serde(rename = "ENOSYS")]
    Unknown,
    /// There is no such family of addresses.
    #[serde(rename = "EAFNOSUPPORT")]
    NoFamily,
    /// The process is killed: by whoever watches ([`crate::Prepared::wear_watched`]), or else by the kernel, by SIGSYS.
    #[serde(rename = "kill")]
    Kill,
}

/// Words of the operator's that open something up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Opening {
    /// `--write`
    Write,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// No call has this name.
    Call(String),
    /// No call has this many arguments.
    Argument(u32),
    /// A value that is neither a number nor one of the names that are known.
    Value(String),
    /// An argument without values, or with several kinds of them; or values without an argument.
    Condition(Vec<String>),
}

/// One call, refused when any of these holds in all its parts; whatever its arguments, when there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub call: u32,
    pub when: Vec<Vec<Test>>,
    pub answer: Answer,
}

/// A look at half an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub argument: u32,
    /// The bits that are looked at.
    pub mask: u32,
    pub is: Is,
    pub value: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Equal,
    Different,
    AnyBit,
}

/// Names of values: linux/sched.h, asm-generic/ioctls.h.
const VALUES: [(&str, u32); 10] = [
    ("CLONE_NEWCGROUP", 0x0200_0000),
    ("CLONE_NEWIPC", 0x0800_0000),
    ("CLONE_NEWNET", 0x4000_0000),
    ("CLONE_NEWNS", 0x0002_0000),
    ("CLONE_NEWPID", 0x2000_0000),
    ("CLONE_NEWUSER", 0x1000_0000),
    ("CLONE_NEWUTS", 0x0400_0000),
    ("TIOCLINUX", 0x541c),
    ("TIOCSETD", 0x5423),
    ("TIOCSTI", 0x5412),
];

impl Answer {
    pub(crate) fn code(self) -> u32 {
        match self {
            Answer::NotPermitted => answer::fail(1),
            Answer::Unknown => answer::fail(38),
            Answer::NoFamily => answer::fail(97),
            Answer::Kill => answer::KILL,
        }
    }
}

impl Test {
    pub(crate) fn new(argument: u32, is: Is, value: u32) -> Test {
        Test { argument, mask: u32::MAX, is, value }
    }

    pub(crate) fn of_bits(self, mask: u32) -> Test {
        Test { mask, ..self }
    }
}

impl Denial {
    /// Looks for mistakes.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), Wrong> {
        for call in &self.calls {
            if !seccomp::is_call(call) {
                return Err(Wrong::Call(call.clone()));
            }
        }
        self.when().map(drop)
    }

    /// As rules, for the calls that this architecture has and `opened` does not name.
    pub(crate) fn rules(&self, opened: &[String]) -> Vec<Rule> {
        let when = self.when().unwrap_or_default();
        let calls = self.calls.iter().filter(|call| !opened.contains(call));
        let numbers = calls.filter_map(|call| seccomp::number(call));
        numbers.map(|call| Rule { call, when: when.clone(), answer: self.answer }).collect()
    }

    fn when(&self) -> Result<Vec<Vec<Test>>, Wrong> {
        let lists = [&self.any, &self.unless, &self.bits];
        let given = lists.iter().filter(|list| !list.is_empty()).count();
        let Some(argument) = self.argument else {
            return if given == 0 { Ok(Vec::new()) } else { Err(Wrong::Condition(self.calls.clone())) };
        };
        if argument > 5 {
            return Err(Wrong::Argument(argument));
        }
        if given != 1 {
            return Err(Wrong::Condition(self.calls.clone()));
        }
        let test = |is, text: &String| Ok(Test::new(argument, is, value(text)?));
        Ok(if !self.any.is_empty() {
            self.any.iter().map(|text| Ok(vec![test(Is::Equal, text)?])).collect::<Result<_, _>>()?
        } else if !self.unless.is_empty() {
            vec![self.unless.iter().map(|text| test(Is::Different, text)).collect::<Result<_, _>>()?]
        } else {
            let bits = self.bits.iter().try_fold(0, |all, text| Ok(all | value(text)?))?;
            vec![vec![Test::new(argument, Is::AnyBit, bits)]]
        })
    }
}

fn value(text: &str) -> Result<u32, Wrong> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let named = || VALUES.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    number.or_else(named).ok_or_else(|| Wrong::Value(text.to_owned()))
}

/// The same program as one of [`compile`], but that it asks before anybody is killed. Calls are answered in the same way otherwise.
pub(crate) fn watched(program: &[Instruction]) -> Vec<Instruction> {
    let mut all: Vec<_> = program
        .iter()
        .map(|one| if *one == say(Answer::Kill.code()) { say(answer::ASK) } else { *one })
        .collect();
    // With the number loaded. Whoever asked for such calls to be told to it, by a filter of its own, could let them be done: the kernel
    // has that impossible as long as there is somebody else, but not any more when that one is gone. It says EBUSY, and so is this.
    const EBUSY: u16 = 16;
    let guard = [
        skip(code::EQUAL, seccomp::SECCOMP, 0, 4),
        load(data::low(1)),
        skip(code::ANY_BIT, seccomp::NEW_LISTENER, 0, 1),
        say(answer::fail(EBUSY)),
        load(data::NUMBER),
    ];
    all.splice(PREAMBLE..PREAMBLE, guard);
    all
}

/// How many instructions come before a call's number is looked at.
const PREAMBLE: usize = 4;

/// What a process needs that children are born from: clone3 to have them born in a control group, setns to have them born into a
/// namespace that is there.
const OF_BIRTHS: [&str; 2] = ["clone3", "setns"];

/// A program for these rules; of several about one call the first that holds decides. `None` on an architecture that filters are
/// not written for. What births take is not refused to whoever has the `key`, if there is one.
pub(crate) fn compile(rules: &[Rule], key: Option<Key>) -> Option<Vec<Instruction>> {
    let architecture = seccomp::ARCHITECTURE?;
    let mut calls: BTreeMap<u32, Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        calls.entry(rule.call).or_default().push(rule);
    }
    let mut program = vec![
        load(data::ARCHITECTURE),
        // Calls by the numbers of another architecture (int 0x80 has those of 32 bits): nobody here has been built for it, or
        // else nothing that follows would mean what it says.
        skip(code::EQUAL, architecture, 1, 0),
        say(Answer::Kill.code()),
        load(data::NUMBER),
    ];
    debug_assert_eq!(program.len(), PREAMBLE, "what is put in between must be found");
    if let Some(x32) = seccomp::X32 {
        // Not killed: some programs try whether it is there.
        program.extend([skip(code::AT_LEAST, x32, 0, 1), say(Answer::Unknown.code())]);
    }
    let calls: Vec<_> = calls.into_iter().collect();
    let keyed = OF_BIRTHS.map(seccomp::number);
    halve(&calls, &mut program, &|call| key.filter(|_| keyed.contains(&Some(call))));
    Some(program)
}

/// Allows the call to whoever shows the key, and goes on behind it for others. It takes as long whichever bits are wrong, so that nobody
/// finds them one after the other.
fn admit(key: Key, program: &mut Vec<Instruction>) {
    const WRONG: u32 = 0;
    let plain = |code, k| Instruction { code, jt: 0, jf: 0, k };
    program.extend([plain(code::LOAD_VALUE, 0), plain(code::STORE, WRONG)]);
    for (argument, word) in (2..).zip(key.words()) {
        for (at, bits) in [(data::low(argument), word as u32), (data::high(argument), (word >> 32) as u32)] {
            program.extend([load(at), plain(code::XOR, bits), plain(code::LOAD_STORED, WRONG)]);
            program.extend([plain(code::OR, 0), plain(code::STORE, WRONG)]);
        }
    }
    program.extend([skip(code::EQUAL, 0, 0, 1), say(answer::ALLOW)]);
}

fn load(at: u32) -> Instruction {
    Instruction { code: code::LOAD, jt: 0, jf: 0, k: at }
}

fn say(answer: u32) -> Instruction {
    Instruction { code: code::ANSWER, jt: 0, jf: 0, k: answer }
}

/// A comparison, and how many instructions are skipped when it holds and when not.
fn skip(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// Finds the call among these, with its number loaded; every way through it ends with an answer.
fn halve(calls: &[(u32, Vec<&Rule>)], program: &mut Vec<Instruction>, key: &dyn Fn(u32) -> Option<Key>) {
    match calls {
        [] => program.push(say(answer::ALLOW)),
        [(number, rules)] => {
            program.extend([skip(code::EQUAL, *number, 1, 0), say(answer::ALLOW)]);
            key(*number).into_iter().for_each(|key| admit(key, program));
            rules.iter().for_each(|rule| refuse(rule, program));
            if rules.iter().all(|rule| !rule.when.is_empty()) {
                program.push(say(answer::ALLOW));
            }
        }
        _ => {
            let (low, high) = calls.split_at(calls.len() / 2);
            // Comparisons skip 255 instructions at most, a jump as many as it likes.
            program.push(skip(code::AT_LEAST, high[0].0, 0, 1));
            let jump = program.len();
            program.push(say(0));
            halve(low, program, key);
            program[jump] =
                Instruction { code: code::JUMP, jt: 0, jf: 0, k: (program.len() - jump - 1) as u32 };
            halve(high, program, key);
        }
    }
}

/// Refuses the call when the rule holds, and goes on behind it when it does not.
fn refuse(rule: &Rule, program: &mut Vec<Instruction>) {
    if rule.when.is_empty() {
        program.push(say(rule.answer.code()));
    }
    for all in &rule.when {
        // Each part is two instructions, or three with a mask; whoever fails one leaves them all behind, and the answer too.
        let lengths: Vec<u8> = all.iter().map(|test| if test.mask == u32::MAX { 2 } else { 3 }).collect();
        for (at, test) in all.iter().enumerate() {
            let rest = lengths[at + 1..].iter().sum::<u8>() + 1;
            program.push(load(data::low(test.argument)));
            if test.mask != u32::MAX {
                program.push(Instruction { code: code::AND, jt: 0, jf: 0, k: test.mask });
            }
            program.push(match test.is {
                Is::Equal => skip(code::EQUAL, test.value, 0, rest),
                Is::Different => skip(code::EQUAL, test.value, rest, 0),
                Is::AnyBit => skip(code::ANY_BIT, test.value, 0, rest),
            });
        }
        program.push(say(rule.answer.code()));
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Answer::NotPermitted => "EPERM",
            Answer::Unknown => "ENOSYS",
            Answer::NoFamily => "EAFNOSUPPORT",
            Answer::Kill => "killed",
        })
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(name) => write!(f, "no call is called '{name}' that a filter here is written about"),
            Self::Argument(number) => write!(f, "argument {number}: a call has six, 0 to 5"),
            Self::Value(text) => {
                let known: Vec<_> = VALUES.iter().map(|(name, _)| *name).collect();
                write!(f, "'{text}' is no number, and no name that is known: {}", known.join(", "))
            }
            Self::Condition(calls) => {
                write!(
                    f,
                    "deny {}: an argument takes one of any, unless and bits, and they take an argument",
                    calls.join(", ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Profile;

    /// What the kernel would do: one call through the program.
    fn ask(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let word = |at: u32| match at {
            data::NUMBER => number,
            data::ARCHITECTURE => architecture,
            _ => {
                let (argument, half) = ((at - 16) / 8, (at - 16) % 8);
                let whole = arguments[argument as usize];
                if (half == 0) == cfg!(target_endian = "little") {
                    whole as u32
                } else {
                    (whole >> 32) as u32
                }
            }
        };
        let (mut at, mut accumulator, mut beside, mut stored) = (0, 0, 0, [0; 16]);
        loop {
            let Instruction { code: what, jt, jf, k } = program[at];
            at += 1;
            let mut does = || match what {
                code::LOAD => accumulator = word(k),
                code::LOAD_VALUE => accumulator = k,
                code::LOAD_STORED => beside = stored[k as usize],
                code::STORE => stored[k as usize] = accumulator,
                code::AND => accumulator &= k,
                code::OR => accumulator |= beside,
                code::XOR => accumulator ^= k,
                code::JUMP => at += k as usize,
                _ => unreachable!(),
            };
            use code::{AND, JUMP, LOAD, LOAD_STORED, LOAD_VALUE, OR, STORE, XOR};
            if [LOAD, LOAD_VALUE, LOAD_STORED, STORE, AND, OR, XOR, JUMP].contains(&what) {
                does();
                continue;
            }
            let holds = match what {
                code::ANSWER => return k,
                code::EQUAL => accumulator == k,
                code::AT_LEAST => accumulator >= k,
                code::ANY_BIT => accumulator & k != 0,
                other => panic!("no such code: {other:#x}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    const HERE: u32 = seccomp::ARCHITECTURE.unwrap();

    /// The rules as they are meant, without a program.
    fn meant(rules: &[Rule], number: u32, arguments: [u64; 6]) -> u32 {
        let holds = |test: &Test| {
            let word = arguments[test.argument as usize] as u32 & test.mask;
            match test.is {
                Is::Equal => word == test.value,
                Is::Different => word != test.value,
                Is::AnyBit => word & test.value != 0,
            }
        };
        let refuses = |rule: &&Rule| {
            rule.call == number && (rule.when.is_empty() || rule.when.iter().any(|all| all.iter().all(holds)))
        };
        rules.iter().find(refuses).map_or(answer::ALLOW, |rule| rule.answer.code())
    }

    #[test]
    fn the_program_of_each_profile_says_what_its_lines_mean_for_every_call() {
        for name in ["guarded", "sealed"] {
            let profile = Profile::named(name).unwrap();
            let rules: Vec<_> = profile.denials.iter().flat_map(|denial| denial.rules(&[])).collect();
            let program = compile(&rules, None).unwrap();
            assert!(program.len() < seccomp::LONGEST);
            let words = [0, 1, 2, 0x5412, 0x541c, 0xffff_ffff, 0x1000_0000, 0x7fff_ffff, 0x0002_0011];
            for number in 0..600 {
                for word in words {
                    // Whatever stands in the high half changes nothing.
                    for high in [0, 0xdead_0000_0000] {
                        let arguments = [word | high; 6];
                        let (told, wanted) =
                            (ask(&program, HERE, number, arguments), meant(&rules, number, arguments));
                        assert_eq!(told, wanted, "{name}: call {number} with {word:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn calls_of_another_architecture_end_the_process_and_those_of_x32_are_unknown() {
        let program = compile(&[], None).unwrap();
        assert_eq!(ask(&program, HERE, 0, [0; 6]), answer::ALLOW);
        assert_eq!(ask(&program, 0x4000_0003, 0, [0; 6]), answer::KILL, "i386");
        if let Some(x32) = seccomp::X32 {
            assert_eq!(ask(&program, HERE, x32, [0; 6]), answer::fail(38));
            assert_eq!(ask(&program, HERE, u32::MAX, [0; 6]), answer::fail(38));
            assert_eq!(ask(&program, HERE, x32 - 1, [0; 6]), answer::ALLOW);
        }
    }

    #[test]
    fn whoever_has_the_key_may_bear_children_and_whoever_lacks_one_bit_of_it_may_not() {
        let profile = Profile::named("sealed").unwrap();
        let rules: Vec<_> = profile.denials.iter().flat_map(|denial| denial.rules(&[])).collect();
        let key = Key::new().unwrap();
        let program = compile(&rules, Some(key)).unwrap();
        let [first, second] = key.words();
        let [clone3, setns, unshare] =
            ["clone3", "setns", "unshare"].map(|name| seccomp::number(name).unwrap());
        for call in [clone3, setns] {
            let with = |third, fourth| ask(&program, HERE, call, [7, 9, third, fourth, 11, 13]);
            assert_eq!(with(first, second), answer::ALLOW);
            let refused = meant(&rules, call, [0; 6]);
            assert_ne!(refused, answer::ALLOW);
            for bit in 0..64 {
                assert_eq!(with(first ^ 1 << bit, second), refused, "bit {bit} of the first word");
                assert_eq!(with(first, second ^ 1 << bit), refused, "bit {bit} of the second word");
            }
            assert_eq!(with(second, first), refused);
        }
        let arguments = [7, 9, first, second, 11, 13];
        assert_eq!(ask(&program, HERE, unshare, arguments), meant(&rules, unshare, arguments));
    }

    #[test]
    fn a_watched_program_asks_before_it_kills_and_lets_nobody_else_be_asked() {
        let profile = Profile::named("guarded").unwrap();
        let rules: Vec<_> = profile.denials.iter().flat_map(|denial| denial.rules(&[])).collect();
        let program = compile(&rules, None).unwrap();
        let asking = watched(&program);
        for number in (0..600).filter(|number| *number != seccomp::SECCOMP) {
            for word in [0, 1, 0x5412, 0x0002_0011, u64::MAX] {
                let plain = ask(&program, HERE, number, [word; 6]);
                let wanted = if plain == answer::KILL { answer::ASK } else { plain };
                assert_eq!(ask(&asking, HERE, number, [word; 6]), wanted, "call {number} with {word:#x}");
            }
        }
        assert_eq!(ask(&asking, 0x4000_0003, 20, [0; 6]), answer::ASK);
        let told = |flags| ask(&asking, HERE, seccomp::SECCOMP, [1, flags, 0, 0, 0, 0]);
        for flags in [0, 1, 4, 1 << 5, 0xdead_0000_0000] {
            assert_eq!(told(flags), answer::ALLOW, "{flags:#x}");
        }
        for flags in [8, 9, 8 | 1 << 5, 8 | 0xdead_0000_0000] {
            assert_eq!(told(flags), answer::fail(16), "{flags:#x}");
        }
    }

    #[test]
    fn several_rules_and_masks_of_one_call_are_asked_in_their_order() {
        let (first, second) = (
            Rule {
                call: 41,
                when: vec![vec![
                    Test::new(0, Is::Equal, 2),
                    Test::new(1, Is::Different, 1).of_bits(0xf),
                    Test::new(2, Is::Different, 6),
                ]],
                answer: Answer::NoFamily,
            },
            Rule {
                call: 41,
                when: vec![vec![Test::new(0, Is::Different, 2)], vec![Test::new(2, Is::AnyBit, 0x100)]],
                answer: Answer::NotPermitted,
            },
        );
        let rules = [first, second];
        let program = compile(&rules, None).unwrap();
        for family in [1, 2, 3] {
            for kind in [1, 2, 0x80001, 0x80002] {
                for protocol in [0, 6, 0x106] {
                    let arguments = [family, kind, protocol, 0, 0, 0];
                    assert_eq!(
                        ask(&program, HERE, 41, arguments),
                        meant(&rules, 41, arguments),
                        "{arguments:x?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_opened_is_not_refused() {
        let denial = &Profile::named("guarded").unwrap().denials[0];
        let all = denial.rules(&[]).len();
        assert_eq!(denial.rules(&["io_uring_setup".into()]).len(), all - 1);
    }
}
