//! Profiles: what children give up, as data, with a reason beside each line. Three come with tine (`profiles/`); a file may have others.

use std::path::Path;
use std::{error, fmt, fs, io};

use serde::{Deserialize, Serialize};

use crate::filter::{Denial, Wrong};

/// A named list of layers, with what each of them holds back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is called.
    pub name: String,
    /// What it promises, in a line.
    pub about: String,
    /// A profile that comes with tine and whose lines it has too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extends: Option<String>,
    /// The layers, in any order.
    #[serde(default, rename = "layer")]
    pub layers: Vec<Line>,
    /// Calls that are refused, where it has [`Layer::Calls`].
    #[serde(default, rename = "deny")]
    pub denials: Vec<Denial>,
    /// Limits beside those of the child contract.
    #[serde(default, rename = "limit")]
    pub limits: Vec<Bound>,
}

/// A layer, and why it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Which.
    pub layer: Layer,
    /// Why.
    pub reason: String,
}

/// A limit, and why it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// The resource's name, as `ulimit` and setrlimit(2) know it.
    pub resource: String,
    /// The limit in force; unlimited if it is not given.
    pub soft: Option<u64>,
    /// What the child may raise it to.
    pub hard: Option<u64>,
    /// The layer without which it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Layer>,
    /// Why.
    pub reason: String,
}

/// One of the things that can be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Layer {
    /// Capabilities, and all ways to new ones.
    Privileges,
    /// Files: Landlock.
    Files,
    /// All networks but the client: seccomp, and Landlock for TCP ports.
    Network,
    /// Signals to others, and their abstract sockets: Landlock.
    Scope,
    /// System calls: seccomp.
    Calls,
    /// A user of each child's own.
    Identity,
    /// A user namespace.
    User,
    /// A pid namespace.
    Pid,
    /// A mount namespace with a small tree.
    Mount,
    /// A network namespace.
    Net,
    /// An IPC namespace.
    Ipc,
    /// A UTS namespace.
    Uts,
    /// A cgroup namespace.
    Cgroup,
}

/// What is wrong with a profile.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProfileError {
    /// None that comes with tine is called so.
    Unknown(String),
    /// The file cannot be read.
    Read(io::Error),
    /// It is not what a profile looks like.
    Form(String),
    /// A line about calls makes no sense.
    Calls(Wrong),
}

/// Those that come with tine.
const BUILT_IN: [(&str, &str); 3] = [
    ("none", include_str!("../profiles/none.toml")),
    ("guarded", include_str!("../profiles/guarded.toml")),
    ("sealed", include_str!("../profiles/sealed.toml")),
];

impl Profile {
    /// One that comes with tine: `none`, `guarded` or `sealed`.
    ///
    /// # Errors
    /// [`ProfileError::Unknown`].
    pub fn named(name: &str) -> Result<Profile, ProfileError> {
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Profile::parse(text),
            None => Err(ProfileError::Unknown(name.to_owned())),
        }
    }

    /// One from a file, in the form of those that come with tine.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(path: &Path) -> Result<Profile, ProfileError> {
        Profile::parse(&fs::read_to_string(path).map_err(ProfileError::Read)?)
    }

    /// One from its text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Profile, ProfileError> {
        let mut own: Profile =
            toml::from_str(text).map_err(|why| ProfileError::Form(why.to_string().trim_end().to_owned()))?;
        for denial in &own.denials {
            denial.check().map_err(ProfileError::Calls)?;
        }
        let Some(base) = own.extends.take() else { return Ok(own) };
        let base = Profile::named(&base)?;
        let first = |mut a: Vec<_>, b: Vec<_>| {
            a.extend(b);
            a
        };
        Ok(Profile {
            layers: first(base.layers, own.layers),
            denials: [base.denials, own.denials].concat(),
            limits: [base.limits, own.limits].concat(),
            ..own
        })
    }

    /// Whether it has a layer.
    pub fn has(&self, layer: Layer) -> bool {
        self.layers.iter().any(|line| line.layer == layer)
    }

    /// Why it has a layer.
    pub fn reason(&self, layer: Layer) -> Option<&str> {
        self.layers.iter().find(|line| line.layer == layer).map(|line| line.reason.as_str())
    }
}

impl Default for Profile {
    /// `none`.
    fn default() -> Profile {
        let (name, about) = ("none".to_owned(), "the child contract alone".to_owned());
        Profile { name, about, extends: None, layers: vec![], denials: vec![], limits: vec![] }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Layer::Privileges => "privileges",
            Layer::Files => "files",
            Layer::Network => "network",
            Layer::Scope => "scope",
            Layer::Calls => "calls",
            Layer::Identity => "identity",
            Layer::User => "user",
            Layer::Pid => "pid",
            Layer::Mount => "mount",
            Layer::Net => "net",
            Layer::Ipc => "ipc",
            Layer::Uts => "uts",
            Layer::Cgroup => "cgroup",
        })
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(
                    f,
                    "no profile is called '{name}'; there are none, guarded and sealed, and a file of your own by its path, as in ./{name}.toml"
                )
            }
            Self::Read(why) => write!(f, "read the profile: {}", tine_os::plain(why)),
            Self::Form(why) => write!(f, "read the profile: {why}"),
            Self::Calls(why) => write!(f, "read the profile: {why}"),
        }
    }
}

impl error::Error for ProfileError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Read(why) => Some(why),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_that_come_with_tine_are_read_and_each_line_has_its_reason() {
        for (name, _) in BUILT_IN {
            let profile = Profile::named(name).unwrap();
            assert_eq!(profile.name, name);
            assert!(profile.layers.iter().all(|line| line.reason.len() > 7));
            assert!(profile.denials.iter().all(|line| line.reason.len() > 7));
            assert!(profile.limits.iter().all(|line| line.reason.len() > 7));
        }
        assert_eq!(Profile::named("none").unwrap(), Profile::default());
    }

    #[test]
    fn sealed_has_all_that_guarded_has() {
        let (guarded, sealed) = (Profile::named("guarded").unwrap(), Profile::named("sealed").unwrap());
        assert!(guarded.layers.iter().all(|line| sealed.has(line.layer)));
        assert!(guarded.denials.iter().all(|line| sealed.denials.contains(line)));
    }

    #[test]
    fn a_profile_survives_being_written_down() {
        let sealed = Profile::named("sealed").unwrap();
        let written = written_down(&sealed);
        assert_eq!(Profile::parse(&written).unwrap(), sealed);
    }

    fn written_down(profile: &Profile) -> String {
        toml::to_string(profile).unwrap()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let head = "name = 'x'\nabout = 'y'\n";
        for (text, told) in [
            ("[[layer]]\nlayer = 'flies'\nreason = 'r'", "unknown variant `flies`"),
            ("[[deny]]\ncalls = ['mout']\nreason = 'r'", "no call is called 'mout'"),
            ("[[deny]]\ncalls = ['mount']\nargument = 6\nany = ['1']\nreason = 'r'", "argument 6"),
            ("[[deny]]\ncalls = ['mount']\nargument = 1\nreason = 'r'", "one of any, unless and bits"),
            ("[[deny]]\ncalls = ['ioctl']\nargument = 1\nany = ['TIOCWHAT']\nreason = 'r'", "'TIOCWHAT'"),
            ("extends = 'sealing'", "no profile is called 'sealing'"),
            ("colour = 3", "colour"),
        ] {
            let why = Profile::parse(&format!("{head}{text}")).unwrap_err().to_string();
            assert!(why.contains(told), "{why}");
        }
    }
}
