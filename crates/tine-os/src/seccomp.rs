//! System calls that a process gives up: a program of the kernel's packet filter that is asked about each call. seccomp(2), bpf in
//! Documentation/networking/filter.rst of the kernel.
//!
//! What the program says is made in `tine-confine`; here are its instructions and how it is put on.

mod i386;
mod watch;

use std::{fmt, io};

use crate::{check, fault, random};

pub use watch::{Call, NEW_LISTENER, Waiting, Watch, enter_watched, is_unwatchable};

/// Where a program finds what it is asked about: offsets in `struct seccomp_data`.
pub mod data {
    /// The call's number.
    pub const NUMBER: u32 = 0;
    /// The architecture by whose numbers it is called.
    pub const ARCHITECTURE: u32 = 4;

    /// The low half of an argument, on a machine that has the low half first.
    pub fn low(argument: u32) -> u32 {
        16 + 8 * argument + if cfg!(target_endian = "big") { 4 } else { 0 }
    }

    /// The high half.
    pub fn high(argument: u32) -> u32 {
        16 + 8 * argument + if cfg!(target_endian = "big") { 0 } else { 4 }
    }
}

/// One instruction: `struct sock_filter` of linux/filter.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions are skipped when a comparison holds.
    pub jt: u8,
    /// And when it does not.
    pub jf: u8,
    /// The number that it is done with.
    pub k: u32,
}

/// Codes of instructions: BPF_* of linux/bpf_common.h.
pub mod code {
    /// Load the word at `k`.
    pub const LOAD: u16 = 0x20;
    /// Load `k` itself.
    pub const LOAD_VALUE: u16 = 0x00;
    /// Load what was stored at `k` beside it.
    pub const LOAD_STORED: u16 = 0x61;
    /// Store it at `k`.
    pub const STORE: u16 = 0x02;
    /// Exclusive or with `k`.
    pub const XOR: u16 = 0xa4;
    /// Or with what was loaded beside it.
    pub const OR: u16 = 0x4c;
    /// And the accumulator with `k`.
    pub const AND: u16 = 0x54;
    /// Skip `k` instructions.
    pub const JUMP: u16 = 0x05;
    /// Is it `k`?
    pub const EQUAL: u16 = 0x15;
    /// Is it at least `k`?
    pub const AT_LEAST: u16 = 0x35;
    /// Has it a bit of `k`?
    pub const ANY_BIT: u16 = 0x45;
    /// Answer with `k`.
    pub const ANSWER: u16 = 0x06;
}

/// What a program may answer: SECCOMP_RET_* of linux/seccomp.h.
pub mod answer {
    /// The call is done.
    pub const ALLOW: u32 = 0x7fff_0000;
    /// The process is killed, by SIGSYS.
    pub const KILL: u32 = 0x8000_0000;
    /// The call waits until somebody has answered for it: [`super::Watch`].
    pub const ASK: u32 = 0x7fc0_0000;

    /// The call fails with this number.
    pub fn fail(errno: u16) -> u32 {
        0x0005_0000 | u32::from(errno)
    }
}

/// What a process shows that wears a filter and may all the same do a call which that refuses to whoever it starts: words that nobody can
/// guess, in the arguments of the call that the kernel does not look at (the third and the fourth).
///
/// A filter sees nothing else of who it is that calls. A program that is executed has none of its starter's memory, and of its registers
/// nothing either (execve(2)), and cannot read a filter; so the key is the starter's alone. With it, no child has to put on a filter
/// of its own, which takes a fifth of a birth.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Key([u64; 2]);

impl Key {
    /// None: all its words are zero, as those are that nobody sets.
    pub const NONE: Key = Key([0; 2]);

    /// One that nobody else has.
    ///
    /// # Errors
    /// What getrandom(2) says.
    pub fn new() -> io::Result<Key> {
        Ok(Key([random::word()?, random::word()?]))
    }

    /// For the third and the fourth argument.
    pub fn words(self) -> [u64; 2] {
        self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is to be found in no log.
        f.write_str("Key")
    }
}

/// The architecture of this program's own calls: AUDIT_ARCH_* of linux/audit.h. `None` where filters are not written for it.
pub const ARCHITECTURE: Option<u32> = if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
    Some(0xc000_003e)
} else if cfg!(all(target_arch = "aarch64", target_endian = "little")) {
    Some(0xc000_00b7)
} else {
    None
};

