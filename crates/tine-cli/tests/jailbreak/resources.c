// S23 to S28: as much as can be had of everything, up to a bound that is written with each, and given back.
//
// With for=SECONDS an attempt holds what it took, or goes on, for about so long before it says how it went: that is how a neighbour's
// time is measured meanwhile.

#include "jailbreak.h"

#include <mqueue.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>

#define MIB (1L << 20)

static double hold(void) { return atof(given_or("for", "0")); }

// Waits until `from` is `hold()` seconds ago.
static void linger(double from) {
    double left = from + hold() - seconds();
    if (left <= 0) return;
    struct timespec time = {(time_t)left, (long)((left - (long)left) * 1e9)};
    nanosleep(&time, NULL);
}

// Enough was taken, or the call that says no is named.
static _Noreturn void came_to(long count, long most, const char *what, const char *call, int error) {
    if (count >= most) succeeded("%ld %s (no more were tried)", count, what);
    char text[128];
    snprintf(text, sizeof text, "%s after %ld %s", strerrorname_np(error) ? strerrorname_np(error) : "no errno", count, what);
    blocked_by(call, text);
}

// S23

#define PROCESSES 300

static void s23_fork_bomb(void) {
    int ends[2], error = 0;
    long count = 0;
    try("pipe", pipe(ends));
    double from = seconds();
    do {
        pid_t child = fork();
        if (child < 0) {
            error = errno;
            break;
        }
        if (!child) {
            // Ends when its parent does, whichever way, and after a while in any case.
            char byte;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            alarm(20);
            close(ends[1]);
            if (read(ends[0], &byte, 1) >= 0) _exit(0);
            _exit(1);
        }
    } while (++count < PROCESSES);
    linger(from);
    close(ends[1]);
    while (wait(NULL) > 0) continue;
    came_to(count, PROCESSES, "processes", "fork", error);
}

// Births and deaths as fast as they go, for a second or as long as asked.
static void s23_fork_storm(void) {
    double from = seconds(), time = hold() > 0 ? hold() : 0.5;
    long count = 0;
    while (seconds() - from < time) {
        pid_t child = try("fork", fork());
        if (!child) _exit(0);
        waitpid(child, NULL, 0);
        count++;
    }
    succeeded("%ld processes, one after the other", count);
}

// S24

#define MEMORY (512 * MIB)
#define SHARED (192 * MIB)

