//! The first process of a pid namespace, which keeps it: does nothing until it is told to go, or its master is gone, and then ends
//! when nobody else is left. pid_namespaces(7), memfd_create(2).
//!
//! The kernel spares the first process every signal that it has no handler for, gives it all orphans, and kills all others when it
//! ends. A program in that place is not ended by SIGTERM, nor by its own alarm(2) or abort(3), and what it leaves is not waited for.
//! So this one stands there, and programs are born beside it. It is a few dozen instructions without a library, in a file of its own in
//! memory; nothing is open in it but standard input, a pipe that breaks with the master and that all of them share.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::signal::Signal;
use crate::{check, fault, fd};

/// What it is told to go by, from outside of its namespace; who is inside cannot tell it anything.
pub const GO: Signal = Signal::TERM;

/// How often it looks whether somebody is left when it was told to go, a hundredth of a second apart.
#[cfg(test)]
const LOOKS: u32 = 200;

/// What it calls itself, and its file is called.
pub const NAME: &CStr = c"tine-init";

/// Whether there is one for this architecture.
pub const IS_THERE: bool = cfg!(target_arch = "x86_64");

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
    let executable = rustix::fs::MemfdFlags::from_bits_retain(flags.bits() | EXEC);
    let memory = match rustix::fs::memfd_create(NAME, executable) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(NAME, flags)?,
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

/// Becomes it: execveat(2) by the descriptor alone. Comes back only to say why not. When its master ends, those who are there may finish,
/// or `die` at once.
pub fn execute(file: &OwnedFd, die: bool) -> io::Error {
    if let Err(why) = fault::point("execve") {
        return why;
    }
    let end = std::ptr::null::<libc::c_char>();
    // It counts them.
    let words = [NAME.as_ptr(), if die { c"die".as_ptr() } else { end }, end];
    let (fd, flags) = (file.as_raw_fd(), libc::AT_EMPTY_PATH);
    // SAFETY: the descriptor is owned, so open, the path an empty string with its NUL; the arrays are of such strings, and end in a null
    // pointer (execveat(2)).
    let done = unsafe {
        libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), words.as_ptr(), words[2..].as_ptr(), flags)
    };
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

// r12: how many arguments it has; ebx: how often it looks yet; the stack holds what the kernel reads and writes.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.tine_init, \"a\", @progbits",
    ".globl tine_init_begin",
    ".globl tine_init_end",
    "tine_init_begin:",
    "mov r12, [rsp]",
    "sub rsp, 192",
    // prctl(PR_SET_DUMPABLE, 0): it cannot be reached by a program that has the same user.
    "mov eax, 157",
    "mov edi, 4",
    "xor esi, esi",
    "xor edx, edx",
    "xor r10d, r10d",
    "xor r8d, r8d",
    "syscall",
    // prctl(PR_SET_NAME, "tine-init"): a kernel before 6.14 calls it by the number of its descriptor.
    "mov rax, 0x696e692d656e6974",
    "mov [rsp], rax",
    "mov qword ptr [rsp + 8], 0x74",
    "mov eax, 157",
    "mov edi, 15",
    "mov rsi, rsp",
    "syscall",
    // rt_sigaction(SIGCHLD, {SIG_IGN}): orphans are waited for by nobody, and go at once.
    "mov qword ptr [rsp], 1",
    "mov qword ptr [rsp + 8], 0",
    "mov qword ptr [rsp + 16], 0",
    "mov qword ptr [rsp + 24], 0",
    "mov eax, 13",
    "mov edi, 17",
    "mov rsi, rsp",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    // rt_sigprocmask(SIG_SETMASK, {SIGUSR1, SIGTERM}): to be waited for, and spared by nobody then.
    "mov qword ptr [rsp], 0x4200",
    "mov eax, 14",
    "mov edi, 2",
    "mov rsi, rsp",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    // prctl(PR_SET_PDEATHSIG, SIGUSR1)
    "mov eax, 157",
    "mov edi, 1",
    "mov esi, 10",
    "syscall",
    // read(0): the end where the master has gone before that; else there is nothing yet.
    "xor eax, eax",
    "xor edi, edi",
    "lea rsi, [rsp + 8]",
    "mov edx, 1",
    "syscall",
    "test eax, eax",
    "jz 5f",
    // rt_sigtimedwait({SIGUSR1, SIGTERM}): from outside alone come those by kill(2) whose sender has no id here (si_code, si_pid).
    "2: mov eax, 128",
    "mov rdi, rsp",
    "lea rsi, [rsp + 32]",
    "xor edx, edx",
    "mov r10d, 8",
    "syscall",
    "cmp dword ptr [rsp + 40], 0",
    "jne 2b",
    "cmp dword ptr [rsp + 48], 0",
    "jne 2b",
    "mov ebx, 200",
    "cmp eax, 15",
    "je 3f",
    "cmp eax, 10",
    "jne 2b",
    "5: cmp r12, 2",
    "je 4f",
    // It will not have looked so often for more than a year.
    "mov ebx, -1",
    // kill(-1, 0): is anybody left?
    "3: mov eax, 62",
    "mov rdi, -1",
    "xor esi, esi",
    "syscall",
    "cmp eax, -3",
    "je 4f",
    // nanosleep({0, 10 ms})
    "mov qword ptr [rsp], 0",
    "mov qword ptr [rsp + 8], 10000000",
    "mov eax, 35",
    "mov rdi, rsp",
    "xor esi, esi",
    "syscall",
    "dec ebx",
    "jnz 3b",
    // exit_group(0): whoever is left goes too.
    "4: mov eax, 231",
    "xor edi, edi",
    "syscall",
    "ud2",
    "tine_init_end:",
    ".popsection",
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_a_program_and_its_numbers_are_those_of_the_constants() {
        let Some(code) = code() else { return };
        let image = image(code);
        assert_eq!(&image[64 + 2 * 56..], code);
        assert!(code.windows(4).any(|window| window == LOOKS.to_le_bytes()), "two seconds of grace");
    }
}