/// From which number on a call is one of the x32 ABI, which has the architecture of the 64 bit one.
pub const X32: Option<u32> = if cfg!(target_arch = "x86_64") { Some(0x4000_0000) } else { None };

/// The call that filters are put on by.
pub const SECCOMP: u32 = libc::SYS_seccomp as u32;

/// The longest program that the kernel takes: BPF_MAXINSNS.
pub const LONGEST: usize = 4096;

/// The number of a call by its name, on this architecture; `None` for a name that [`is_call`] knows and this architecture has not.
pub fn number(name: &str) -> Option<u32> {
    let mut all = CALLS.iter().chain(OF_X86);
    all.find(|(known, _)| *known == name).and_then(|(_, number)| u32::try_from(*number).ok())
}

/// Whether it is the name of a call that this program knows, on any architecture.
pub fn is_call(name: &str) -> bool {
    number(name).is_some() || ELSEWHERE.contains(&name)
}

/// The name of a call by its number.
pub fn name(number: u32) -> Option<&'static str> {
    let all = CALLS.iter().chain(OF_X86);
    all.copied().find(|(_, known)| u32::try_from(*known) == Ok(number)).map(|(name, _)| name)
}

macro_rules! calls {
    ($($name:ident = $number:expr),* $(,)?) => { &[$((stringify!($name), $number)),*] };
}

/// Those that filters are written about. The C library's headers lack the youngest, whose numbers are the same everywhere.
const CALLS: &[(&str, libc::c_long)] = calls![
    accept = libc::SYS_accept,
    accept4 = libc::SYS_accept4,
    acct = libc::SYS_acct,
    add_key = libc::SYS_add_key,
    adjtimex = libc::SYS_adjtimex,
    bind = libc::SYS_bind,
    bpf = libc::SYS_bpf,
    chroot = libc::SYS_chroot,
    clock_adjtime = libc::SYS_clock_adjtime,
    clock_settime = libc::SYS_clock_settime,
    clone = libc::SYS_clone,
    clone3 = libc::SYS_clone3,
    connect = libc::SYS_connect,
    delete_module = libc::SYS_delete_module,
    fanotify_init = libc::SYS_fanotify_init,
    fchmod = libc::SYS_fchmod,
    fchmodat = libc::SYS_fchmodat,
    fchmodat2 = 452,
    fchown = libc::SYS_fchown,
    fchownat = libc::SYS_fchownat,
    file_setattr = 469,
    finit_module = libc::SYS_finit_module,
    fremovexattr = libc::SYS_fremovexattr,
    fsconfig = libc::SYS_fsconfig,
    fsetxattr = libc::SYS_fsetxattr,
    fsmount = libc::SYS_fsmount,
    fsopen = libc::SYS_fsopen,
    fspick = libc::SYS_fspick,
    init_module = libc::SYS_init_module,
    io_uring_enter = libc::SYS_io_uring_enter,
    io_uring_register = libc::SYS_io_uring_register,
    io_uring_setup = libc::SYS_io_uring_setup,
    ioctl = libc::SYS_ioctl,
    ioprio_set = libc::SYS_ioprio_set,
    kcmp = libc::SYS_kcmp,
    kexec_load = libc::SYS_kexec_load,
    kexec_file_load = KEXEC_FILE_LOAD,
    keyctl = libc::SYS_keyctl,
    listen = libc::SYS_listen,
    lookup_dcookie = libc::SYS_lookup_dcookie,
    lremovexattr = libc::SYS_lremovexattr,
    lsetxattr = libc::SYS_lsetxattr,
    migrate_pages = libc::SYS_migrate_pages,
    mount = libc::SYS_mount,
    mount_setattr = libc::SYS_mount_setattr,
    move_mount = libc::SYS_move_mount,
    move_pages = libc::SYS_move_pages,
    mq_open = libc::SYS_mq_open,
    mq_unlink = libc::SYS_mq_unlink,
    msgget = libc::SYS_msgget,
    open_by_handle_at = libc::SYS_open_by_handle_at,
    open_tree = libc::SYS_open_tree,
    open_tree_attr = 467,
    perf_event_open = libc::SYS_perf_event_open,
    personality = libc::SYS_personality,
    pidfd_getfd = libc::SYS_pidfd_getfd,
    pivot_root = libc::SYS_pivot_root,
    prlimit64 = libc::SYS_prlimit64,
    process_madvise = libc::SYS_process_madvise,
    process_mrelease = libc::SYS_process_mrelease,
    process_vm_readv = libc::SYS_process_vm_readv,
    process_vm_writev = libc::SYS_process_vm_writev,
    ptrace = libc::SYS_ptrace,
    quotactl = libc::SYS_quotactl,
    quotactl_fd = libc::SYS_quotactl_fd,
    reboot = libc::SYS_reboot,
    removexattr = libc::SYS_removexattr,
    removexattrat = 466,
    request_key = libc::SYS_request_key,
    sched_setaffinity = libc::SYS_sched_setaffinity,
    sched_setattr = libc::SYS_sched_setattr,
    sched_setparam = libc::SYS_sched_setparam,
    sched_setscheduler = libc::SYS_sched_setscheduler,
    semget = libc::SYS_semget,
    setdomainname = libc::SYS_setdomainname,
    sethostname = libc::SYS_sethostname,
    setns = libc::SYS_setns,
    setpriority = libc::SYS_setpriority,
    settimeofday = libc::SYS_settimeofday,
    setxattr = libc::SYS_setxattr,
    setxattrat = 463,
    shmget = libc::SYS_shmget,
    socket = libc::SYS_socket,
    socketpair = libc::SYS_socketpair,
    swapoff = libc::SYS_swapoff,
    swapon = libc::SYS_swapon,
    syslog = libc::SYS_syslog,
    umount2 = libc::SYS_umount2,
    unshare = libc::SYS_unshare,
    userfaultfd = libc::SYS_userfaultfd,
    utimensat = libc::SYS_utimensat,
    vhangup = libc::SYS_vhangup,
];