static void s24_memory(void) {
    static char *pieces[MEMORY / (8 * MIB)];
    double from = seconds();
    long had;
    int error = 0;
    do {
        for (had = 0; had < MEMORY; had += 8 * MIB) {
            char *piece = mmap(NULL, 8 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (piece == MAP_FAILED) {
                error = errno;
                break;
            }
            for (long at = 0; at < 8 * MIB; at += 4096) piece[at] = 1;
            pieces[had / (8 * MIB)] = piece;
        }
        for (long at = 0; at < had; at += 8 * MIB) munmap(pieces[at / (8 * MIB)], 8 * MIB);
    } while (seconds() - from < hold());
    came_to(had / MIB, MEMORY / MIB, "MiB", "mmap", error);
}

static _Noreturn void fill(int fd, long most, const char *what) {
    static char piece[1 << 20];
    memset(piece, 7, sizeof piece);
    signal(SIGXFSZ, SIG_IGN);
    double from = seconds();
    long had;
    int error = 0;
    do {
        if (lseek(fd, 0, SEEK_SET) < 0 || ftruncate(fd, 0) < 0) error = errno;
        for (had = 0; had < most;) {
            ssize_t done = write(fd, piece, sizeof piece);
            if (done < 0) {
                error = errno;
                break;
            }
            had += done;
        }
    } while (seconds() - from < hold());
    if (ftruncate(fd, 0) < 0) error = errno;
    came_to(had / MIB, most / MIB, what, "write", error);
}

// Several, for there may be a bound to each.
static void s24_memfd(void) {
    static char piece[1 << 20];
    memset(piece, 7, sizeof piece);
    signal(SIGXFSZ, SIG_IGN);
    double from = seconds();
    long had;
    int error = 0;
    do {
        int fds[SHARED / (32 * MIB)], count = 0;
        for (had = 0; had < SHARED; had += MIB) {
            if (had % (32 * MIB) == 0) fds[count++] = try("memfd_create", memfd_create("bomb", 0));
            if (write(fds[count - 1], piece, sizeof piece) != sizeof piece) {
                error = errno;
                break;
            }
        }
        while (count > 0) close(fds[--count]);
    } while (seconds() - from < hold());
    came_to(had / MIB, SHARED / MIB, "MiB in memfds", "write", error);
}

static void s24_dev_shm(void) {
    int fd = try("open", open("/dev/shm", O_TMPFILE | O_RDWR, 0600));
    fill(fd, SHARED, "MiB in /dev/shm");
}

static void s24_sysv(void) {
    int id = try("shmget", shmget(IPC_PRIVATE, SHARED, IPC_CREAT | 0600));
    char *piece = shmat(id, NULL, 0);
    int error = errno;
    shmctl(id, IPC_RMID, NULL); // goes with us
    errno = error;
    try_map("shmat", piece);
    double from = seconds();
    for (long at = 0; at < SHARED; at += 4096) piece[at] = 1;
    linger(from);
    succeeded("%ld MiB of System V memory", SHARED / MIB);
}

#define PIPES 64

static void s24_pipes(void) {
    static char piece[1 << 20];
    double from = seconds();
    long had = 0;
    int error = 0;
    for (int i = 0; i < PIPES; i++) {
        int ends[2];
        if (pipe2(ends, O_NONBLOCK) < 0) {
            error = errno;
            break;
        }
        fcntl(ends[1], F_SETPIPE_SZ, sizeof piece);
        ssize_t done;
        while ((done = write(ends[1], piece, sizeof piece)) > 0) had += done;
    }
    linger(from);
    came_to(had >> 16, PIPES, "times 64 KiB in pipes", "pipe", error);
}

#define FLYING 1024

static int pair(int ends[2]) {
    if (!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends)) return 0;
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends);
}

static void s24_in_flight(void) {
    int error = 0;
    long count = 0;
    double from = seconds();
    int ends[2];
    try("socketpair", pair(ends));
    while (count < FLYING) {
        char room[CMSG_SPACE(sizeof(int) * 32)] = {0};
        struct iovec text = {"x", 1};
        struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int) * 32), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        for (int i = 0; i < 32; i++) memcpy(CMSG_DATA(head) + i * sizeof(int), &(int){1}, sizeof(int));
        if (sendmsg(ends[0], &message, 0) < 0) {
            if (errno == EAGAIN && !pair(ends)) continue;
            error = errno;
            break;
        }
        count += 32;
    }
    linger(from);
    came_to(count, FLYING, "descriptors in flight", "sendmsg", error);
}

static void s24_page_cache(void) {
    const char *path = in_room("cached");
    int fd = try("open", open(path, O_CREAT | O_RDWR, 0600));
    unlink(path);
    fill(fd, 64 * MIB, "MiB in the page cache");
}

// S25

#define DESCRIPTORS 1000

static void s25_descriptors(void) {
    struct rlimit most;
    getrlimit(RLIMIT_NOFILE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_NOFILE, &most);
    long count = 0;
    double from = seconds();
    while (count < DESCRIPTORS && dup(1) >= 0) count++;
    int error = errno;
    for (int fd = 3; fd < DESCRIPTORS + 16 && count < DESCRIPTORS; fd++) close(fd); // to be able to speak of it
    linger(from);
    came_to(count, DESCRIPTORS, "descriptors", "dup", error);
}

static void s25_raise(void) {
    struct rlimit had;
    getrlimit(RLIMIT_NOFILE, &had);
    struct rlimit more = {had.rlim_max + 1, had.rlim_max + 1};
    try("setrlimit", setrlimit(RLIMIT_NOFILE, &more));
    succeeded("%ld descriptors may be had now", (long)more.rlim_cur);
}

// S26

static void s26_spin(void) {
    double from = seconds(), time = hold() > 0 ? hold() : 0.3;
    struct timespec used;
    while (seconds() - from < time) continue;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    succeeded("%.2f s of a processor in %.2f s", used.tv_sec + used.tv_nsec / 1e9, seconds() - from);
}

