// S20 to S22: what the master might have left open or mapped in its children. tine leaves nothing, confined or not; that each
// search finds what is there is shown by `jailbreak control`, which opens it first.

#include "jailbreak.h"

#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#define DESCRIPTORS 65536

// S20: a listener

static int listener(void) {
    for (int fd = 0; fd < DESCRIPTORS; fd++) {
        int listens = 0;
        if (!getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &(socklen_t){sizeof listens}) && listens) return fd;
    }
    blocked_by("getsockopt", "no listener among 65536 descriptors");
}

static void s20_find(void) { succeeded("descriptor %d", listener()); }

static void s20_shutdown(void) {
    try("shutdown", shutdown(listener(), SHUT_RD));
    succeeded("nobody can connect any more");
}

static void s20_accept(void) {
    int fd = listener();
    try("fcntl", fcntl(fd, F_SETFL, O_NONBLOCK));
    int client = accept(fd, NULL, NULL);
    if (client < 0 && errno != EAGAIN) blocked("accept");
    succeeded("the next client would be ours");
}

static void s20_fcntl(void) {
    int fd = listener();
    try("fcntl", fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) ^ O_NONBLOCK));
    succeeded("whoever accepts would block, or spin");
}

// The other way to it: a second socket at its address, among which the kernel spreads the clients.
static void s20_beside(void) {
    int fd = try("socket", socket(AF_INET, SOCK_STREAM, 0)), one = 1;
    try("setsockopt", setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one));
    struct sockaddr_in where = {AF_INET, htons(given_number("port")), {htonl(INADDR_LOOPBACK)}};
    try("bind", bind(fd, (void *)&where, sizeof where));
    try("listen", listen(fd, 5));
    succeeded("a part of the clients would be ours");
}

// S21

static _Noreturn void of_kind(const char *kind) {
    char path[64], link[128];
    for (int fd = 0; fd < DESCRIPTORS; fd++) {
        if (fcntl(fd, F_GETFD) < 0) continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        long length = try("readlink", readlink(path, link, sizeof link - 1));
        link[length] = 0;
        if (strstr(link, kind)) succeeded("descriptor %d is %s", fd, link);
    }
    blocked_by("readlink", "none among 65536 descriptors");
}

static void s21_epoll(void) { of_kind("[eventpoll]"); }
static void s21_signalfd(void) { of_kind("[signalfd]"); }
static void s21_timerfd(void) { of_kind("[timerfd]"); }
static void s21_eventfd(void) { of_kind("[eventfd]"); }
static void s21_memfd(void) { of_kind("/memfd:"); }
static void s21_pidfd(void) { of_kind("pidfd"); }
static void s21_netlink_or_any(void) {
    for (int fd = 3; fd < DESCRIPTORS; fd++)
        if (fcntl(fd, F_GETFD) >= 0) succeeded("descriptor %d is open", fd);
    blocked_by("fcntl", "nothing above 2 is open");
}

// S22: memory that the master reads

static void s22_mapping(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    if (!maps) blocked("open");
    unsigned long from, to;
    char flags[8];
    for (; fscanf(maps, "%lx-%lx %7s%*[^\n]", &from, &to, flags) == 3;)
        if (flags[3] == 's') {
            int done = mprotect((void *)from, to - from, PROT_READ | PROT_WRITE);
            try("mprotect", done);
            *(volatile char *)from ^= 1;
            *(volatile char *)from ^= 1;
            succeeded("shared memory at %#lx can be written", from);
        }
    blocked_by("read", "nothing shared is mapped");
}

static void s22_truncate(void) {
    struct stat what;
    for (int fd = 3; fd < DESCRIPTORS; fd++) {
        if (fstat(fd, &what) < 0 || !S_ISREG(what.st_mode)) continue;
        int seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0) continue;
        if (seals & F_SEAL_SHRINK) continue;
        try("ftruncate", ftruncate(fd, 0));
        succeeded("whoever reads memory %d gets SIGBUS", fd);
    }
    blocked_by("fstat", "no memory among 65536 descriptors");
}

void control_descriptors(const char *name) {
    sigset_t none;
    sigemptyset(&none);
    struct sockaddr_in any = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
    int fd = -1;
    if (!strncmp(name, "S20.", 4)) {
        fd = try("socket", socket(AF_INET, SOCK_STREAM, 0));
        try("bind", bind(fd, (void *)&any, sizeof any));
        try("listen", listen(fd, 5));
    } else if (!strcmp(name, "S21.epoll")) fd = epoll_create1(0);
    else if (!strcmp(name, "S21.signalfd")) fd = signalfd(-1, &none, 0);
    else if (!strcmp(name, "S21.timerfd")) fd = timerfd_create(CLOCK_MONOTONIC, 0);
    else if (!strcmp(name, "S21.eventfd")) fd = eventfd(0, 0);
    else if (!strcmp(name, "S21.pidfd")) fd = syscall(SYS_pidfd_open, getpid(), 0);
    else if (!strncmp(name, "S21.", 4)) fd = memfd_create("control", 0);
    else if (!strcmp(name, "S22.mapping")) shared_memory(4096), fd = 0;
    else if (!strcmp(name, "S22.truncate")) fd = memfd_create("control", MFD_ALLOW_SEALING);
    else if (!strcmp(name, "S34.left-open")) fd = open("/", O_PATH | O_DIRECTORY);
    else return;
    try("control", fd);
    if (fd > 2) dup2(fd, 4321); // where nobody would look first
}

const struct attempt descriptors_attempts[] = {
    {"S20.find", s20_find},
    {"S20.shutdown", s20_shutdown},
    {"S20.accept", s20_accept},
    {"S20.fcntl", s20_fcntl},
    {"S20.beside", s20_beside},
    {"S21.epoll", s21_epoll},
    {"S21.signalfd", s21_signalfd},
    {"S21.timerfd", s21_timerfd},
    {"S21.eventfd", s21_eventfd},
    {"S21.memfd", s21_memfd},
    {"S21.pidfd", s21_pidfd},
    {"S21.anything", s21_netlink_or_any},
    {"S22.mapping", s22_mapping},
    {"S22.truncate", s22_truncate},
    {0},
};
