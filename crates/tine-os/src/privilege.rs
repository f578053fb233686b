//! Privileges that are given up: capabilities(7), no_new_privs and the rest of prctl(2).

use std::io;

use crate::{check, fault};

/// `struct __user_cap_header_struct` of linux/capability.h.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct`, of which version 3 has two.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// Securebits that keep user id 0 from being a privilege, each with its lock: SECBIT_NOROOT, SECBIT_NO_CAP_AMBIENT_RAISE.
const NO_ROOT: libc::c_ulong = 0b11 | 0b11 << 6;

/// Capabilities by number, as far as this program cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// To become any user.
    SetUid = 7,
    /// To change the sets of capabilities.
    SetPcap = 8,
    /// To mount, to make namespaces.
    SysAdmin = 21,
}

/// From here on nothing that is executed gives this process, or what it starts, a privilege: PR_SET_NO_NEW_PRIVS(2const).
///
/// # Errors
/// None that it documents.
pub fn no_new() -> io::Result<()> {
    fault::point("prctl")?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

/// Whether this process has a capability in force.
///
/// # Errors
/// None that capget(2) documents for one's own.
pub fn has(capability: Capability) -> io::Result<bool> {
    Ok(sets()?[0].effective & 1 << (capability as u32) != 0)
}

/// This process's own: capabilities 0 to 31, and those beyond.
fn sets() -> io::Result<[Sets; 2]> {
    fault::point("capget")?;
    let (header, mut sets) = (Header { version: VERSION_3, pid: 0 }, [Sets::default(); 2]);
    let (header, place) = (&raw const header, sets.as_mut_ptr());
    // SAFETY: `header` names version 3, for which the kernel writes two live structures from `place` on (capget(2)).
    let done = unsafe { libc::syscall(libc::SYS_capget, header, place) };
    check(done as libc::c_int)?;
    Ok(sets)
}

/// Makes user id 0 an ordinary one for all that is executed from here on, and empties the set that bounds what can ever be got.
/// What this process has now it keeps.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn bound() -> io::Result<()> {
    fault::point("prctl")?;
    for number in 0.. {
        // SAFETY: takes plain numbers (PR_CAPBSET_DROP(2const)).
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0, 0, 0) }) {
            Ok(_) => {}
            // One beyond the last that the kernel knows.
            Err(why) if why.raw_os_error() == Some(libc::EINVAL) && number > 0 => break,
            Err(why) => return Err(why),
        }
    }
    // SAFETY: takes plain numbers (PR_SET_SECUREBITS(2const)).
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, NO_ROOT, 0, 0, 0) }).map(drop)
}

/// Gives up every capability.
///
/// # Errors
/// None that capset(2) documents for giving up.
pub fn drop_all() -> io::Result<()> {
    // They went with user 0, mostly. The ambient ones are among the permitted (capabilities(7)).
    if sets()? == [Sets::default(); 2] {
        return Ok(());
    }
    fault::point("capset")?;
    // SAFETY: takes plain numbers (PR_CAP_AMBIENT(2const)).
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
    let (header, sets) = (Header { version: VERSION_3, pid: 0 }, [Sets::default(); 2]);
    let (header, sets) = (&raw const header, sets.as_ptr());
    // SAFETY: `header` names version 3, for which the kernel reads two live structures from `sets` on (capset(2)).
    let done = unsafe { libc::syscall(libc::SYS_capset, header, sets) };
    check(done as libc::c_int).map(drop)
}
