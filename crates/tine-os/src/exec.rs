//! Becoming a program: argv and environment laid out in the parent, so that the child only calls `execve`.
//!
//! execve(2), environ(7). Nothing here searches PATH: [`find`] does it once, in the parent, where a mistake can
//! still be told to the operator.

use std::ffi::{CString, OsStr, OsString};
use std::fmt::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{io, ptr};

use crate::{Pid, fault};

/// A program's path and arguments, as `execve` wants them.
#[derive(Debug)]
pub struct Argv {
    path: CString,
    words: Vec<CString>,
    /// The arguments; a null pointer.
    pointers: Vec<*const libc::c_char>,
}

impl Argv {
    /// Which file is executed.
    pub fn path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path.as_bytes()))
    }

    /// Lays out `path` (what is executed) and `words` (what the program sees; the first is its name).
    ///
    /// # Errors
    /// When one of them holds a NUL byte.
    pub fn new(path: &Path, words: &[OsString]) -> io::Result<Argv> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let words: Vec<_> = words.iter().map(|w| CString::new(w.as_bytes())).collect::<Result<_, _>>()?;
        let pointers = words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
        Ok(Argv { path, words, pointers })
    }

    /// The program's name as it was typed.
    pub fn name(&self) -> &OsStr {
        OsStr::from_bytes(self.words.first().unwrap_or(&self.path).as_bytes())
    }
}

/// An environment: a fixed part, then what differs from client to client, in one buffer that is used again.
#[derive(Debug, Default)]
pub struct Environ {
    bytes: Vec<u8>,
    starts: Vec<usize>,
    fixed: (usize, usize),
    pid_at: Option<usize>,
    /// Whether something stands for the second time, and the first is not to be seen.
    over: bool,
    /// The variables; a null pointer.
    pointers: Vec<*const libc::c_char>,
}

/// Room for the digits of any process id.
const PID_DIGITS: usize = 10;

impl Environ {
    /// An empty environment.
    pub fn new() -> Environ {
        Environ::default()
    }

    /// Adds a variable; a value with a NUL byte ends there, as it would for the program.
    pub fn set(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.open(name);
        self.bytes.extend_from_slice(value.as_ref().as_bytes());
        self.bytes.push(0);
    }

    /// Sets a variable in place of any of the same name.
    pub fn replace(&mut self, name: &str, value: impl AsRef<OsStr>) {
        let others: Vec<_> = self.iter().map(OsStr::to_owned).collect();
        *self = Environ::new();
        for other in others {
            let bytes = other.as_bytes();
            let equals = bytes.iter().position(|b| *b == b'=').unwrap_or(bytes.len());
            if &bytes[..equals] != name.as_bytes() {
                self.starts.push(self.bytes.len());
                self.bytes.extend_from_slice(bytes);
                self.bytes.push(0);
            }
        }
        self.set(name, value);
    }

    /// Adds a variable whose value is formatted into place, without a string of its own.
    pub fn put(&mut self, name: &str, value: impl fmt::Display) {
        self.open(name);
        let _ = write!(self, "{value}");
        self.bytes.push(0);
    }

    /// As [`Environ::put`], in place of a variable of that name, until [`Environ::reset`].
    pub fn put_over(&mut self, name: &str, value: impl fmt::Display) {
        self.over = true;
        self.put(name, value);
    }

    /// Adds a variable whose value [`exec`] fills in with the id of the process that calls it.
    pub fn set_own_pid(&mut self, name: &str) {
        self.open(name);
        self.pid_at = Some(self.bytes.len());
        self.bytes.extend_from_slice(&[0; PID_DIGITS + 1]);
    }

    /// What was added so far stays; what is added later goes again with [`Environ::reset`].
    pub fn fix(&mut self) {
        self.fixed = (self.bytes.len(), self.starts.len());
    }

    /// Back to what [`Environ::fix`] kept.
    pub fn reset(&mut self) {
        self.bytes.truncate(self.fixed.0);
        self.starts.truncate(self.fixed.1);
        self.pid_at = self.pid_at.filter(|at| *at < self.fixed.0);
        self.over = false;
    }

    /// Lays the pointers out; to be called in the parent, after the last addition, so that the child allocates nothing.
    pub fn seal(&mut self) {
        self.pointers.clear();
        let base = self.bytes.as_ptr().cast::<libc::c_char>();
        for at in 0..self.starts.len() {
            if !self.over || !self.is_covered(at) {
                self.pointers.push(base.wrapping_add(self.starts[at]));
            }
        }
        self.pointers.push(ptr::null());
    }

    /// Becomes the same as another, laid out; in the memory that this one has, if that is enough.
    pub fn copy(&mut self, other: &Environ) {
        self.bytes.clone_from(&other.bytes);
        self.starts.clone_from(&other.starts);
        (self.fixed, self.pid_at, self.over) = (other.fixed, other.pid_at, other.over);
        self.seal();
    }

    /// The variables as `NAME=value`, in order.
    pub fn iter(&self) -> impl Iterator<Item = &OsStr> {
        self.starts.iter().map(|start| {
            let rest = &self.bytes[*start..];
            OsStr::from_bytes(&rest[..rest.iter().position(|b| *b == 0).unwrap_or(rest.len())])
        })
    }

