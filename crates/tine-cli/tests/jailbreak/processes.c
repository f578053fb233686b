// S1 to S6: other processes. Traced, read, written, robbed of descriptors, signalled, listed.

#include "jailbreak.h"

#include <dirent.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

// S1: ptrace

static void traced(const char *call, pid_t pid) {
    int status;
    try("waitpid", waitpid(pid, &status, __WALL));
    if (!WIFSTOPPED(status)) blocked_by(call, "it did not stop");
}

static _Noreturn void peek_planted(pid_t pid) {
    char bytes[128];
    long address = given_number("address");
    for (size_t at = 0; at < sizeof bytes; at += sizeof(long)) {
        errno = 0;
        long word = ptrace(PTRACE_PEEKDATA, pid, address + at, NULL);
        if (errno) blocked("PTRACE_PEEKDATA");
        memcpy(bytes + at, &word, sizeof word);
    }
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    judge("PTRACE_PEEKDATA", bytes, sizeof bytes, "victim-text");
}

static void s1_attach_sibling(void) {
    pid_t pid = process("victim");
    try("PTRACE_ATTACH", ptrace(PTRACE_ATTACH, pid, NULL, NULL));
    traced("PTRACE_ATTACH", pid);
    peek_planted(pid);
}

static void seize(pid_t pid) {
    try("PTRACE_SEIZE", ptrace(PTRACE_SEIZE, pid, NULL, NULL));
    try("PTRACE_INTERRUPT", ptrace(PTRACE_INTERRUPT, pid, NULL, NULL));
    traced("PTRACE_INTERRUPT", pid);
}

static void s1_seize_sibling(void) {
    pid_t pid = process("victim");
    seize(pid);
    peek_planted(pid);
}

static _Noreturn void read_registers(pid_t pid) {
    seize(pid);
    struct user_regs_struct registers;
    long got = ptrace(PTRACE_GETREGS, pid, NULL, &registers);
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    try("PTRACE_GETREGS", got);
    succeeded("its registers were read, rip=%#llx", registers.rip);
}

static void s1_master(void) { read_registers(process("master")); }

// Stands for init and every other daemon of the machine, none of which a test may touch.
static void s1_stranger(void) { read_registers(process("stranger")); }

// S2: process_vm

static void s2_readv(void) {
    char bytes[128];
    struct iovec here = {bytes, sizeof bytes}, there = {(void *)given_number("address"), sizeof bytes};
    long got = try("process_vm_readv", process_vm_readv(process("victim"), &here, 1, &there, 1, 0));
    judge("process_vm_readv", bytes, got, "victim-text");
}

static void s2_writev(void) {
    char byte = 'x';
    struct iovec here = {&byte, 1}, there = {(void *)given_number("scratch-address"), 1};
    try("process_vm_writev", process_vm_writev(process("victim"), &here, 1, &there, 1, 0));
    succeeded("a byte of its memory was changed");
}

static void s2_madvise(void) {
    int pidfd = try("pidfd_open", syscall(SYS_pidfd_open, process("victim"), 0));
    struct iovec there = {(void *)given_number("address"), 4096};
    long got = try("process_madvise", syscall(SYS_process_madvise, pidfd, &there, 1, MADV_COLD, 0));
    succeeded("%ld bytes of its memory were called cold", got);
}

// S3: /proc

static const char *of_victim(const char *name) {
    static char path[128];
    snprintf(path, sizeof path, "/proc/%d/%s", process("victim"), name);
    return path;
}

static void s3_mem(void) {
    int fd = try("open", open(of_victim("mem"), O_RDONLY));
    char bytes[128];
    long got = try("pread", pread(fd, bytes, sizeof bytes, given_number("address")));
    judge("pread", bytes, got, "victim-text");
}

static void s3_mem_write(void) {
    int fd = try("open", open(of_victim("mem"), O_RDWR));
    try("pwrite", pwrite(fd, "x", 1, given_number("scratch-address")));
    succeeded("a byte of its memory was changed");
}

static char bytes[1 << 18];

static void s3_environ(void) {
    size_t got = contents(of_victim("environ"), bytes, sizeof bytes);
    judge("read", bytes, got, "victim-text");
}

static void s3_cmdline(void) {
    size_t got = contents(of_victim("cmdline"), bytes, sizeof bytes);
    judge("read", bytes, got, "victim-text");
}

static void s3_maps(void) {
    size_t got = contents(of_victim("maps"), bytes, sizeof bytes - 1);
    char address[32];
    snprintf(address, sizeof address, "%lx", given_number("address") & ~0xfffL);
    if (!memmem(bytes, got, "[stack]", 7)) blocked_by("read", "no mappings in it");
    succeeded("%zu bytes of addresses", got);
}

static void s3_fd(void) {
    char name[32];
    snprintf(name, sizeof name, "fd/%ld", given_number("victim-fd"));
    size_t got = contents(of_victim(name), bytes, sizeof bytes);
    judge("read", bytes, got, "victim-text");
}