static void s26_spins(void) {
    for (int i = 0; i < 8; i++)
        if (!try("fork", fork())) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            double from = seconds(), time = hold() > 0 ? hold() : 0.3;
            while (seconds() - from < time) continue;
            _exit(0);
        }
    while (wait(NULL) > 0) continue;
    succeeded("8 processes ran without a pause");
}

static void s26_fifo(void) {
    struct sched_param first = {1};
    try("sched_setscheduler", sched_setscheduler(0, SCHED_FIFO, &first));
    int now = sched_getscheduler(0);
    sched_setscheduler(0, SCHED_OTHER, &(struct sched_param){0});
    if (now != SCHED_FIFO) blocked_by("sched_setscheduler", "it is as before");
    succeeded("before everybody who has no real time");
}

struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static void s26_deadline(void) {
    struct attributes what = {.size = sizeof what, .policy = 6, .runtime = 1000000, .deadline = 10000000, .period = 10000000};
    try_if_there("sched_setattr", syscall(SYS_sched_setattr, 0, &what, 0));
    succeeded("a part of a processor is reserved");
}

static void s26_nice(void) {
    try("setpriority", setpriority(PRIO_PROCESS, 0, -20));
    if (getpriority(PRIO_PROCESS, 0) != -20) blocked_by("setpriority", "it is as before");
    succeeded("niceness -20");
}

static void s26_ionice(void) {
    try("ioprio_set", syscall(SYS_ioprio_set, 1, 0, 1 << 13 /* real time */));
    succeeded("its input and output go first");
}