/// linux/kexec.h; the C library's crate has it for one of the two only.
const KEXEC_FILE_LOAD: libc::c_long = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// Those that only the older of the two architectures has.
#[cfg(target_arch = "x86_64")]
const OF_X86: &[(&str, libc::c_long)] = calls![
    chmod = libc::SYS_chmod,
    chown = libc::SYS_chown,
    futimesat = libc::SYS_futimesat,
    ioperm = libc::SYS_ioperm,
    iopl = libc::SYS_iopl,
    lchown = libc::SYS_lchown,
    modify_ldt = libc::SYS_modify_ldt,
    uselib = libc::SYS_uselib,
    utime = libc::SYS_utime,
    utimes = libc::SYS_utimes,
];
#[cfg(not(target_arch = "x86_64"))]
const OF_X86: &[(&str, libc::c_long)] = &[];

/// Calls that are known by name, and may not be there on this architecture.
const ELSEWHERE: &[&str] = &[
    "chmod",
    "chown",
    "futimesat",
    "ioperm",
    "iopl",
    "lchown",
    "modify_ldt",
    "uselib",
    "utime",
    "utimes",
    "vm86",
    "vm86old",
];

/// Whether the kernel knows filters, and this answer of theirs.
pub fn knows(answer: u32) -> bool {
    const GET_ACTION_AVAIL: libc::c_uint = 2;
    let answer = &raw const answer;
    // SAFETY: the kernel reads one word from `answer`, which is live, and changes nothing (seccomp(2)).
    unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0u32, answer) == 0 }
}

/// Whether this process wears a filter already: what it does not allow is not ours to find.
///
/// # Errors
/// None that prctl(2) documents for a kernel with seccomp.
pub fn is_worn() -> io::Result<bool> {
    // SAFETY: takes no argument and changes nothing (PR_GET_SECCOMP(2const)).
    Ok(check(unsafe { libc::prctl(libc::PR_GET_SECCOMP) })? != 0)
}

/// Puts a program on, for good, for this process and all that it starts. Asks for no memory of this process.
///
/// # Errors
/// EACCES without no_new_privs or CAP_SYS_ADMIN; EINVAL for a program that is none; ENOMEM.
pub fn enter(program: &[Instruction]) -> io::Result<()> {
    filter(program, 0).map(drop)
}

fn filter(program: &[Instruction], flags: u32) -> io::Result<libc::c_int> {
    fault::point("seccomp")?;
    const SET_MODE_FILTER: libc::c_uint = 1;
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    let program = &raw const program;
    // SAFETY: `program` names as many instructions as there are in a live slice, of the kernel's layout (repr C); it only reads
    // them (seccomp(2)).
    let done = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, program) };
    check(done as libc::c_int)
}