static void s3_link(const char *name) {
    char link[PATH_MAX];
    long length = try("readlink", readlink(of_victim(name), link, sizeof link));
    succeeded("it is %.*s", (int)length, link);
}

static void s3_cwd(void) { s3_link("cwd"); }

static void s3_exe(void) { s3_link("exe"); }

static void s3_root(void) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s%s", of_victim("root"), given("decoy"));
    size_t got = contents(path, bytes, sizeof bytes);
    judge("read", bytes, got, "decoy-text");
}

// Whatever the master knows must not have come along: its key was in its environment, so in its memory.
static void s3_own_memory(void) {
    FILE *maps = fopen("/proc/self/maps", "r");
    if (!maps) blocked("open");
    int memory = try("open", open("/proc/self/mem", O_RDONLY));
    const char *key = given("master-key");
    char found[128]; // the key is told in halves, so that the telling is not what is found
    snprintf(found, sizeof found, "%s%s", key, given("master-key-end"));
    size_t length = strlen(found), size = 1 << 20, seen = 0;
    char *piece = malloc(size);
    for (unsigned long from, to; fscanf(maps, "%lx-%lx%*[^\n]", &from, &to) == 2;)
        for (unsigned long at = from; at < to; at += size - length) {
            if (piece >= (char *)from && piece < (char *)to) break; // what we read into
            ssize_t got = pread(memory, piece, to - at < size ? to - at : size, at);
            if (got <= 0) break;
            seen += got;
            for (char *hit = piece; (hit = memmem(hit, piece + got - hit, found, length)); hit++) {
                unsigned long place = at + (hit - piece), own = (unsigned long)found;
                if (place < own || place >= own + sizeof found) succeeded("the master's key is in this process's memory");
            }
        }
    char reason[64];
    snprintf(reason, sizeof reason, "not in %zu KiB", seen >> 10);
    blocked_by("search", reason);
}

// S4: descriptors of others

static int stolen(pid_t pid, int fd) {
    int pidfd = try("pidfd_open", syscall(SYS_pidfd_open, pid, 0));
    return syscall(SYS_pidfd_getfd, pidfd, fd, 0);
}

static void s4_sibling_socket(void) {
    int fd = try("pidfd_getfd", stolen(process("victim"), STDIN_FILENO));
    char word[64];
    struct pollfd ready = {fd, POLLIN, 0};
    poll(&ready, 1, 5000);
    long got = try("recv", recv(fd, word, sizeof word, MSG_DONTWAIT));
    judge("recv", word, got, "said");
}

static void s4_master_listener(void) {
    pid_t pid = process("master");
    for (int fd = 0; fd < 64; fd++) {
        int mine = stolen(pid, fd), listens = 0;
        if (mine < 0 && errno == EBADF) continue;
        try("pidfd_getfd", mine);
        if (!getsockopt(mine, SOL_SOCKET, SO_ACCEPTCONN, &listens, &(socklen_t){sizeof listens}) && listens)
            succeeded("the master's listener is descriptor %d here", mine);
        close(mine);
    }
    blocked_by("pidfd_getfd", "no listener found");
}

static void s4_kcmp(void) {
    pid_t pid = process("victim");
    long order = try_if_there("kcmp", syscall(SYS_kcmp, getpid(), pid, KCMP_VM, 0, 0));
    succeeded("the kernel compares our memory with its: %ld", order);
}

// S5: signals, and what else is done to a process by its number

static void s5_kill(void) {
    try("kill", kill(process("victim"), SIGUSR1));
    succeeded("USR1 was sent");
}

static void s5_kill_9(void) {
    try("kill", kill(process("victim"), SIGKILL));
    succeeded("KILL was sent");
}

static void s5_stop(void) {
    try("kill", kill(process("victim"), SIGSTOP));
    succeeded("STOP was sent");
}

static void s5_group(void) {
    try("kill", kill(-process("victim"), SIGUSR1)); // it leads a session, so a group
    succeeded("USR1 was sent to its group");
}

static void s5_tgkill(void) {
    pid_t pid = process("victim");
    try("tgkill", syscall(SYS_tgkill, pid, pid, SIGUSR1));
    succeeded("USR1 was sent");
}

static void s5_sigqueue(void) {
    try("rt_sigqueueinfo", sigqueue(process("victim"), SIGUSR1, (union sigval){.sival_int = 1}));
    succeeded("USR1 was queued");
}

static void s5_pidfd(void) {
    int pidfd = try("pidfd_open", syscall(SYS_pidfd_open, process("victim"), 0));
    try("pidfd_send_signal", syscall(SYS_pidfd_send_signal, pidfd, SIGUSR1, NULL, 0));
    succeeded("USR1 was sent");
}

