//! Who may come in, and what differs for them: rules, and the text that an operator writes them in (tine(8), RULES).
//!
//! The rule with the most to say about a client decides, as in tcprules(1), not the first: the order of lines means
//! nothing, and a look-up does not become slow with many. All but the end of this file is pure; the names of users are asked
//! of whoever calls. Nothing is opened or started here: whether a rule's program is there is for others to see.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::{error, fmt};

use tine_os::socket::Addr;

use super::prefix::{Networks, Prefix};
use super::span::Rate;
use crate::peer::Peer;

/// Whom a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Who {
    /// Everybody for whom there is no other rule: `all`.
    All,
    /// Clients of IPv4 or IPv6 with an address in this network; of several the smallest decides: `10.0.0.0/8`.
    Network(Prefix),
    /// Clients of Unix sockets who are this user, by number: `user:1000`, `user:alice`.
    User(u32),
    /// All other clients of Unix sockets, those of unknown user too: `unix`, `user:all`.
    Unix,
    /// Clients of vsock from the machine with this context identifier: `vsock:3`.
    Machine(u32),
}

/// Whether somebody may come in, and what differs for them from what holds for all.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Whether they may. If not, nothing but `message` and `line` has a meaning.
    pub allow: bool,
    /// What those are told who may not, before the connection ends.
    pub message: Option<String>,
    /// How many children one source among them may have, in place of what holds for all: 1 to [`CHILDREN_MOST`].
    pub children: Option<u32>,
    /// How fast the clients of one source among them may come, in place of what holds for all.
    pub rate: Option<Rate>,
    /// Whether they earn no penalties.
    pub exempt: bool,
    /// Variables for their program, by name, in the order of the text.
    pub env: Vec<(String, String)>,
    /// Their own program, by path or name, and its arguments: never empty.
    pub exec: Option<Vec<String>>,
    /// The line of the text that the rule stands in, from 1; 0 when it stands in none.
    pub line: u32,
}

/// Which of the rules. It means nothing to rules that were read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(u32);

/// Who may come in. The default has no rule, so everybody may. A copy shares what it is a copy of, until one of them changes.
#[derive(Clone, Debug, Default)]
pub struct Rules(Arc<Book>);

#[derive(Clone, Debug, Default)]
struct Book {
    rules: Vec<(Who, Rule)>,
    networks: Networks<RuleId>,
    users: BTreeMap<u32, RuleId>,
    unix: Option<RuleId>,
    machines: BTreeMap<u32, RuleId>,
    all: Option<RuleId>,
}

/// Why rules cannot be used: which, where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The file, of rules that were read from one.
    pub path: Option<PathBuf>,
    /// The line, from 1; 0 when it is none in particular.
    pub line: u32,
    /// What is wrong.
    pub what: String,
}

/// The most rules that there may be. So many take some 200 MiB.
pub const RULES_MOST: usize = 1_000_000;

/// The longest line, in bytes without its end.
pub const LINE_MOST: usize = 4096;

/// The longest message, in bytes, escapes resolved.
pub const MESSAGE_MOST: usize = 512;

/// The largest file, in bytes.
pub const FILE_MOST: u64 = 100 * 1024 * 1024;

/// The most children that a rule can allow: more processes than any Linux has, PID_MAX_LIMIT in proc_sys_kernel(5).
pub const CHILDREN_MOST: u32 = 4_194_304;

impl Who {
    /// Reads what stands after `allow` or `deny`; `users` knows the numbers of users by name.
    ///
    /// # Errors
    /// What was found, and what would be right.
    pub fn parse(text: &str, users: &dyn Fn(&str) -> Option<u32>) -> Result<Who, String> {
        match text {
            "all" => return Ok(Who::All),
            "unix" | "user:all" => return Ok(Who::Unix),
            _ => {}
        }
        if let Some(user) = text.strip_prefix("user:") {
            return parse_user(user, users).map(Who::User);
        }
        if let Some(cid) = text.strip_prefix("vsock:") {
            // u32::MAX is no machine but any: VMADDR_CID_ANY in vsock(7).
            let cid = number(cid).filter(|cid| *cid != u32::MAX);
            let form =
                || format!("'{}': a machine's context identifier follows 'vsock:', a number", shown(text));
            return cid.map(Who::Machine).ok_or_else(form);
        }
        if text.contains(['.', ':', '/']) {
            return text.parse().map(Who::Network);
        }
        Err(format!("'{}' is nobody: it is {WHO}", shown(text)))
    }
}

impl Rule {
    /// Those may come in, as everybody may.
    pub fn allow() -> Rule {
        Rule {
            allow: true,
            message: None,
            children: None,
            rate: None,
            exempt: false,
            env: Vec::new(),
            exec: None,
            line: 0,
        }
    }

    /// Those may not come in.
    pub fn deny() -> Rule {
        Rule { allow: false, ..Rule::allow() }
    }
}

impl Rules {
    /// Reads the text of rules; `users` knows the numbers of users by name.
    ///
    /// # Errors
    /// The first line that is no rule, and why.
    pub fn parse(text: &str, users: &dyn Fn(&str) -> Option<u32>) -> Result<Rules, RuleError> {
        let mut rules = Rules::default();
        for (line, text) in (1..).zip(text.lines()) {
            let fail = |what| RuleError { path: None, line, what };
            if let Some((written, who, rule)) = parse_line(text, users).map_err(fail)? {
                rules.insert(who, Rule { line, ..rule }, written).map_err(fail)?;
            }
        }
        Ok(rules)
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// When there is one about the same clients already, when there are [`RULES_MOST`], and when the rule contradicts
    /// itself or goes beyond what [`Rule`] says. The rules are then what they were.
    pub fn add(&mut self, who: Who, rule: Rule) -> Result<(), RuleError> {
        let line = rule.line;
        self.insert(who, rule, &who.to_string()).map_err(|what| RuleError { path: None, line, what })
    }

    /// These rules and others.
    ///
    /// # Errors
    /// When both have one about the same clients, or there are more than [`RULES_MOST`] in all; with the line of the other
    /// one.
    pub fn and(mut self, others: &Rules) -> Result<Rules, RuleError> {
        others.iter().try_for_each(|(who, rule)| self.add(who, rule.clone()))?;
        Ok(self)
    }

    /// The rule that decides about a client; without one the client may come in.
    ///
    /// An IPv6 address that is a mapped IPv4 one counts as that. The user of a Unix socket's client is the one that the
    /// kernel noted when it connected.
    pub fn of(&self, peer: &Peer) -> Option<(RuleId, &Rule)> {
        let about = match &peer.addr {
            Addr::Inet(addr) => self.0.networks.longest(addr.ip()),
            Addr::Vsock { cid, .. } => self.0.machines.get(cid),
            Addr::Path(_) | Addr::Abstract(_) | Addr::Unnamed => {
                let user = peer.credentials.and_then(|who| self.0.users.get(&who.uid));
                user.or(self.0.unix.as_ref())
            }
            _ => None,
        };
        let id = *about.or(self.0.all.as_ref())?;
        Some((id, self.rule(id)?))
    }

    /// The rule of this id.
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.0.rules.get(id.0 as usize).map(|(_, rule)| rule)
    }