static void s26_mlock(void) {
    struct rlimit most;
    getrlimit(RLIMIT_MEMLOCK, &most);
    char *piece = try_map("mmap", mmap(NULL, 32 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    try("mlock", mlock(piece, 32 * MIB));
    succeeded("32 MiB that cannot be swapped");
}

// S27

static void s27_disk(void) {
    const char *path = in_room("filled");
    int fd = try("open", open(path, O_CREAT | O_RDWR, 0600));
    unlink(path);
    fill(fd, 64 * MIB, "MiB of disk");
}

#define INODES 5000

static void s27_inodes(void) {
    char many[PATH_MAX], path[PATH_MAX + 32];
    snprintf(many, sizeof many, "%s", in_room("many")); // once: later there may be no room
    try("mkdir", mkdir(many, 0700));
    long count = 0;
    int error = 0;
    double from = seconds();
    for (; count < INODES; count++) {
        snprintf(path, sizeof path, "%s/%ld", many, count);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        if (fd < 0) {
            error = errno;
            break;
        }
        close(fd);
    }
    linger(from);
    for (long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%ld", many, i);
        unlink(path);
    }
    rmdir(many);
    came_to(count, INODES, "files", "open", error);
}

static void s27_sparse(void) {
    const char *path = in_room("sparse");
    signal(SIGXFSZ, SIG_IGN);
    int fd = try("open", open(path, O_CREAT | O_RDWR, 0600));
    unlink(path);
    try("ftruncate", ftruncate(fd, 1L << 36));
    succeeded("a file of 64 GiB, all of it empty");
}

#define LOG_LINES 2000

static void s27_log(void) {
    char line[200];
    memset(line, '.', sizeof line);
    line[sizeof line - 1] = '\n';
    double from = seconds();
    long count = 0;
    do
        for (int i = 0; i < LOG_LINES; i++, count++) try("write", write(STDERR_FILENO, line, sizeof line));
    while (seconds() - from < hold());
    succeeded("%ld lines in the log", count);
}

// S28: everything else that there is a number of

static void s28_pty(void) {
    int fds[32], error = 0;
    long count = 0;
    double from = seconds();
    for (; count < 32; count++)
        if ((fds[count] = open("/dev/ptmx", O_RDWR | O_NOCTTY)) < 0) {
            error = errno;
            break;
        }
    linger(from);
    came_to(count, 32, "terminals", "open", error);
}

static void s28_keys(void) {
    char name[64];
    long count = 0;
    int error = 0;
    for (; count < 100; count++) {
        snprintf(name, sizeof name, "tine-%s-%ld", given("token"), count);
        if (syscall(SYS_add_key, "user", name, "x", 1, -2 /* ends with the process */) < 0) {
            error = errno;
            break;
        }
    }
    came_to(count, 100, "keys", "add_key", error);
}

static void s28_inotify(void) {
    long count = 0;
    int error = 0;
    for (; count < 32; count++)
        if (inotify_init1(IN_CLOEXEC) < 0) {
            error = errno;
            break;
        }
    came_to(count, 32, "of the user's watchers", "inotify_init", error);
}

static void s28_mqueue(void) {
    char name[16][64];
    long count = 0;
    int error = 0;
    for (; count < 4; count++) {
        snprintf(name[count], sizeof *name, "/tine-many-%s-%ld", given("token"), count);
        if (mq_open(name[count], O_CREAT | O_RDWR, 0600, NULL) < 0) {
            error = errno;
            break;
        }
    }
    for (long i = 0; i < count; i++) mq_unlink(name[i]);
    came_to(count, 4, "queues", "mq_open", error);
}

static void s28_sysv(void) {
    int ids[64], error = 0;
    long count = 0;
    for (; count < 64; count++)
        if ((ids[count] = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600)) < 0) {
            error = errno;
            break;
        }
    for (long i = 0; i < count; i++) semctl(ids[i], 0, IPC_RMID);
    came_to(count, 64, "semaphores", "semget", error);
}

static void s28_timers(void) {
    long count = 0;
    int error = 0;
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    timer_t timer;
    for (; count < 4096; count++)
        if (timer_create(CLOCK_MONOTONIC, &none, &timer) < 0) {
            error = errno;
            break;
        }
    came_to(count, 4096, "timers", "timer_create", error);
}

static void s28_signals(void) {
    long count = 0;
    int error = 0;
    sigset_t one;
    sigemptyset(&one);
    sigaddset(&one, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &one, NULL);
    for (; count < 4096; count++)
        if (sigqueue(getpid(), SIGRTMIN, (union sigval){0}) < 0) {
            error = errno;
            break;
        }
    came_to(count, 4096, "signals that wait", "rt_sigqueueinfo", error);
}

static void s28_locks(void) {
    int fd = memfd_create("locks", 0);
    if (fd < 0) fd = try("open", open(in_room("locks"), O_CREAT | O_RDWR, 0600));
    long count = 0;
    int error = 0;
    for (; count < 2000; count++) {
        struct flock one = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = count * 2, .l_len = 1};
        if (fcntl(fd, F_SETLK, &one) < 0) {
            error = errno;
            break;
        }
    }
    came_to(count, 2000, "locks", "F_SETLK", error);
}

const struct attempt resources_attempts[] = {
    {"S23.fork-bomb", s23_fork_bomb}, {"S23.fork-storm", s23_fork_storm},
    {"S24.memory", s24_memory},       {"S24.memfd", s24_memfd},
    {"S24.dev-shm", s24_dev_shm},     {"S24.sysv", s24_sysv},
    {"S24.pipes", s24_pipes},         {"S24.in-flight", s24_in_flight},
    {"S24.page-cache", s24_page_cache}, {"S25.descriptors", s25_descriptors},
    {"S25.raise-limit", s25_raise},   {"S26.spin", s26_spin},
    {"S26.spins", s26_spins},         {"S26.realtime", s26_fifo},
    {"S26.deadline", s26_deadline},   {"S26.nice", s26_nice},
    {"S26.ionice", s26_ionice},       {"S26.mlock", s26_mlock},
    {"S27.disk", s27_disk},           {"S27.inodes", s27_inodes},
    {"S27.sparse", s27_sparse},       {"S27.log", s27_log},
    {"S28.pty", s28_pty},             {"S28.keys", s28_keys},
    {"S28.inotify", s28_inotify},     {"S28.mqueue", s28_mqueue},
    {"S28.sysv", s28_sysv},           {"S28.timers", s28_timers},
    {"S28.signals", s28_signals},     {"S28.locks", s28_locks},
    {0},
};