static void s5_sigio(void) {
    int ends[2];
    try("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    try("F_SETOWN", fcntl(ends[0], F_SETOWN, process("victim")));
    try("F_SETSIG", fcntl(ends[0], F_SETSIG, SIGUSR1));
    try("O_ASYNC", fcntl(ends[0], F_SETFL, O_ASYNC));
    try("write", write(ends[1], "x", 1)); // now the kernel signals, or does not: the victim knows
    succeeded("the kernel was asked to signal it");
}

static void s5_master(void) {
    try("kill", kill(process("master"), SIGUSR1));
    succeeded("USR1 was sent");
}

static void s5_stranger(void) {
    try("kill", kill(process("stranger"), SIGKILL));
    succeeded("KILL was sent");
}

static void s5_prlimit(void) {
    pid_t pid = process("victim");
    struct rlimit old;
    try("prlimit", prlimit(pid, RLIMIT_NOFILE, NULL, &old));
    struct rlimit low = {77, old.rlim_max};
    try("prlimit", prlimit(pid, RLIMIT_NOFILE, &low, NULL));
    succeeded("it may have 77 descriptors now");
}

static void s5_nice(void) {
    try("setpriority", setpriority(PRIO_PROCESS, process("victim"), 13));
    succeeded("its niceness is 13 now");
}

static void s5_affinity(void) {
    pid_t pid = process("victim");
    cpu_set_t set;
    try("sched_getaffinity", sched_getaffinity(pid, sizeof set, &set));
    for (int cpu = 0, seen = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &set) && seen++) CPU_CLR(cpu, &set);
    try("sched_setaffinity", sched_setaffinity(pid, sizeof set, &set));
    succeeded("it has one processor now");
}

static void s5_oom(void) {
    put(of_victim("oom_score_adj"), 0, "999");
    succeeded("it is the first whom the kernel kills when memory is short");
}

// S6: who else is there

static void s6_list(void) {
    pid_t pid = process("victim");
    DIR *folder = opendir("/proc");
    if (!folder) blocked("open");
    int others = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        int number = atoi(entry->d_name);
        if (number == pid) succeeded("it is listed");
        others += number > 0 && number != getpid();
    }
    blocked_by("getdents", others ? "ENOENT" : "nobody else is listed");
}

static void s6_status(void) {
    size_t got = contents(of_victim("status"), bytes, sizeof bytes);
    if (!memmem(bytes, got, "Name:", 5)) blocked_by("read", "no status in it");
    succeeded("%zu bytes about it", got);
}

static void s6_pidfd(void) {
    try("pidfd_open", syscall(SYS_pidfd_open, process("victim"), 0));
    succeeded("a descriptor of it");
}

static void s6_session(void) {
    succeeded("its session is %ld", try("getsid", getsid(process("victim"))));
}

static void s6_probe(void) {
    try("kill", kill(process("victim"), 0));
    succeeded("it is there, and we might signal it");
}

static void s6_connections(void) {
    size_t got = contents("/proc/net/tcp", bytes, sizeof bytes);
    char port[16];
    snprintf(port, sizeof port, ":%04lX ", given_number("port"));
    if (!memmem(bytes, got, port, strlen(port))) blocked_by("read", "the server's connections are not in it");
    succeeded("the server's connections are listed");
}

const struct attempt processes_attempts[] = {
    {"S1.attach-sibling", s1_attach_sibling},
    {"S1.seize-sibling", s1_seize_sibling},
    {"S1.master", s1_master},
    {"S1.stranger", s1_stranger},
    {"S2.readv", s2_readv},
    {"S2.writev", s2_writev},
    {"S2.madvise", s2_madvise},
    {"S3.mem", s3_mem},
    {"S3.mem-write", s3_mem_write},
    {"S3.environ", s3_environ},
    {"S3.cmdline", s3_cmdline},
    {"S3.maps", s3_maps},
    {"S3.fd", s3_fd},
    {"S3.cwd", s3_cwd},
    {"S3.exe", s3_exe},
    {"S3.root", s3_root},
    {"S3.own-memory", s3_own_memory},
    {"S4.sibling-socket", s4_sibling_socket},
    {"S4.master-listener", s4_master_listener},
    {"S4.kcmp", s4_kcmp},
    {"S5.kill-sibling", s5_kill},
    {"S5.kill9-sibling", s5_kill_9},
    {"S5.stop-sibling", s5_stop},
    {"S5.kill-group", s5_group},
    {"S5.tgkill", s5_tgkill},
    {"S5.sigqueue", s5_sigqueue},
    {"S5.pidfd-signal", s5_pidfd},
    {"S5.sigio", s5_sigio},
    {"S5.kill-master", s5_master},
    {"S5.kill-stranger", s5_stranger},
    {"S5.prlimit", s5_prlimit},
    {"S5.nice", s5_nice},
    {"S5.affinity", s5_affinity},
    {"S5.oom-score", s5_oom},
    {"S6.list", s6_list},
    {"S6.status", s6_status},
    {"S6.pidfd", s6_pidfd},
    {"S6.session", s6_session},
    {"S6.probe", s6_probe},
    {"S6.connections", s6_connections},
    {0},
};