    /// Whom the rule of this id is about; no other rule is about the same.
    pub fn who(&self, id: RuleId) -> Option<Who> {
        self.0.rules.get(id.0 as usize).map(|(who, _)| *who)
    }

    /// All rules and whom they are about, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (Who, &Rule)> {
        self.0.rules.iter().map(|(who, rule)| (*who, rule))
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.0.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.rules.is_empty()
    }

    /// Adds a rule about those who were written so.
    fn insert(&mut self, who: Who, rule: Rule, written: &str) -> Result<(), String> {
        check(&rule)?;
        if let Some(first) = self.about(&who).and_then(|id| self.rule(id)) {
            return Err(twice(&who, written, first.line));
        }
        if self.0.rules.len() >= RULES_MOST {
            return Err(format!("there are more than {RULES_MOST} rules"));
        }
        let id = RuleId(self.0.rules.len() as u32);
        let book = Arc::make_mut(&mut self.0);
        book.rules.push((who, rule));
        match who {
            Who::All => book.all = Some(id),
            Who::Network(prefix) => book.networks.insert(prefix, id),
            Who::User(uid) => drop(book.users.insert(uid, id)),
            Who::Unix => book.unix = Some(id),
            Who::Machine(cid) => drop(book.machines.insert(cid, id)),
        }
        Ok(())
    }

    /// The rule about exactly these.
    pub(crate) fn about(&self, who: &Who) -> Option<RuleId> {
        match who {
            Who::All => self.0.all,
            Who::Network(prefix) => self.0.networks.get(prefix).copied(),
            Who::User(uid) => self.0.users.get(uid).copied(),
            Who::Unix => self.0.unix,
            Who::Machine(cid) => self.0.machines.get(cid).copied(),
        }
    }
}

fn twice(who: &Who, written: &str, line: u32) -> String {
    let is = if who.to_string() == written { String::new() } else { format!(" is {who}, which") };
    let place = if line == 0 { "one that no file has".into() } else { format!("in line {line}") };
    format!("'{written}'{is} has a rule already, {place}")
}

/// Whether a rule says what can be done.
fn check(rule: &Rule) -> Result<(), String> {
    if rule.allow && rule.message.is_some() {
        return Err("a message is for those who are denied".into());
    }
    let options = [
        ("children", rule.children.is_some()),
        ("rate", rule.rate.is_some()),
        ("exempt", rule.exempt),
        ("env", !rule.env.is_empty()),
        ("exec", rule.exec.is_some()),
    ];
    if let Some((name, _)) = options.iter().find(|(_, given)| *given && !rule.allow) {
        return Err(format!("{name} means nothing for those who are denied; a deny can have a message"));
    }
    rule.message.as_deref().map_or(Ok(()), check_message)?;
    if rule.children.is_some_and(|children| !(1..=CHILDREN_MOST).contains(&children)) {
        return Err(format!("children is a number from 1 to {CHILDREN_MOST}; who may have none is denied"));
    }
    if rule.rate.is_some_and(|rate| rate.count == 0 || rate.burst == 0 || rate.per.is_zero()) {
        return Err("a rate of 0 lets nobody in; who may not come in is denied".into());
    }
    check_env(&rule.env)?;
    rule.exec.as_deref().map_or(Ok(()), check_exec)
}

fn check_message(message: &str) -> Result<(), String> {
    let strange = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    match message.len() {
        0 => Err("the message is empty; without one those who are denied are told nothing".into()),
        n if n > MESSAGE_MOST => Err(format!("a message has at most {MESSAGE_MOST} bytes, this one {n}")),
        _ if message.contains(strange) => Err("there is a control character in the message".into()),
        _ => Ok(()),
    }
}

fn check_env(env: &[(String, String)]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for (name, value) in env {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(fits) {
            let name = shown(name);
            return Err(format!(
                "'{name}' is no name of a variable: letters, digits and _, not a digit first"
            ));
        }
        if value.contains('\0') {
            return Err(format!("env.{name}: a variable cannot have a NUL character"));
        }
        if !names.insert(name) {
            return Err(format!("env.{name} is given twice"));
        }
    }
    Ok(())
}

fn check_exec(words: &[String]) -> Result<(), String> {
    match words.first() {
        Some(program) if !program.is_empty() => {}
        _ => return Err("exec names no program".into()),
    }
    let nul = words.iter().any(|word| word.contains('\0'));
    if nul { Err("exec: an argument cannot have a NUL character".into()) } else { Ok(()) }
}

/// As it is read, users by number.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::All => f.write_str("all"),
            Who::Network(prefix) => prefix.fmt(f),
            Who::User(uid) => write!(f, "user:{uid}"),
            Who::Unix => f.write_str("unix"),
            Who::Machine(cid) => write!(f, "vsock:{cid}"),
        }
    }
}

impl RuleError {
    /// The same, with the file that it is about.
    pub fn at(self, path: impl Into<PathBuf>) -> RuleError {
        RuleError { path: Some(path.into()), ..self }
    }
}

/// `rules /etc/x line 3: ...`, without what is not known; of a rule that stands nowhere only what is wrong.
impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match (&self.path, self.line) {
            (None, 0) => return f.write_str(&self.what),
            (None, line) => format!("line {line}"),
            (Some(path), 0) => path.display().to_string(),
            (Some(path), line) => format!("{} line {line}", path.display()),
        };
        write!(f, "rules {place}: {}", self.what)
    }
}

impl error::Error for RuleError {}

/// A word of a line: `exempt`, `children=10`, `message="Not you."`.
struct Word<'a> {
    /// As it is written.
    text: &'a str,
    /// What is before the first `=`.
    name: &'a str,
    /// What is after it, quotes resolved; none when there is nothing.
    value: Option<String>,
}

const BLANKS: [char; 2] = [' ', '\t'];

const WHO: &str = "a network (192.0.2.0/24), an address, user:NAME, user:UID, unix, vsock:CID or all";

/// The options of a rule, each with an example.
const OPTIONS: [(&str, &str); 6] = [
    ("children", "children=10"),
    ("rate", "rate=5/s:20"),
    ("exempt", "exempt"),
    ("message", "message=\"Not from there.\""),
    ("env.NAME", "env.NAME=\"value\""),
    ("exec", "exec=\"/usr/bin/program argument\""),
];

