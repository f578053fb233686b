// The sibling: the program of another client of the same server. It plants what others must not have, and says on its socket
// what happens to it.

#include "jailbreak.h"

#include <sys/epoll.h>
#include <sys/signalfd.h>

static char *scratch;

static void tell_status(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    dprintf(STDOUT_FILENO, "status page=%s nice=%d files=%ld processors=%d\n", *scratch ? "changed" : "same",
            getpriority(PRIO_PROCESS, 0), (long)files.rlim_cur, CPU_COUNT(&set));
}

void victim(int argc, char **argv) {
    const char *token = given("token");
    char text[256];

    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    scratch = page + 4096;
    *scratch = 0;
    strcpy(page, given("victim-text"));
    snprintf(text, sizeof text, "%s", given("victim-text"));
    write_over(getenv("PLACE"), text);
    write_over(argc > 3 ? argv[3] : NULL, text);

    int memory = memfd_create("planted", 0);
    if (memory >= 0 && write(memory, page, strlen(page)) < 0) memory = -1;
    // Whatever of this is refused is not there to be found.
    int file = open(given("victim-file"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file >= 0) close(write(file, page, strlen(page)) < 0 ? -1 : file);
    snprintf(text, sizeof text, "tine-victim-%s", token);
    long key = syscall(SYS_add_key, "user", text, page, strlen(page), -4 /* the user's keyring */);
    if (key > 0) syscall(SYS_keyctl, 15 /* time out */, key, 120); // should we be killed

    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    int signals = signalfd(-1, &all, SFD_CLOEXEC);
    int events = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(events, EPOLL_CTL_ADD, signals, &(struct epoll_event){.events = EPOLLIN, .data.fd = signals});
    // Told of what is new only: words without the end of a line stay in the socket for whoever can steal them.
    epoll_ctl(events, EPOLL_CTL_ADD, STDIN_FILENO,
              &(struct epoll_event){.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.fd = STDIN_FILENO});
    dprintf(STDOUT_FILENO, "victim own=%d address=%p scratch=%p fd=%d key=%ld\n", getpid(), (void *)page, (void *)scratch, memory,
            key);

    for (struct epoll_event event;;) {
        if (epoll_wait(events, &event, 1, -1) < 1) continue;
        if (event.data.fd == signals) {
            struct signalfd_siginfo info;
            if (read(signals, &info, sizeof info) == sizeof info)
                dprintf(STDOUT_FILENO, "signal %s\n", sigabbrev_np(info.ssi_signo));
            continue;
        }
        char line[512];
        ssize_t there = recv(STDIN_FILENO, line, sizeof line, MSG_PEEK | MSG_DONTWAIT);
        char *end = there > 0 ? memchr(line, '\n', there) : NULL;
        if (end && recv(STDIN_FILENO, line, end - line + 1, 0) > 0) tell_status();
        if (event.events & (EPOLLRDHUP | EPOLLHUP)) break;
    }
    if (key > 0) syscall(SYS_keyctl, 9 /* unlink */, key, -4);
    unlink(given("victim-file"));
    _exit(0);
}
