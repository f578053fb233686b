// S10: the operator's terminal, into which words are put as if they had been typed. It is a pty that the test has made.

#include "jailbreak.h"

#include <linux/tiocl.h>
#include <termios.h>

static int terminal(const char *key, int flags) {
    int fd = try("open", open(given(key), flags));
    return fd;
}

static void inject(unsigned long request) {
    // Without O_NOCTTY: a session leader that has no terminal gets this one.
    int fd = terminal("tty", O_RDONLY);
    for (const char *c = "typed\n"; *c; c++) try("TIOCSTI", syscall(SYS_ioctl, fd, request, c));
    int waiting = 0;
    try("FIONREAD", ioctl(fd, FIONREAD, &waiting));
    if (!waiting) blocked_by("TIOCSTI", "nothing arrived");
    char line[16] = {0};
    try("read", read(fd, line, sizeof line - 1));
    if (strcmp(line, "typed\n")) blocked_by("TIOCSTI", "something else arrived");
    succeeded("a line was typed for the operator");
}

static void s10_tiocsti(void) { inject(TIOCSTI); }

// The kernel looks at the low 32 bits only; a filter that compares all 64 lets this through.
static void s10_high_bits(void) { inject(TIOCSTI | 1UL << 32); }

static void s10_tioclinux(void) {
    int fd = terminal("tty", O_RDONLY | O_NOCTTY);
    char what = TIOCL_GETSHIFTSTATE;
    long done = ioctl(fd, TIOCLINUX, &what);
    // The test's terminal is no virtual console, whose selection this would paste.
    if (done < 0 && errno != ENOTTY) blocked("TIOCLINUX");
    succeeded("the driver was asked (ENOTTY: it is no console)");
}

static void s10_take(void) {
    int fd = terminal("tty", O_RDONLY | O_NOCTTY);
    try("TIOCSCTTY", ioctl(fd, TIOCSCTTY, 0));
    succeeded("it is this session's terminal");
}

static void s10_steal(void) {
    int fd = terminal("owned-tty", O_RDONLY | O_NOCTTY);
    try("TIOCSCTTY", ioctl(fd, TIOCSCTTY, 1));
    pid_t session = try("tcgetsid", tcgetsid(fd));
    if (session != getsid(0)) blocked_by("TIOCSCTTY", "it is another session's still");
    succeeded("another session's terminal is ours");
}

static void s10_write(void) {
    int fd = terminal("tty", O_WRONLY | O_NOCTTY);
    try("write", write(fd, "words", 5));
    succeeded("words on the operator's screen");
}

const struct attempt terminal_attempts[] = {
    {"S10.tiocsti", s10_tiocsti}, {"S10.tiocsti-high-bits", s10_high_bits},
    {"S10.tioclinux", s10_tioclinux}, {"S10.take", s10_take},
    {"S10.steal", s10_steal}, {"S10.write", s10_write},
    {0},
};