/// A line's rule and whom it is about, as written and as understood; none when it is blank or only a comment.
fn parse_line<'a>(
    line: &'a str,
    users: &dyn Fn(&str) -> Option<u32>,
) -> Result<Option<(&'a str, Who, Rule)>, String> {
    if line.len() > LINE_MOST {
        return Err(format!("a line has at most {LINE_MOST} bytes, this one {}", line.len()));
    }
    if let Some(strange) = line.chars().find(|c| c.is_control() && *c != '\t') {
        return Err(format!("there is a control character, U+{:04X}", u32::from(strange)));
    }
    let Some((verb, rest)) = next_word(line)? else {
        return Ok(None);
    };
    let mut rule = match verb.text {
        "allow" => Rule::allow(),
        "deny" => Rule::deny(),
        other => return Err(format!("a rule begins with allow or deny, not '{}'", shown(other))),
    };
    let Some((who, mut rest)) = next_word(rest)? else {
        return Err(format!("nobody follows '{}': {WHO}", verb.text));
    };
    let written = who.text;
    let who = Who::parse(written, users)?;
    while let Some((word, after)) = next_word(rest)? {
        set_option(&mut rule, word)?;
        rest = after;
    }
    Ok(Some((written, who, rule)))
}

fn parse_user(user: &str, users: &dyn Fn(&str) -> Option<u32>) -> Result<u32, String> {
    if user.is_empty() {
        return Err("a user's name or number follows 'user:'".into());
    }
    if user.bytes().all(|byte| byte.is_ascii_digit()) {
        // u32::MAX is no user but "leave it as it is": setreuid(2).
        let uid = number(user).filter(|uid| *uid != u32::MAX);
        return uid.ok_or_else(|| format!("'user:{}': users have numbers from 0 to 4294967294", shown(user)));
    }
    users(user).ok_or_else(|| format!("there is no user '{}'", shown(user)))
}

fn set_option(rule: &mut Rule, word: Word<'_>) -> Result<(), String> {
    let variable = word.name.strip_prefix("env.");
    let name = if variable.is_some() { "env.NAME" } else { word.name };
    let Some((_, example)) = OPTIONS.iter().find(|(known, _)| *known == name) else {
        let names = OPTIONS.map(|(known, _)| known).join(", ");
        return Err(format!("'{}' is no option of a rule; there are {names}", shown(word.name)));
    };
    if name == "exempt" {
        return set_exempt(rule, word.text);
    }
    let Some(value) = word.value else {
        return Err(format!("{} has no value: it is as in {example}", shown(word.name)));
    };
    match name {
        "children" => {
            let form = || format!("children={}: it is a number from 1 to {CHILDREN_MOST}", shown(&value));
            once(&mut rule.children, number(&value).ok_or_else(form)?, name)
        }
        "rate" => once(&mut rule.rate, value.parse()?, name),
        "message" => once(&mut rule.message, value, name),
        "exec" => once(&mut rule.exec, split(&value)?, name),
        _ => {
            rule.env.push((variable.unwrap_or_default().to_owned(), value));
            Ok(())
        }
    }
}

fn set_exempt(rule: &mut Rule, text: &str) -> Result<(), String> {
    if text != "exempt" {
        return Err("exempt has no value: it is there or it is not".into());
    }
    if rule.exempt {
        return Err("exempt is given twice".into());
    }
    rule.exempt = true;
    Ok(())
}

fn once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), String> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("{name} is given twice")),
    }
}

/// The next word, and what follows it; none where there are only blanks or a comment.
fn next_word(line: &str) -> Result<Option<(Word<'_>, &str)>, String> {
    let line = line.trim_start_matches(BLANKS);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(['=', ' ', '\t']).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let (value, rest) = match rest.strip_prefix('=') {
        None => (None, rest),
        Some(value) => match value.strip_prefix('"') {
            None => bare(name, value)?,
            Some(value) => quoted(name, value)?,
        },
    };
    let text = &line[..line.len() - rest.len()];
    Ok(Some((Word { text, name, value }, rest)))
}

/// A value without quotes, and what follows it. What looks as if it were to be read otherwise than it stands is refused.
fn bare<'a>(name: &str, text: &'a str) -> Result<(Option<String>, &'a str), String> {
    let (value, rest) = text.split_at(text.find(BLANKS).unwrap_or(text.len()));
    if value.contains(['"', '\\']) || value.starts_with('\'') {
        return Err(format!("{}={}: such a value is written in double quotes", shown(name), shown(value)));
    }
    Ok(((!value.is_empty()).then(|| value.to_owned()), rest))
}

/// A value whose opening quote was read, and what follows its closing one.
fn quoted<'a>(name: &str, text: &'a str) -> Result<(Option<String>, &'a str), String> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                let rest = chars.as_str();
                return match rest.chars().next() {
                    None | Some(' ' | '\t') => Ok((Some(value), rest)),
                    Some(_) => Err(format!("{}: a blank follows the closing quote", shown(name))),
                };
            }
            '\\' => value.push(escape(name, chars.next())?),
            other => value.push(other),
        }
    }
    Err(format!("{}: the closing quote is missing", shown(name)))
}

/// What a backslash and a character stand for.
fn escape(name: &str, c: Option<char>) -> Result<char, String> {
    match c {
        Some(c @ ('"' | '\\')) => Ok(c),
        Some('n') if name == "message" => Ok('\n'),
        Some('r') if name == "message" => Ok('\r'),
        Some(c) => {
            let more = if name == "message" { r", \n and \r" } else { "" };
            let c = shown(c.encode_utf8(&mut [0; 4])).into_owned();
            Err(format!(r#"{}: '\{c}' is no escape; there are \" and \\{more}"#, shown(name)))
        }
        None => Err(format!("{}: the closing quote is missing", shown(name))),
    }
}

/// The words of a command, as a shell reads them that expands nothing: blanks part them, quotes of both kinds hold them
/// together.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match c {
            '\\' if quote != Some('\'') => {
                return Err("exec: a backslash stands only in single quotes, where it is itself".into());
            }
            _ if quote == Some(c) => quote = None,
            _ if quote.is_some() => word.get_or_insert_default().push(c),
            '\'' | '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ' ' | '\t' => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.map_or(Ok(words), |quote| Err(format!("exec: the closing {quote} is missing")))
}

fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// What was found, so that it can be seen: not too long, and nothing invisible.
fn shown(text: &str) -> Cow<'_, str> {
    let plain = |c: char| c == ' ' || c.is_ascii_graphic();
    if text.len() <= SHOWN_MOST && text.chars().all(plain) {
        return text.into();
    }
    let mut shown = String::new();
    for (i, c) in text.chars().enumerate() {
        match c {
            _ if i == SHOWN_MOST => return format!("{shown}...").into(),
            _ if plain(c) => shown.push(c),
            _ => shown.extend(c.escape_debug()),
        }
    }
    shown.into()
}

/// How many characters of a mistake are shown.
const SHOWN_MOST: usize = 60;

// From here on the system is asked: for users by name, and for the file.

/// Users are looked up in the user database of this machine.
impl FromStr for Rules {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Rules, RuleError> {
        Rules::parse(text, &|name| uzers::get_user_by_name(name).map(|user| user.uid()))
    }
}

