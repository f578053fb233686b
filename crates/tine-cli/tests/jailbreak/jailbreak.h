// What the files of `jailbreak` share. See jailbreak.c for what the program is and how it is told what to try.
//
// An attempt is a function that never returns: it ends in one of the verdicts below. Only "reached" counts as success:
// bytes that were read, a change that was made. Where that would harm the machine the call is made with arguments that cannot
// work, and success is that the kernel objects to these (EINVAL, ENOENT) and not to the caller; the line then says so.

#ifndef JAILBREAK_H
#define JAILBREAK_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Verdicts. Each prints the one line and ends the process with 0, 1 or 2.
_Noreturn void succeeded(const char *what, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void blocked(const char *call);                        // the reason is errno
_Noreturn void blocked_by(const char *call, const char *reason); // there is no errno
_Noreturn void is_void(const char *why, ...) __attribute__((format(printf, 1, 2)));

// The result of a call, or the verdict that it was blocked.
long try(const char *call, long result);
void *try_map(const char *call, void *result);

// A call that a kernel may lack: as `try`, but ENOSYS makes the attempt void.
long try_if_there(const char *call, long result);

// The line may have to go elsewhere than to the client, when the client's socket is what is attacked.
extern int report_fd;
extern const char *attempt_name;

// What the attempt was given as KEY=VALUE; ends the process as a mistake of the caller's when it is absent.
const char *given(const char *key);
long given_number(const char *key);
const char *given_or(const char *key, const char *otherwise);

// A process by its key (victim, master, stranger), or the verdict that it has no number in this pid namespace.
pid_t process(const char *key);

// Reads a file (or a part of it) and gives its length; blocked at open or read otherwise.
size_t contents(const char *path, char *buffer, size_t size);
void put(const char *path, int flags, const char *text);

// Whether these bytes hold the text that was given under this key.
int holds(const void *bytes, size_t size, const char *key);

// Ends in success when the bytes hold what was planted, and otherwise in "blocked: CALL: something else was read".
_Noreturn void judge(const char *call, const void *bytes, size_t size, const char *key);

// A child that runs `act` and ends with what it returns; this process waits. 128 + N when a signal N ended it.
int in_child(int (*act)(void *), void *argument);

// As above, and when it ends with anything but 0, that is the errno by which `call` was blocked.
void child_must(const char *call, int (*act)(void *), void *argument);

// Memory that a child and this process share.
void *shared_memory(size_t size);

// Runs this program again, from `path`, as `jailbreak NAME KEY=VALUE...` with one more argument; gives what it wrote.
size_t run_again(const char *path, const char *name, const char *more, char *output, size_t size);

// A path in a folder that was given.
const char *inside(const char *key, const char *name);

// A path where files can be made: in the folder that was given, or in another that is known to hold them; in the first of them
// when they can be made in none.
const char *in_room(const char *name);

// Writes over a text in place, as far as there is room: /proc/PID/environ and cmdline show this memory.
void write_over(char *place, const char *text);

double seconds(void);

struct attempt {
    const char *name;
    void (*run)(void);
};

extern const struct attempt processes_attempts[], keys_attempts[], namespaces_attempts[], terminal_attempts[],
    privileges_attempts[], kernel_attempts[], network_attempts[], files_attempts[], descriptors_attempts[], resources_attempts[],
    remains_attempts[];

// What `jailbreak control NAME` does before the attempt: makes what the attempt looks for.
void control_descriptors(const char *name);

_Noreturn void victim(int argc, char **argv);




#endif
