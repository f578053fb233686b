// Does what each line of its client's names, and says how it went. What it is killed for it cannot say.

#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what, long result) {
    printf("%s: %s\n", what, result < 0 ? strerrorname_np(errno) : "done");
    fflush(stdout);
}

// getpid by the numbers of 32-bit x86.
static long int80(void) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
    return result;
#else
    return errno = ENOSYS, -1;
#endif
}

static long try_ptrace(void) { return syscall(SYS_ptrace, 0 /* PTRACE_TRACEME */, 0, 0, 0); }

static void *thread(void *unused) {
    say("thread", try_ptrace());
    return unused;
}

static long in_thread(void) {
    pthread_t id;
    if (pthread_create(&id, NULL, thread, NULL)) return -1;
    return pthread_join(id, NULL);
}

// An orphan in a session of its own.
static void away(void) {
    int ends[2];
    if (pipe(ends)) _exit(1);
    pid_t child = fork();
    if (!child) {
        setsid();
        pid_t parent = getpid();
        if (fork()) _exit(0);
        while (getppid() == parent) sched_yield();
        try_ptrace();
        _exit(0);
    }
    waitpid(child, NULL, 0);
    close(ends[1]);
    char byte;
    while (read(ends[0], &byte, 1) > 0) {}
    close(ends[0]);
    say("away", 0);
}

// Processes that are killed, one after the other, each told of by a dot.
static _Noreturn void flood(void) {
    for (;;) {
        pid_t child = fork();
        if (!child) {
            try_ptrace();
            _exit(1);
        }
        int status;
        waitpid(child, &status, 0);
        char said = WIFSIGNALED(status) ? '.' : '!';
        if (write(STDOUT_FILENO, &said, 1) != 1) _exit(0);
    }
}

// A filter of its own that asks for a call to be told to itself.
static long supervise(int call) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

// Executes a program that somebody is told of calls of, as some containers' runtimes are.
static int below_somebody(char **argv) {
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (supervise(9999) < 0) return perror("seccomp"), 1;
    pid_t self = getpid();
    if (!fork()) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != self) _exit(0);
        close(STDIN_FILENO), close(STDOUT_FILENO), close(STDERR_FILENO);
        // It holds what is closed when the parent executes.
        for (;;) pause();
    }
    execv(argv[0], argv);
    return perror(argv[0]), 1;
}

int main(int argc, char **argv) {
    if (argc > 1) return below_somebody(argv + 1);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        if (!strcmp(line, "int80")) say(line, int80());
        else if (!strcmp(line, "ptrace")) say(line, try_ptrace());
        else if (!strcmp(line, "thread")) in_thread();
        else if (!strcmp(line, "accept")) say(line, syscall(SYS_accept, -1, 0, 0));
        else if (!strcmp(line, "away")) away();
        else if (!strcmp(line, "flood")) flood();
        else if (!strcmp(line, "supervise")) say(line, supervise(SYS_ptrace));
        else say(line, 0);
    }
    return 0;
}