impl Rules {
    /// As [`Rules::read`], with what other processes need to come to the same rules.
    ///
    /// # Errors
    /// As [`Rules::read`].
    pub(crate) fn read_whole(path: &Path) -> Result<(Rules, Written), RuleError> {
        let whole = |what| RuleError { path: None, line: 0, what };
        let read = || {
            let bytes = read_bytes(path).map_err(whole)?;
            let (text, users) = (text(&bytes)?.to_owned(), RefCell::new(BTreeMap::new()));
            let rules = Rules::parse(&text, &|name| {
                let uid = uzers::get_user_by_name(name).map(|user| user.uid());
                users.borrow_mut().extend(uid.map(|uid| (name.to_owned(), uid)));
                uid
            })?;
            Ok((rules, Written { users: users.into_inner(), text }))
        };
        read().map_err(|why: RuleError| why.at(path))
    }

    /// Reads a file of rules; users are looked up in the user database of this machine.
    ///
    /// # Errors
    /// What is no regular file, which is told without waiting for it; more than [`FILE_MOST`] bytes; what is not UTF-8;
    /// the first line that is no rule; what open(2) and read(2) say. With the path, whatever it is.
    pub fn read(path: impl AsRef<Path>) -> Result<Rules, RuleError> {
        let whole = |what| RuleError { path: None, line: 0, what };
        let bytes = read_bytes(path.as_ref()).map_err(whole);
        let rules = bytes.and_then(|bytes| text(&bytes).and_then(Rules::from_str));
        rules.map_err(|why| why.at(path.as_ref()))
    }
}

/// The text of a file of rules, and the users that it names as they were when it was read: whoever reads this comes to the
/// same rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    users: BTreeMap<String, u32>,
    text: String,
}

impl Written {
    /// What they say.
    ///
    /// # Errors
    /// For what is no text of rules.
    pub(crate) fn rules(&self) -> Result<Rules, RuleError> {
        Rules::parse(&self.text, &|name| self.users.get(name).copied())
    }

    /// A line for each user, an empty one, and the text.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let users: String = self.users.iter().map(|(name, uid)| format!("{uid} {name}\n")).collect();
        format!("{users}\n{}", self.text).into_bytes()
    }

    /// Reads [`Written::to_bytes`] back.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Written> {
        let mut rest = str::from_utf8(bytes).ok()?;
        let mut users = BTreeMap::new();
        loop {
            let (line, text) = rest.split_once('\n')?;
            if line.is_empty() {
                return Some(Written { users, text: text.to_owned() });
            }
            let (uid, name) = line.split_once(' ')?;
            users.insert(name.to_owned(), uid.parse().ok()?);
            rest = text;
        }
    }
}

/// O_NONBLOCK of open(2), without which opening a FIFO waits for a writer. (On the few architectures where it has another
/// number this one does nothing to a file that exists, and the look before is what keeps FIFOs out.)
const O_NONBLOCK: i32 = 0o4000;

fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    let plain = |error: io::Error| tine_os::plain(&error);
    // Looked at before, since merely opening a device can do something; and after, since it may be another by then.
    must_be_regular(&fs::metadata(path).map_err(plain)?)?;
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).map_err(plain)?;
    must_be_regular(&file.metadata().map_err(plain)?)?;
    let mut bytes = Vec::new();
    File::take(file, FILE_MOST + 1).read_to_end(&mut bytes).map_err(plain)?;
    must_fit(bytes.len() as u64)?;
    Ok(bytes)
}

