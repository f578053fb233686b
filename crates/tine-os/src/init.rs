//! The first process of a pid namespace: starts the program, and waits for it and for the orphans of what it starts.
//! pid_namespaces(7), execveat(2), memfd_create(2).
//!
//! The kernel spares the first process every signal that it has no handler for, and gives it all orphans. A program in that place
//! is not ended by SIGTERM, nor by its own alarm(2) or abort(3), and what it leaves is not waited for. So this one stands there. It is a
//! few dozen instructions without a library, in a file of its own in memory, so that executing it costs no more than a
//! system call or two; it keeps nothing open but the way to report.
//!
//! Its environment begins with a note of ten letters: who it is where reports are read, and the descriptor that they go through
//! (`write_note`). That one is taken away; its arguments are the program's path and the program's own arguments.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::{Pid, check, fault, fd};

/// What it is told: eight letters of its process id and two of a descriptor, each of four bits, from 'A' on.
pub(crate) const NOTE: usize = 10;

/// The kind of report that it makes when the program ended by a signal; the value is its status as wait(2) has it.
pub const ENDED: i32 = 105;

/// The kind of report that it makes when the program could not be executed; the value is why.
pub const NOT_EXECUTED: i32 = 7;

/// What it leaves behind of a program's death by a signal is this and the signal's number.
pub const BY_SIGNAL: u8 = 128;

/// How long orphans may stay when the program has ended, in seconds.
#[cfg(test)]
const GRACE: u8 = 2;

/// Whether there is one for this architecture.
pub const IS_THERE: bool = cfg!(target_arch = "x86_64");

/// Writes the note: who this process is to whoever reads its reports, and where they go.
pub(crate) fn write_note(place: &mut [u8; NOTE], who: Pid, reports: RawFd) {
    let bits = (who.as_raw() as u64) << 8 | (reports as u64 & 0xff);
    for (at, letter) in place.iter_mut().enumerate() {
        *letter = b'A' + (bits >> (4 * (NOTE - 1 - at)) & 0xf) as u8;
    }
}

/// Its file, under a number that nothing is placed at in a child.
///
/// # Errors
/// EACCES where sysctl vm.memfd_noexec forbids it; `Unsupported` on an architecture that it is not written for; ENOMEM, EMFILE.
pub fn file() -> io::Result<OwnedFd> {
    let Some(code) = code() else { return Err(io::ErrorKind::Unsupported.into()) };
    fault::point("memfd_create")?;
    let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
    // A kernel before 6.3 does not know that a file in memory could be one that cannot be executed.
    const EXEC: u32 = 0x10;
    let name = c"tine-init";
    let executable = rustix::fs::MemfdFlags::from_bits_retain(flags.bits() | EXEC);
    let memory = match rustix::fs::memfd_create(name, executable) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        other => other?,
    };
    let image = image(code);
    if fd::write(&memory, &image)? != image.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    use rustix::fs::SealFlags;
    rustix::fs::fcntl_add_seals(
        &memory,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    fd::duplicate_low(memory)
}

/// In a child: `reports` stays open in what is executed next, which closes it itself.
pub(crate) fn keep_open(reports: impl AsFd) -> io::Result<()> {
    fault::point("fcntl")?;
    Ok(rustix::io::fcntl_setfd(reports, rustix::io::FdFlags::empty())?)
}

/// execveat(2) by the descriptor alone. Comes back only to say why not.
///
/// # Safety
/// Both arrays must end in a null pointer and hold C strings.
pub(crate) unsafe fn execute(
    file: &OwnedFd,
    arguments: *const *const libc::c_char,
    variables: *const *const libc::c_char,
) -> io::Error {
    let (fd, flags) = (file.as_raw_fd(), libc::AT_EMPTY_PATH);
    // SAFETY: the descriptor is owned, so open, the path an empty string with its NUL; the arrays are as the caller promises
    // (execveat(2)).
    let done = unsafe { libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), arguments, variables, flags) };
    check(done as libc::c_int).err().unwrap_or_else(|| io::ErrorKind::Other.into())
}