    /// Whether a later variable has the name of this one.
    fn is_covered(&self, at: usize) -> bool {
        let name = |start: usize| self.bytes[start..].split(|byte| *byte == b'=').next();
        self.starts[at + 1..].iter().any(|later| name(*later) == name(self.starts[at]))
    }

    fn open(&mut self, name: &str) {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'=');
    }

    fn fill_in_pid(&mut self) {
        let Some(at) = self.pid_at else { return };
        let mut rest = Pid::own().id();
        let mut digits = [0u8; PID_DIGITS];
        let mut n = 0;
        while rest > 0 && n < PID_DIGITS {
            digits[n] = b'0' + (rest % 10) as u8;
            rest /= 10;
            n += 1;
        }
        // All of the room: where the memory is the parent's, what another child wrote before is still there.
        let written = digits[..n].iter().rev().chain(std::iter::repeat(&0));
        for (place, digit) in self.bytes[at..at + PID_DIGITS].iter_mut().zip(written) {
            *place = *digit;
        }
    }
}

impl Write for Environ {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes.extend(text.bytes().filter(|b| *b != 0));
        Ok(())
    }
}

/// Turns this process into the program; returns only when the kernel refuses.
///
/// Allocates nothing, so that it may follow a fork at any time. `environ` must have been sealed.
pub fn exec(argv: &Argv, environ: &mut Environ) -> io::Error {
    environ.fill_in_pid();
    if let Err(fault) = fault::frugal().and_then(|()| fault::point("execve")) {
        return fault;
    }
    let (args, vars) = (argv.pointers.as_ptr(), environ.pointers.as_ptr());
    // SAFETY: `path` is a C string; both arrays end in a null pointer (`Argv::new`, `Environ::seal`) and point into
    // strings that `argv` and `environ` own and that nobody has changed in length since (execve(2)).
    unsafe { libc::execve(argv.path.as_ptr(), args, vars) };
    io::Error::last_os_error()
}

/// Finds the file that a program's name stands for: a path with a slash as it is, else the first executable file of
/// that name in the directories of `path`. Always absolute, so that a later change of directory does not matter.
///
/// # Errors
/// `NotFound` when there is none, `PermissionDenied` when what there is may not be executed.
pub fn find(name: &OsStr, path: &OsStr) -> io::Result<PathBuf> {
    if name.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the program's name is empty"));
    }
    if name.as_bytes().contains(&b'/') {
        let file = std::path::absolute(Path::new(name))?;
        return executable(&file).map(|()| file);
    }
    let mut denied = None;
    for dir in path.as_bytes().split(|b| *b == b':') {
        let dir = if dir.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(dir)) };
        let file = std::path::absolute(dir.join(name))?;
        match executable(&file) {
            Ok(()) => return Ok(file),
            Err(why) if why.kind() == io::ErrorKind::PermissionDenied => denied = Some(why),
            Err(_) => {}
        }
    }
    let nowhere = || {
        let path = OsString::from_vec(path.as_bytes().to_vec());
        io::Error::new(io::ErrorKind::NotFound, format!("not found in PATH ({})", path.display()))
    };
    Err(denied.unwrap_or_else(nowhere))
}

fn executable(file: &Path) -> io::Result<()> {
    let meta = std::fs::metadata(file)?;
    if meta.is_dir() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is a directory"));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        let why = "no execute permission (chmod +x it, or name its interpreter)";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(environ: &Environ) -> Vec<String> {
        environ.iter().map(|v| v.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn reset_forgets_the_last_client_and_keeps_what_is_fixed() {
        let mut environ = Environ::new();
        environ.set("PATH", "/bin");
        environ.fix();
        environ.put("TCPREMOTEPORT", 7);
        environ.reset();
        environ.put("TCPREMOTEPORT", 8);
        assert_eq!(strings(&environ), ["PATH=/bin", "TCPREMOTEPORT=8"]);
    }

    #[test]
    fn what_is_put_over_a_variable_is_the_only_one_of_its_name_until_the_reset() {
        let mut environ = Environ::new();
        environ.set("PATH", "/bin");
        environ.set("PATHOS", "1");
        environ.fix();
        environ.put_over("PATH", "/usr/bin");
        environ.seal();
        assert_eq!(environ.pointers.len(), 3, "two, and the null at the end");
        environ.reset();
        environ.seal();
        assert_eq!(
            (environ.pointers.len(), strings(&environ)),
            (3, vec!["PATH=/bin".into(), "PATHOS=1".into()])
        );
    }

    #[test]
    fn the_own_pid_is_filled_in_without_leading_zeros() {
        let mut environ = Environ::new();
        environ.set_own_pid("LISTEN_PID");
        environ.set("LISTEN_FDS", "1");
        environ.fill_in_pid();
        assert_eq!(strings(&environ), [format!("LISTEN_PID={}", std::process::id()), "LISTEN_FDS=1".into()]);
    }

    #[test]
    fn a_program_is_found_by_path_and_by_name_and_a_directory_is_none() {
        assert_eq!(find(OsStr::new("sh"), OsStr::new("/nonexistent:/bin")).unwrap(), Path::new("/bin/sh"));
        assert_eq!(
            find(OsStr::new("/"), OsStr::new("")).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        assert_eq!(
            find(OsStr::new("no-such"), OsStr::new("/bin")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