fn must_be_regular(found: &Metadata) -> Result<(), String> {
    let kind = found.file_type();
    let what = match () {
        () if kind.is_file() => return must_fit(found.len()),
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(format!("it is {what}; rules are read from a regular file"))
}

fn must_fit(bytes: u64) -> Result<(), String> {
    let most = FILE_MOST / (1024 * 1024);
    if bytes <= FILE_MOST { Ok(()) } else { Err(format!("it has more than {most} MiB")) }
}

fn text(bytes: &[u8]) -> Result<&str, RuleError> {
    str::from_utf8(bytes).map_err(|why| {
        let before = &bytes[..why.valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
        let at = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        RuleError { path: None, line, what: format!("it is not UTF-8 from its byte {at} on") }
    })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use tine_os::identity::Credentials;

    use super::super::prefix::tests::{COMPARISONS, is_in, near, some_ip, some_prefix};
    use super::*;

    fn parse(text: &str) -> Result<Rules, RuleError> {
        Rules::parse(text, &|name| (name == "alice").then_some(1000))
    }

    /// What is wrong with rules, with the line.
    fn error(text: &str) -> String {
        parse(text).expect_err(text).to_string()
    }

    fn inet(ip: IpAddr) -> Peer {
        Peer { addr: Addr::Inet(SocketAddr::new(ip, 5023)), credentials: None }
    }

    fn unix(uid: u32) -> Peer {
        Peer { addr: Addr::Unnamed, credentials: Some(Credentials { pid: 77, uid, gid: 1 }) }
    }

    fn vsock(cid: u32) -> Peer {
        Peer { addr: Addr::Vsock { cid, port: 1024 }, credentials: None }
    }

    /// `10.1.2.3`, `user:7`, `vsock:3`, `?` for somebody who is unknown at a Unix socket.
    fn peer(text: &str) -> Peer {
        if let Some(uid) = text.strip_prefix("user:") {
            return unix(uid.parse().unwrap());
        }
        if let Some(cid) = text.strip_prefix("vsock:") {
            return vsock(cid.parse().unwrap());
        }
        if text == "?" {
            return Peer { addr: Addr::Unnamed, credentials: None };
        }
        inet(text.parse().unwrap())
    }

    /// The line of the rule that decides; 0 when there is none.
    fn line(rules: &Rules, peer: &Peer) -> u32 {
        rules.of(peer).map_or(0, |(id, rule)| {
            assert_eq!(rules.rule(id), Some(rule));
            assert_eq!(rules.about(&rules.who(id).unwrap()), Some(id));
            rule.line
        })
    }

    const EXAMPLE: &str = r#"
# who comes in            what differs for them
deny  192.0.2.0/24        message="Not from there."
allow 10.0.0.0/8          children=10 rate=5/s:20
allow 10.1.2.3            env.GREETING=hello exec="/usr/bin/vip --verbose"     # another program for this one
allow user:alice          exempt
allow user:1001
deny  user:all            # = unix
allow vsock:3
deny  all
"#;

    #[test]
    fn rules_are_read_as_they_are_written() {
        let rules = parse(EXAMPLE).unwrap();
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let rate = Rate { count: 5, per: Duration::from_secs(1), burst: 20 };
        let wanted = [
            Rule { message: Some("Not from there.".into()), line: 3, ..Rule::deny() },
            Rule { children: Some(10), rate: Some(rate), line: 4, ..Rule::allow() },
            Rule {
                env: vec![("GREETING".into(), "hello".into())],
                exec: Some(words(&["/usr/bin/vip", "--verbose"])),
                line: 5,
                ..Rule::allow()
            },
            Rule { exempt: true, line: 6, ..Rule::allow() },
            Rule { line: 7, ..Rule::allow() },
            Rule { line: 8, ..Rule::deny() },
            Rule { line: 9, ..Rule::allow() },
            Rule { line: 10, ..Rule::deny() },
        ];
        assert!(rules.iter().map(|(_, rule)| rule).eq(&wanted));
        assert_eq!((rules.len(), rules.is_empty()), (8, false));
        for (who, decides) in [
            ("192.0.2.7", 3),
            ("::ffff:192.0.2.7", 3),
            ("192.0.3.7", 10),
            ("10.255.0.1", 4),
            ("10.1.2.3", 5),
            ("::ffff:10.1.2.3", 5),
            ("::ffff:10.1.2.4", 4),
            ("2001:db8::1", 10),
            ("user:1000", 6),
            ("user:1001", 7),
            ("user:0", 8),
            ("?", 8),
            ("vsock:3", 9),
            ("vsock:4", 10),
        ] {
            assert_eq!(line(&rules, &peer(who)), decides, "{who}");
        }
    }

    #[test]
    fn without_a_rule_everybody_may_come_in() {
        let none = parse("\n# nobody\n   \t\r\n").unwrap();
        assert!(none.is_empty() && Rules::default().is_empty());
        let few = parse("deny 10.0.0.0/8\ndeny user:1\ndeny vsock:1").unwrap();
        for who in ["11.0.0.1", "::1", "user:2", "?", "vsock:2"] {
            assert_eq!([&none, &few].map(|rules| line(rules, &peer(who))), [0, 0], "{who}");
        }
        let named = Peer { addr: Addr::Path("/run/x".into()), credentials: None };
        let hidden = Peer { addr: Addr::Abstract(b"x".to_vec()), credentials: None };
        assert_eq!([&named, &hidden].map(|peer| line(&parse("deny unix").unwrap(), peer)), [1, 1]);
    }

    #[test]
    fn a_unix_client_is_its_user_whatever_name_its_socket_has() {
        let rules = parse("deny user:1\nallow unix").unwrap();
        for addr in [Addr::Unnamed, Addr::Path("/run/x".into()), Addr::Abstract(b"x".to_vec())] {
            let client = |uid| Peer { addr: addr.clone(), credentials: unix(uid).credentials };
            assert_eq!([1, 2].map(|uid| line(&rules, &client(uid))), [1, 2], "{addr:?}");
        }
    }

    #[test]
    fn values_may_be_quoted_and_commands_are_split() {
        let read = |text: &str| parse(text).unwrap().0.rules[0].1.clone();
        let message = |text: &str| read(&format!("deny all message={text}")).message.unwrap();
        for (text, wanted) in [
            ("no", "no"),
            ("no#x=y", "no#x=y"),
            ("\"no\"", "no"),
            ("\"no # no\" # comment", "no # no"),
            (r#""a \"b\" \\ c\r\n""#, "a \"b\" \\ c\r\n"),
            ("\"naïve\t東京\"", "naïve\t東京"),
            ("it's", "it's"),
        ] {
            assert_eq!(message(text), wanted, "{text}");
        }
        let exec = |text: &str| read(&format!("allow all exec={text}")).exec.unwrap();
        for (text, wanted) in [
            ("prog", vec!["prog"]),
            ("\"prog\"", vec!["prog"]),
            ("\"  prog  a\tb \"", vec!["prog", "a", "b"]),
            ("\"prog arg 'with blank'\"", vec!["prog", "arg", "with blank"]),
            (r#""prog \"it's\" '\"' ''""#, vec!["prog", "it's", "\"", ""]),
            (r#""prog 'a\\b' --x='c d'e""#, vec!["prog", "a\\b", "--x=c de"]),
            ("\"prog $HOME *\"", vec!["prog", "$HOME", "*"]),
        ] {
            assert_eq!(exec(text), wanted, "{text}");
        }
        let rule = read("allow all env.A=b=c env._1=\"\" children=\"3\" exempt\trate=1/h");
        assert_eq!(rule.env, [("A".into(), "b=c".into()), ("_1".into(), String::new())]);
        assert_eq!((rule.children, rule.exempt, rule.rate), (Some(3), true, Some("1/h".parse().unwrap())));
        assert_eq!(read("allow all env.NAME=x").env, [("NAME".into(), "x".into())]);
    }

    #[test]
    fn what_is_no_rule_is_refused_with_what_would_be_right() {
        let long = "x".repeat(100);
        let cut = format!("{}...", "x".repeat(60));
        for (rule, what) in [
            // The words.
            ("permit all", "a rule begins with allow or deny, not 'permit'"),
            ("ALLOW all", "a rule begins with allow or deny, not 'ALLOW'"),
            ("allow= all", "a rule begins with allow or deny, not 'allow='"),
            ("\u{feff}allow all", "a rule begins with allow or deny, not '\\u{feff}allow'"),
            (&long, &format!("a rule begins with allow or deny, not '{cut}'")),
            ("deny # all", &format!("nobody follows 'deny': {WHO}")),
            ("allow alice", &format!("'alice' is nobody: it is {WHO}")),
            ("allow All", &format!("'All' is nobody: it is {WHO}")),
            ("allow user", &format!("'user' is nobody: it is {WHO}")),
            ("allow \"all\"", &format!("'\"all\"' is nobody: it is {WHO}")),
            (
                "allow 10.1.2.3/8",
                "'10.1.2.3/8' is an address in a network: the network is 10.0.0.0/8, the address alone 10.1.2.3",
            ),
            (
                "allow example.org",
                "'example.org' is no network: those are as 192.0.2.0/24, 2001:db8::/32, 192.0.2.7 or 2001:db8::7",
            ),
            ("allow user:", "a user's name or number follows 'user:'"),
            ("allow user:bob", "there is no user 'bob'"),
            ("allow user:4294967295", "'user:4294967295': users have numbers from 0 to 4294967294"),
            ("allow user:99999999999", "'user:99999999999': users have numbers from 0 to 4294967294"),
            ("allow vsock:", "'vsock:': a machine's context identifier follows 'vsock:', a number"),
            ("allow vsock:*", "'vsock:*': a machine's context identifier follows 'vsock:', a number"),
            ("allow vsock:-1", "'vsock:-1': a machine's context identifier follows 'vsock:', a number"),
            (
                "allow vsock:4294967295",
                "'vsock:4294967295': a machine's context identifier follows 'vsock:', a number",
            ),
            // The options.
            (
                "allow all chidren=1",
                "'chidren' is no option of a rule; there are children, rate, exempt, message, env.NAME, exec",
            ),
            (
                "allow all env=x",
                "'env' is no option of a rule; there are children, rate, exempt, message, env.NAME, exec",
            ),
            ("allow all children", "children has no value: it is as in children=10"),
            ("allow all children=", "children has no value: it is as in children=10"),
            ("allow all children = 1", "children has no value: it is as in children=10"),
            ("allow all rate", "rate has no value: it is as in rate=5/s:20"),
            ("deny all message", "message has no value: it is as in message=\"Not from there.\""),
            ("allow all env.A", "env.A has no value: it is as in env.NAME=\"value\""),
            ("allow all env.A=", "env.A has no value: it is as in env.NAME=\"value\""),
            ("allow all exec=", "exec has no value: it is as in exec=\"/usr/bin/program argument\""),
            ("allow all exempt=yes", "exempt has no value: it is there or it is not"),
            ("allow all exempt=", "exempt has no value: it is there or it is not"),
            ("allow all children=1 children=2", "children is given twice"),
            ("allow all rate=1/s rate=1/s", "rate is given twice"),
            ("deny all message=a message=b", "message is given twice"),
            ("allow all exec=a exec=b", "exec is given twice"),
            ("allow all exempt exempt", "exempt is given twice"),
            ("allow all env.A=1 env.B=2 env.A=3", "env.A is given twice"),
            // The values.
            ("allow all children=0", "children is a number from 1 to 4194304; who may have none is denied"),
            (
                "allow all children=4194305",
                "children is a number from 1 to 4194304; who may have none is denied",
            ),
            ("allow all children=-1", "children=-1: it is a number from 1 to 4194304"),
            ("allow all children=+1", "children=+1: it is a number from 1 to 4194304"),
            ("allow all children=\"\"", "children=: it is a number from 1 to 4194304"),
            ("allow all children=many", "children=many: it is a number from 1 to 4194304"),
            ("allow all rate=5", "'5' is no rate: a number, / and s, m or h, as in 10/s, 5/m or 10/s:50"),
            ("allow all env.1A=x", "'1A' is no name of a variable: letters, digits and _, not a digit first"),
            ("allow all env.=x", "'' is no name of a variable: letters, digits and _, not a digit first"),
            (
                "allow all env.A-B=x",
                "'A-B' is no name of a variable: letters, digits and _, not a digit first",
            ),
            ("allow all env.Ä=x", "'Ä' is no name of a variable: letters, digits and _, not a digit first"),
            (
                "deny all message=\"\"",
                "the message is empty; without one those who are denied are told nothing",
            ),
            ("allow all exec=\"\"", "exec names no program"),
            ("allow all exec=\" \"", "exec names no program"),
            ("allow all exec=\"'' x\"", "exec names no program"),
            ("allow all exec=\"a 'b\"", "exec: the closing ' is missing"),
            (r#"allow all exec="a \"b""#, "exec: the closing \" is missing"),
            (
                r#"allow all exec="a b\\ c""#,
                "exec: a backslash stands only in single quotes, where it is itself",
            ),
            // The quotes.
            ("deny all message='a b'", "message='a: such a value is written in double quotes"),
            ("deny all message=a\\ b", "message=a\\: such a value is written in double quotes"),
            ("deny all message=a\"b\"", "message=a\"b\": such a value is written in double quotes"),
            ("deny all message=\"a b", "message: the closing quote is missing"),
            ("deny all message=\"a b\\", "message: the closing quote is missing"),
            ("deny all message=\"a\"b", "message: a blank follows the closing quote"),
            ("deny all message=\"a\"# b", "message: a blank follows the closing quote"),
            (r#"deny all message="a\tb""#, r#"message: '\t' is no escape; there are \" and \\, \n and \r"#),
            (r#"allow all env.A="a\nb""#, r#"env.A: '\n' is no escape; there are \" and \\"#),
            // What belongs together.
            ("allow all message=x", "a message is for those who are denied"),
            (
                "deny all children=1",
                "children means nothing for those who are denied; a deny can have a message",
            ),
            ("deny all rate=1/s", "rate means nothing for those who are denied; a deny can have a message"),
            ("deny all exempt", "exempt means nothing for those who are denied; a deny can have a message"),
            ("deny all env.A=1", "env means nothing for those who are denied; a deny can have a message"),
            ("deny all exec=a", "exec means nothing for those who are denied; a deny can have a message"),
            // The characters.
            ("deny all message=\"\u{7}\"", "there is a control character, U+0007"),
            ("allow all env.A=\0", "there is a control character, U+0000"),
            ("allow all # a\rb", "there is a control character, U+000D"),
            ("allow\u{a0}all", "a rule begins with allow or deny, not 'allow\\u{a0}all'"),
        ] {
            assert_eq!(error(&format!("\n# two lines before\n{rule}\n")), format!("rules line 3: {what}"));
        }
    }

    #[test]
    fn a_rule_that_is_made_is_held_to_the_same() {
        let rate = |count, per, burst| Rule { rate: Some(Rate { count, per, burst }), ..Rule::allow() };
        let second = Duration::from_secs(1);
        let env = |name: &str, value: &str| Rule { env: vec![(name.into(), value.into())], ..Rule::allow() };
        let exec = |words: &[&str]| Rule {
            exec: Some(words.iter().map(|word| word.to_string()).collect()),
            ..Rule::allow()
        };
        let none = "a rate of 0 lets nobody in; who may not come in is denied";
        for (rule, what) in [
            (rate(0, second, 1), none),
            (rate(1, second, 0), none),
            (rate(1, Duration::ZERO, 1), none),
            (env("A", "a\0b"), "env.A: a variable cannot have a NUL character"),
            (env("A=B", "x"), "'A=B' is no name of a variable: letters, digits and _, not a digit first"),
            (exec(&[]), "exec names no program"),
            (exec(&["a", "\0"]), "exec: an argument cannot have a NUL character"),
            (
                Rule { message: Some("\u{1b}[2J".into()), ..Rule::deny() },
                "there is a control character in the message",
            ),
        ] {
            let mut rules = Rules::default();
            assert_eq!(rules.add(Who::All, rule).unwrap_err().to_string(), what);
            assert!(rules.is_empty() && rules.of(&vsock(1)).is_none());
        }
        let mut rules = Rules::default();
        for who in [Who::All, Who::Unix, Who::User(7), Who::Machine(7), Who::Network("::/0".parse().unwrap())]
        {
            rules.add(who, Rule::deny()).unwrap();
            let error = rules.add(who, Rule { line: 9, ..Rule::allow() }).unwrap_err();
            let what = format!("rules line 9: '{who}' has a rule already, one that no file has");
            assert_eq!(error.to_string(), what);
        }
        assert!(rules.iter().all(|(_, rule)| !rule.allow) && rules.len() == 5);
    }

    #[test]
    fn two_rules_about_the_same_name_both_lines() {
        for (first, second, is) in [
            ("all", "all", ""),
            ("unix", "unix", ""),
            ("unix", "user:all", " is unix, which"),
            ("user:1000", "user:1000", ""),
            ("user:1000", "user:alice", " is user:1000, which"),
            ("user:7", "user:007", " is user:7, which"),
            ("vsock:3", "vsock:3", ""),
            ("10.0.0.0/8", "10.0.0.0/8", ""),
            ("10.1.2.3", "10.1.2.3/32", " is 10.1.2.3, which"),
            ("10.0.0.0/8", "::ffff:10.0.0.0/104", " is 10.0.0.0/8, which"),
            ("2001:db8::/32", "2001:DB8:0::/32", " is 2001:db8::/32, which"),
        ] {
            let text = format!("deny {first}\n\nallow 1.2.3.4\nallow {second}");
            let what = format!("rules line 4: '{second}'{is} has a rule already, in line 1");
            assert_eq!(error(&text), what);
        }
        // These are not the same, though they hold the same addresses or look alike.
        parse("deny 10.0.0.0/8\ndeny 10.0.0.0/9\ndeny 0.0.0.0/0\ndeny ::/0\ndeny all\ndeny vsock:0\ndeny user:0").unwrap();
    }

    #[test]
    fn rules_of_two_origins_go_together_unless_they_are_about_the_same() {
        let mut given = Rules::default();
        given.add(Who::All, Rule::deny()).unwrap();
        let both = given.clone().and(&parse("\nallow 10.0.0.0/8").unwrap()).unwrap();
        assert_eq!(both.iter().map(|(who, _)| who.to_string()).collect::<Vec<_>>(), ["all", "10.0.0.0/8"]);
        assert_eq!(line(&both, &peer("10.1.2.3")), 2);
        assert!(both.of(&peer("11.1.2.3")).is_some_and(|(_, rule)| !rule.allow));

        let error = given.and(&parse("allow ::1\ndeny all").unwrap()).unwrap_err();
        let what = "line 2: 'all' has a rule already, one that no file has";
        assert_eq!(error.to_string(), format!("rules {what}"));
        assert_eq!(error.at("/etc/x").to_string(), format!("rules /etc/x {what}"));
    }

    #[test]
    fn lines_and_messages_have_an_end() {
        let message = |bytes: usize| parse(&format!("deny all message=\"{}\\n\"", "é".repeat(bytes / 2)));
        assert!([MESSAGE_MOST - 2, MESSAGE_MOST - 1].iter().all(|bytes| message(*bytes).is_ok()));
        let error = message(MESSAGE_MOST).unwrap_err().to_string();
        assert_eq!(error, "rules line 1: a message has at most 512 bytes, this one 513");

        let comment = |bytes: usize| parse(&format!("{}\r\nallow all", "#".repeat(bytes)));
        assert!([LINE_MOST - 1, LINE_MOST].iter().all(|bytes| comment(*bytes).is_ok()));
        let error = comment(LINE_MOST + 1).unwrap_err().to_string();
        assert_eq!(error, "rules line 1: a line has at most 4096 bytes, this one 4097");
    }

    #[test]
    fn rules_have_an_end() {
        let mut rules = Rules::default();
        for uid in 0..RULES_MOST as u32 {
            rules.add(Who::User(uid), Rule::deny()).unwrap();
        }
        let error = rules.add(Who::All, Rule { line: 7, ..Rule::deny() }).unwrap_err();
        assert_eq!(error.to_string(), "rules line 7: there are more than 1000000 rules");
        assert_eq!((rules.len(), rules.of(&vsock(1))), (RULES_MOST, None));
        assert!(rules.of(&unix(RULES_MOST as u32 - 1)).is_some());
    }

    #[test]
    fn a_look_up_among_200_000_rules_compares_few() {
        /// The most comparisons that one of many look-ups took.
        fn worst(count: u32) -> u64 {
            let mut rules = Rules::default();
            for i in 0..count {
                // Spread over the whole space, a third each of hosts, /24 and /20.
                let (ip, bits) =
                    (Ipv4Addr::from_bits(i.wrapping_mul(0x9e37_79b1)), [32, 24, 20][i as usize % 3]);
                let _ = rules.add(Who::Network(Prefix::around(ip.into(), bits)), Rule::deny());
            }
            assert!(rules.len() > count as usize * 9 / 10);
            let spent = |ip: u32| {
                COMPARISONS.set(0);
                let _ = rules.of(&inet(Ipv4Addr::from_bits(ip).into()));
                COMPARISONS.get()
            };
            (0..10_000u32).map(|i| spent(i.wrapping_mul(0x85eb_ca6b))).max().unwrap()
        }
        let (few, many) = (worst(200), worst(200_000));
        // Three lengths in use: three searches at most, each of some 18 doublings.
        assert!(0 < few && few < many && many <= 150, "{few} {many}");
    }

    #[test]
    fn nested_networks_cost_one_search_a_length_at_most() {
        let mut rules = Rules::default();
        let ip: Ipv6Addr = "aaaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa:aaaa".parse().unwrap();
        // Beside each of the address's own networks one that it is not in, so that every search misses but the last.
        for bits in 1..=128 {
            let beside = Ipv6Addr::from_bits(ip.to_bits() ^ (1 << (128 - bits)));
            rules.add(Who::Network(Prefix::around(beside.into(), bits)), Rule::deny()).unwrap();
        }
        rules.add(Who::Network("::/0".parse().unwrap()), Rule { line: 1, ..Rule::allow() }).unwrap();
        COMPARISONS.set(0);
        assert_eq!(line(&rules, &inet(ip.into())), 1);
        assert!(COMPARISONS.get() <= 129 * 60, "{}", COMPARISONS.get());
    }

    fn some_who() -> impl Strategy<Value = Who> {
        prop_oneof![
            12 => some_prefix().prop_map(Who::Network),
            2 => (0u32..4).prop_map(Who::User),
            2 => (0u32..4).prop_map(Who::Machine),
            1 => Just(Who::Unix),
            1 => Just(Who::All),
        ]
    }

    fn some_peer() -> impl Strategy<Value = Peer> {
        prop_oneof![
            6 => some_ip().prop_map(inet),
            1 => (0u32..5).prop_map(unix),
            1 => (0u32..5).prop_map(vsock),
            1 => Just(peer("?")),
        ]
    }

    /// How much a rule about `who` has to say about a client; none when nothing.
    fn says(who: &Who, peer: &Peer) -> Option<u32> {
        let user = peer.credentials.map(|who| who.uid);
        match (who, &peer.addr) {
            (Who::All, _) => Some(0),
            (Who::Network(prefix), Addr::Inet(addr)) => {
                is_in(prefix, addr.ip()).then(|| 1 + u32::from(prefix.bits()))
            }
            (Who::Machine(cid), Addr::Vsock { cid: it, .. }) => (cid == it).then_some(1),
            (Who::Unix, Addr::Unnamed) => Some(1),
            (Who::User(uid), Addr::Unnamed) => (user == Some(*uid)).then_some(2),
            _ => None,
        }
    }

    fn quote(value: &str) -> String {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{}\"", value.replace('\n', "\\n").replace('\r', "\\r"))
    }

    /// A rule as an operator would write it.
    fn write(who: &Who, rule: &Rule) -> String {
        let mut line = format!("{} {who}", if rule.allow { "allow" } else { "deny" });
        line.extend(rule.message.iter().map(|message| format!(" message={}", quote(message))));
        line.extend(rule.children.iter().map(|children| format!(" children={children}")));
        line.extend(rule.rate.iter().map(|rate| format!("\trate={rate}")));
        line.extend(rule.exempt.then_some(" exempt"));
        line.extend(rule.env.iter().map(|(name, value)| format!("  env.{name}={}", quote(value))));
        if let Some(words) = &rule.exec {
            let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
            line += &format!(" exec={} # {who}", quote(&words.join(" ")));
        }
        line
    }

    fn some_rule() -> impl Strategy<Value = Rule> {
        let deny =
            proptest::option::of("[ -~\\n\\rß☃]{1,40}").prop_map(|message| Rule { message, ..Rule::deny() });
        let rate = (1u32..100, 1u32..100, proptest::sample::select(vec![1, 60, 3600]));
        let rate = rate.prop_map(|(count, burst, per)| Rate { count, burst, per: Duration::from_secs(per) });
        let env = proptest::collection::btree_map("[A-Za-z_][A-Za-z0-9_]{0,5}", "[ -~\tß☃]{0,20}", 0..4);
        let exec = ("[!-&(-~]{1,9}", vec("[ -&(-~ß☃]{0,9}", 0..4));
        let exec = exec.prop_map(|(program, words)| [program].into_iter().chain(words).collect());
        let allow = (
            proptest::option::of(1..=CHILDREN_MOST),
            proptest::option::of(rate),
            any::<bool>(),
            env,
            proptest::option::of(exec),
        );
        let allow = allow.prop_map(|(children, rate, exempt, env, exec)| {
            let env = env.into_iter().collect();
            Rule { children, rate, exempt, env, exec, ..Rule::allow() }
        });
        prop_oneof![deny, allow]
    }

    proptest! {
        #[test]
        fn the_rule_with_the_most_to_say_decides_wherever_it_stands(
            all in proptest::collection::btree_set(some_who(), 0..40).prop_map(Vec::from_iter).prop_shuffle(),
            peers in vec((some_peer(), any::<u8>()), 20)
        ) {
            let text: Vec<_> = all.iter().map(|who| format!("allow {who}")).collect();
            let rules = parse(&text.join("\n")).unwrap();
            for (i, (peer, bit)) in peers.into_iter().enumerate() {
                let beside = match all.get(i) {
                    Some(Who::Network(prefix)) => inet(near(*prefix, bit)),
                    _ => peer.clone(),
                };
                for peer in [peer, beside] {
                    let wanted = all.iter().zip(1..).filter_map(|(who, line)| Some((says(who, &peer)?, line)));
                    prop_assert_eq!(line(&rules, &peer), wanted.max().map_or(0, |(_, line)| line), "{}", peer);
                }
            }
        }

        #[test]
        fn what_is_written_is_read_back(who in some_who(), rule in some_rule()) {
            let rules = parse(&write(&who, &rule)).unwrap();
            let id = rules.about(&who).unwrap();
            prop_assert_eq!(rules.rule(id), Some(&Rule { line: 1, ..rule }));
        }

        #[test]
        fn no_text_does_harm(
            rule in "(allow|deny) (all|::/0|user:alice|1.2.3.4) ",
            option in "(children|rate|exempt|message|env.A|exec|[a-z.]{0,8})=?",
            value in "[\"'\\\\ a#\\n=]{0,9}|\\PC{0,20}",
        ) {
            let text = rule + &option + &value;
            if let Err(why) = parse(&text) {
                let lines = text.lines().count() as u32;
                prop_assert!((1..=lines).contains(&why.line) && !why.what.is_empty() && why.path.is_none());
            }
        }
    }

    /// A directory that goes with its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("tine-rules-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Folder(path)
        }

        fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, bytes).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// What is wrong with a file, which the message names.
    fn file_error(path: &Path) -> String {
        let error = Rules::read(path).unwrap_err();
        assert_eq!(error.path.as_deref(), Some(path));
        let text = error.to_string();
        text.strip_prefix(&format!("rules {}", path.display())).expect("the path is named").to_owned()
    }

    #[test]
    fn a_file_is_read_and_mistakes_are_found_in_it() {
        let folder = Folder::new("file");
        let path = folder.file("rules", b"allow 10.0.0.0/8 children=3\r\ndeny all\r\n");
        let rules = Rules::read(&path).unwrap();
        assert_eq!(rules.0.rules[0].1.children, Some(3));
        assert_eq!(line(&rules, &peer("11.0.0.1")), 2);
        assert!(Rules::read(folder.file("empty", b"")).unwrap().is_empty());
        std::os::unix::fs::symlink(&path, folder.0.join("link")).unwrap();
        assert_eq!(Rules::read(folder.0.join("link")).unwrap().len(), 2);

        let wrong = folder.file("wrong", b"deny all\n\nallow 10.0.0.0/8 chidren=3\n");
        let what =
            "'chidren' is no option of a rule; there are children, rate, exempt, message, env.NAME, exec";
        assert_eq!(file_error(&wrong), format!(" line 3: {what}"));
        let latin = folder.file("latin", b"deny all\nallow ::1 # caf\xe9\n");
        assert_eq!(file_error(&latin), " line 2: it is not UTF-8 from its byte 16 on");
        assert_eq!(
            file_error(&folder.file("first", b"\xff\n")),
            " line 1: it is not UTF-8 from its byte 1 on"
        );
        assert_eq!(file_error(&folder.0.join("none")), ": No such file or directory");
    }

    #[test]
    fn root_is_a_user_of_this_machine_and_some_are_not() {
        let rules: Rules = "deny user:root".parse().unwrap();
        assert_eq!([0, 1].map(|uid| line(&rules, &unix(uid))), [1, 0]);
        let error = "deny user:no.such.user\n".parse::<Rules>().unwrap_err();
        assert_eq!(error.to_string(), "rules line 1: there is no user 'no.such.user'");
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_not_waited_for() {
        let folder = Folder::new("kinds");
        assert_eq!(file_error(&folder.0), ": it is a directory; rules are read from a regular file");
        assert_eq!(
            file_error(Path::new("/dev/null")),
            ": it is a device; rules are read from a regular file"
        );
        let socket = folder.0.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert_eq!(file_error(&socket), ": it is a socket; rules are read from a regular file");
        // A pipe that somebody could still write to: reading it would never end.
        let (reader, _writer) = io::pipe().unwrap();
        let pipe = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
        assert_eq!(file_error(&pipe), ": it is a FIFO; rules are read from a regular file");
    }

    #[test]
    fn a_file_has_an_end() {
        let folder = Folder::new("size");
        let path = folder.file("rules", b"");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(FILE_MOST + 1).unwrap();
        assert_eq!(file_error(&path), ": it has more than 100 MiB");
        file.set_len(FILE_MOST).unwrap();
        assert_eq!(file_error(&path), " line 1: a line has at most 4096 bytes, this one 104857600");
    }
}