/// A program for the kernel: elf(5), one segment, which can be read and executed, and a stack, which cannot be executed.
fn image(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 2 * 56;
    let mut image = Vec::new();
    let mut put = |bytes: &[u8]| image.extend_from_slice(bytes);
    // 64 bits, little endian, version 1, System V.
    put(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    const EXECUTABLE: u16 = 2;
    const X86_64: u16 = 62;
    put(&EXECUTABLE.to_le_bytes());
    put(&X86_64.to_le_bytes());
    put(&1u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        put(&word.to_le_bytes());
    }
    put(&0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        put(&half.to_le_bytes());
    }
    const LOAD: u32 = 1;
    const STACK: u32 = 0x6474_e551;
    const READ_EXECUTE: u32 = 5;
    const READ_WRITE: u32 = 6;
    let size = HEADERS + code.len() as u64;
    for (kind, flags, words) in
        [(LOAD, READ_EXECUTE, [0, BASE, BASE, size, size, 0x1000]), (STACK, READ_WRITE, [0, 0, 0, 0, 0, 16])]
    {
        put(&kind.to_le_bytes());
        put(&flags.to_le_bytes());
        for word in words {
            put(&u64::to_le_bytes(word));
        }
    }
    put(code);
    image
}

#[cfg(target_arch = "x86_64")]
fn code() -> Option<&'static [u8]> {
    let (begin, end) = (&raw const tine_init_begin, &raw const tine_init_end);
    let length = end as usize - begin as usize;
    // SAFETY: both names are of labels in the assembly below, which the linker keeps in this order in one section, so that so many
    // bytes lie there for as long as the program runs; nobody writes there.
    Some(unsafe { std::slice::from_raw_parts(begin, length) })
}

#[cfg(not(target_arch = "x86_64"))]
fn code() -> Option<&'static [u8]> {
    None
}

// SAFETY: the labels are those of the assembly below; as bytes they are never written to.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    static tine_init_begin: u8;
    static tine_init_end: u8;
}

// rbx: the program's path; r13: its arguments; r14: its environment; ebp: who this process is; r15d: where reports go;
// r12d: the program's id; and from its end on r13d: its status.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.tine_init, \"a\", @progbits",
    ".globl tine_init_begin",
    ".globl tine_init_end",
    "tine_init_begin:",
    "mov r12, [rsp]",
    "mov rbx, [rsp + 8]",
    "lea r13, [rsp + 16]",
    "lea r14, [rsp + r12 * 8 + 16]",
    // The note: forty bits, four a letter.
    "mov rsi, [r14]",
    "add r14, 8",
    "xor r15, r15",
    "mov ecx, 10",
    "2: movzx eax, byte ptr [rsi]",
    "sub eax, 65",
    "shl r15, 4",
    "or r15, rax",
    "inc rsi",
    "dec ecx",
    "jnz 2b",
    "mov rbp, r15",
    "shr rbp, 8",
    "and r15d, 255",
    "sub rsp, 32",
    // prctl(PR_SET_DUMPABLE, 0): what is open here cannot be reached by the program, which has the same user.
    "mov eax, 157",
    "mov edi, 4",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    "test eax, eax",
    "js 8f",
    // fcntl(reports, F_SETFD, FD_CLOEXEC)
    "mov eax, 72",
    "mov edi, r15d",
    "mov esi, 2",
    "mov edx, 1",
    "syscall",
    "test eax, eax",
    "js 8f",
    // rt_sigprocmask(SIG_BLOCK, {{SIGALRM, SIGCHLD}}): to be waited for.
    "mov qword ptr [rsp + 8], 0x12000",
    "mov eax, 14",
    "xor edi, edi",
    "lea rsi, [rsp + 8]",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    // clone(CLONE_VM | CLONE_VFORK | SIGCHLD): this process goes on when the program has been executed.
    "mov eax, 56",
    "mov edi, 0x4111",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    "test eax, eax",
    "js 8f",
    "jnz 3f",
    // The program-to-be: rt_sigprocmask(SIG_SETMASK, {{}}), execve.
    "mov qword ptr [rsp + 16], 0",
    "mov eax, 14",
    "mov edi, 2",
    "lea rsi, [rsp + 16]",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "mov eax, 59",
    "mov rdi, rbx",
    "mov rsi, r13",
    "mov rdx, r14",
    "syscall",
    // Here and wherever nothing can be begun: a report, and the status of a child that could not be set up.
    "8: neg eax",
    "mov dword ptr [rsp + 16], ebp",
    "mov dword ptr [rsp + 20], 7",
    "mov dword ptr [rsp + 24], eax",
    "mov eax, 1",
    "mov edi, r15d",
    "lea rsi, [rsp + 16]",
    "mov edx, 12",
    "syscall",
    "mov edi, 111",
    "jmp 9f",
    // Nothing stays open but the way to report.
    "3: mov r12d, eax",
    "mov eax, 436",
    "xor edi, edi",
    "lea esi, [r15 - 1]",
    "xor edx, edx",
    "syscall",
    "mov eax, 436",
    "lea edi, [r15 + 1]",
    "mov esi, -1",
    "xor edx, edx",
    "syscall",
    // wait4 for whoever ends, until it is the program.
    "4: mov eax, 61",
    "mov rdi, -1",
    "mov rsi, rsp",
    "xor edx, edx",
    "xor r10d, r10d",
    "syscall",
    "cmp eax, r12d",
    "je 5f",
    "test eax, eax",
    "jns 4b",
    "cmp eax, -4",
    "je 4b",
    "mov dword ptr [rsp], 0x6f00",
    // alarm(GRACE)
    "5: mov r13d, dword ptr [rsp]",
    "mov eax, 37",
    "mov edi, 2",
    "syscall",
    // Those that are left: wait4(-1, 0, WNOHANG) until there is none, or rt_sigtimedwait says that their time is over.
    "6: mov eax, 61",
    "mov rdi, -1",
    "xor esi, esi",
    "mov edx, 1",
    "xor r10d, r10d",
    "syscall",
    "test eax, eax",
    "js 7f",
    "jnz 6b",
    "mov eax, 128",
    "lea rdi, [rsp + 8]",
    "xor esi, esi",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "cmp eax, 14",
    "jne 6b",
    // As the program has ended.
    "7: mov edi, r13d",
    "and edi, 127",
    "jz 10f",
    "mov dword ptr [rsp + 16], ebp",
    "mov dword ptr [rsp + 20], 105",
    "mov dword ptr [rsp + 24], r13d",
    "mov eax, 1",
    "mov edi, r15d",
    "lea rsi, [rsp + 16]",
    "mov edx, 12",
    "syscall",
    "mov edi, r13d",
    "and edi, 127",
    "or edi, 128",
    "jmp 9f",
    "10: mov edi, r13d",
    "shr edi, 8",
    "and edi, 255",
    "9: mov eax, 231",
    "syscall",
    "ud2",
    "tine_init_end:",
    ".popsection",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_both_numbers() {
        let mut note = [0; NOTE];
        write_note(&mut note, Pid::from_raw(0x1234_5678).unwrap(), 0x9a);
        assert_eq!(&note, b"BCDEFGHIJK");
        write_note(&mut note, Pid::from_raw(1).unwrap(), 8);
        assert_eq!(&note, b"AAAAAAABAI");
    }

    #[test]
    fn the_image_is_a_program_and_its_numbers_are_those_of_the_constants() {
        let Some(code) = code() else { return };
        let image = image(code);
        assert_eq!(&image[64 + 2 * 56..], code);
        let holds = |number: u32| code.windows(4).any(|window| window == number.to_le_bytes());
        assert!(holds(ENDED as u32) && holds(NOT_EXECUTED as u32) && holds(BY_SIGNAL.into()));
        assert!(holds(GRACE.into()), "seconds of grace");
    }
}
