// S8, S13, S16 to S18, S31 and S35: calls, families and tricks that no service needs, and the moments before main.

#include "jailbreak.h"

#include <arpa/inet.h>
#include <asm/ldt.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/inet_diag.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <linux/sock_diag.h>
#include <linux/userfaultfd.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/quota.h>
#include <sys/user.h>

// S8: io_uring does calls that no filter sees.

struct ring {
    int fd;
    struct io_uring_params params;
    char *sq, *cq;
    struct io_uring_sqe *sqes;
};

static struct ring ring(void) {
    struct ring ring = {0};
    ring.fd = try("io_uring_setup", syscall(SYS_io_uring_setup, 4, &ring.params));
    int flags = MAP_SHARED | MAP_POPULATE, prot = PROT_READ | PROT_WRITE;
    ring.sq = try_map("mmap", mmap(0, 4096, prot, flags, ring.fd, IORING_OFF_SQ_RING));
    ring.cq = try_map("mmap", mmap(0, 4096, prot, flags, ring.fd, IORING_OFF_CQ_RING));
    ring.sqes = try_map("mmap", mmap(0, 4096, prot, flags, ring.fd, IORING_OFF_SQES));
    return ring;
}

static int asked(struct ring *ring, struct io_uring_sqe what) {
    unsigned *tail = (unsigned *)(ring->sq + ring->params.sq_off.tail);
    unsigned mask = *(unsigned *)(ring->sq + ring->params.sq_off.ring_mask);
    unsigned *array = (unsigned *)(ring->sq + ring->params.sq_off.array);
    ring->sqes[*tail & mask] = what;
    array[*tail & mask] = *tail & mask;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    try("io_uring_enter", syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0));
    unsigned *head = (unsigned *)(ring->cq + ring->params.cq_off.head);
    unsigned cq_mask = *(unsigned *)(ring->cq + ring->params.cq_off.ring_mask);
    struct io_uring_cqe *cqes = (struct io_uring_cqe *)(ring->cq + ring->params.cq_off.cqes);
    int result = cqes[*head & cq_mask].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    if (result < 0) errno = -result, result = -1;
    return result;
}

static void s8_open(void) {
    struct ring r = ring();
    int fd = try("IORING_OP_OPENAT", asked(&r, (struct io_uring_sqe){.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD,
                                                 .addr = (uintptr_t)given("decoy"), .open_flags = O_RDONLY}));
    char bytes[256];
    long got = try("IORING_OP_READ", asked(&r, (struct io_uring_sqe){.opcode = IORING_OP_READ, .fd = fd, .addr = (uintptr_t)bytes,
                                                 .len = sizeof bytes}));
    judge("IORING_OP_READ", bytes, got, "decoy-text");
}

static void s8_connect(void) {
    struct ring r = ring();
    int fd = try("IORING_OP_SOCKET", asked(&r, (struct io_uring_sqe){.opcode = IORING_OP_SOCKET, .fd = AF_INET, .off = SOCK_STREAM}));
    struct sockaddr_in where = {AF_INET, htons(given_number("tcp")), {htonl(INADDR_LOOPBACK)}};
    try("IORING_OP_CONNECT", asked(&r, (struct io_uring_sqe){.opcode = IORING_OP_CONNECT, .fd = fd, .addr = (uintptr_t)&where,
                                        .off = sizeof where}));
    char bytes[256];
    long got = try("IORING_OP_RECV", asked(&r, (struct io_uring_sqe){.opcode = IORING_OP_RECV, .fd = fd, .addr = (uintptr_t)bytes,
                                                 .len = sizeof bytes}));
    judge("IORING_OP_RECV", bytes, got, "service-text");
}

// S13: sockets

static void s13_raw(void) {
    int fd = try("socket", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    struct icmphdr question = {.type = ICMP_ECHO, .un.echo = {.id = htons(getpid() & 0xffff)}};
    question.checksum = ~(question.type + question.un.echo.id);
    unsigned sum = 0;
    question.checksum = 0;
    for (size_t i = 0; i < sizeof question / 2; i++) sum += ((uint16_t *)&question)[i];
    question.checksum = ~((sum & 0xffff) + (sum >> 16));
    struct sockaddr_in where = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
    try("sendto", sendto(fd, &question, sizeof question, 0, (void *)&where, sizeof where));
    char bytes[256];
    struct pollfd ready = {fd, POLLIN, 0};
    if (poll(&ready, 1, 2000) < 1) blocked_by("recv", "no packet came");
    succeeded("a packet of %ld bytes was read", try("recv", recv(fd, bytes, sizeof bytes, 0)));
}

static void s13_packet(void) {
    int fd = try("socket", socket(AF_PACKET, SOCK_DGRAM, htons(3 /* ETH_P_ALL */)));
    struct sockaddr_ll where = {.sll_family = AF_PACKET, .sll_protocol = htons(3), .sll_ifindex = if_nametoindex("lo")};
    try("bind", bind(fd, (void *)&where, sizeof where));
    // A word to the service, which anybody on this machine can now hear.
    int udp = try("socket", socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in service = {AF_INET, htons(given_number("udp")), {htonl(INADDR_LOOPBACK)}};
    try("sendto", sendto(udp, given("token"), strlen(given("token")), 0, (void *)&service, sizeof service));
    char bytes[2048];
    struct pollfd ready = {fd, POLLIN, 0};
    for (int i = 0; i < 10000 && poll(&ready, 1, 2000) > 0; i++) {
        long got = try("recv", recv(fd, bytes, sizeof bytes, 0));
        if (holds(bytes, got, "token")) succeeded("somebody's datagram was overheard");
    }
    blocked_by("recv", "no packet came");
}

static long dump(int protocol, void *question, size_t size, char *reply, size_t room) {
    int fd = try("socket", socket(AF_NETLINK, SOCK_RAW, protocol));
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    try("sendto", sendto(fd, question, size, 0, (void *)&kernel, sizeof kernel));
    struct pollfd ready = {fd, POLLIN, 0};
    if (poll(&ready, 1, 2000) < 1) blocked_by("recv", "no answer came");
    return try("recv", recv(fd, reply, room, 0));
}

static char reply[1 << 17];

static void s13_route(void) {
    struct {
        struct nlmsghdr head;
        struct rtgenmsg what;
    } question = {{sizeof question, RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, 1, 0}, {AF_UNSPEC}};
    long got = dump(NETLINK_ROUTE, &question, sizeof question, reply, sizeof reply);
    if (((struct nlmsghdr *)reply)->nlmsg_type != RTM_NEWLINK) blocked_by("recv", "no interfaces");
    succeeded("%ld bytes about interfaces", got);
}

static void s13_diag(void) {
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 what;
    } question = {{sizeof question, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0},
                  {.sdiag_family = AF_INET, .sdiag_protocol = IPPROTO_TCP, .idiag_states = -1}};
    long got = dump(NETLINK_SOCK_DIAG, &question, sizeof question, reply, sizeof reply);
    if (((struct nlmsghdr *)reply)->nlmsg_type != SOCK_DIAG_BY_FAMILY) blocked_by("recv", "no sockets");
    succeeded("%ld bytes about everybody's sockets", got);
}

static void s13_uevent(void) {
    int fd = try("socket", socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT));
    struct sockaddr_nl all = {.nl_family = AF_NETLINK, .nl_groups = 1};
    try("bind", bind(fd, (void *)&all, sizeof all));
    succeeded("the kernel's announcements of devices come here");
}

// S13: calls

static long bpf(int what, union bpf_attr *attr) { return syscall(SYS_bpf, what, attr, sizeof *attr); }

static void s13_bpf_map(void) {
    union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
    int fd = try_if_there("bpf", bpf(BPF_MAP_CREATE, &map));
    int key = 0;
    long value = 7, got = 0;
    union bpf_attr put = {.map_fd = fd, .key = (uintptr_t)&key, .value = (uintptr_t)&value};
    try("bpf", bpf(BPF_MAP_UPDATE_ELEM, &put));
    put.value = (uintptr_t)&got;
    try("bpf", bpf(BPF_MAP_LOOKUP_ELEM, &put));
    if (got != 7) blocked_by("bpf", "another value");
    succeeded("a map in the kernel");
}

static void s13_bpf_program(void) {
    struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0}, {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr load = {.prog_type = BPF_PROG_TYPE_TRACEPOINT, .insns = (uintptr_t)code, .insn_cnt = 2,
                           .license = (uintptr_t) "GPL"};
    try_if_there("bpf", bpf(BPF_PROG_LOAD, &load));
    succeeded("a program in the kernel");
}

static _Noreturn void count(pid_t pid) {
    struct perf_event_attr what = {.type = PERF_TYPE_SOFTWARE, .size = sizeof what, .config = PERF_COUNT_SW_CONTEXT_SWITCHES,
                                   .exclude_kernel = 1};
    int fd = try_if_there("perf_event_open", syscall(SYS_perf_event_open, &what, pid, -1, -1, 0));
    long value;
    try("read", read(fd, &value, sizeof value));
    succeeded("a counter is read, %ld", value);
}

static void s13_perf(void) { count(0); }
static void s13_perf_sibling(void) { count(process("victim")); }

static void s13_userfaultfd(void) {
    int fd = try_if_there("userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* user mode only */));
    struct uffdio_api api = {.api = UFFD_API};
    try("UFFDIO_API", ioctl(fd, UFFDIO_API, &api));
    succeeded("it handles page faults of its own");
}

// Of these the arguments are nonsense: what answers "invalid" instead of "not you" would have done it.
static _Noreturn void answers(const char *call, long done, int nonsense) {
    if (done < 0 && errno == ENOSYS) is_void("this kernel has no %s", call);
    if (done < 0 && errno != nonsense) blocked(call);
    succeeded("the permission check was passed (%s: the arguments are nonsense)", strerrorname_np(nonsense));
}

static void s13_kexec(void) { answers("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0xffff0000UL | 0x80), EINVAL); }
static void s13_kexec_file(void) { answers("kexec_file_load", syscall(SYS_kexec_file_load, -1, -1, 0, 0, 0x8000), EINVAL); }
static void s13_init_module(void) { answers("init_module", syscall(SYS_init_module, NULL, 0, ""), ENOEXEC); }
static void s13_finit_module(void) { answers("finit_module", syscall(SYS_finit_module, -1, "", 0x8000), EINVAL); }
static void s13_delete_module(void) { answers("delete_module", syscall(SYS_delete_module, NULL, O_NONBLOCK), EFAULT); }
static void s13_reboot(void) { answers("reboot", syscall(SYS_reboot, 0, 0, 0, 0), EINVAL); }
static void s13_swapon(void) { answers("swapon", syscall(SYS_swapon, "", 0), ENOENT); }
static void s13_acct(void) { answers("acct", syscall(SYS_acct, ""), ENOENT); }
static void s13_fanotify(void) { answers("fanotify_init", syscall(SYS_fanotify_init, 0x4 /* content */ | 0x8, 3), EINVAL); }

static void s13_quotactl(void) {
    try_if_there("quotactl", syscall(SYS_quotactl, QCMD(Q_SYNC, USRQUOTA), NULL, 0, NULL));
    succeeded("all quotas were written out");
}

static void s13_syslog(void) {
    succeeded("%ld bytes of the kernel's log", try("syslog", syscall(SYS_syslog, 3, reply, sizeof reply)));
}

static void s13_ioperm(void) {
    try_if_there("ioperm", syscall(SYS_ioperm, 0x80, 1, 1));
    syscall(SYS_ioperm, 0x80, 1, 0);
    succeeded("an I/O port is ours (it was not used)");
}

static void s13_open_by_handle(void) {
    struct {
        struct file_handle head;
        char rest[128];
    } handle = {.head.handle_bytes = 128};
    int mount;
    try("name_to_handle_at", name_to_handle_at(AT_FDCWD, given("decoy"), &handle.head, &mount, 0));
    int any = try("open", open(given("folder"), O_RDONLY | O_DIRECTORY));
    int fd = try("open_by_handle_at", open_by_handle_at(any, &handle.head, O_RDONLY));
    char bytes[256];
    long got = try("read", read(fd, bytes, sizeof bytes));
    judge("open_by_handle_at", bytes, got, "decoy-text");
}

// A tracer that sees each call first, and makes another one of it.
static int traced_child(void *unused) {
    (void)unused;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0) return errno;
    raise(SIGSTOP);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) return errno;
    // Becomes add_key: arguments are the child's own, so that only the number has to be changed.
    long key = syscall(SYS_getppid, "user", "tine-traced", "x", 1, -2 /* the process's keyring */);
    return key >= 0 ? 0 : errno;
}

static void s13_seccomp_trace(void) {
    pid_t child = try("fork", fork());
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(traced_child(NULL));
    }
    int status;
    try("waitpid", waitpid(child, &status, 0));
    if (WIFEXITED(status)) {
        errno = WEXITSTATUS(status);
        blocked("PTRACE_TRACEME");
    }
    try("PTRACE_SETOPTIONS", ptrace(PTRACE_SETOPTIONS, child, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL));
    try("PTRACE_CONT", ptrace(PTRACE_CONT, child, 0, 0));
    while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
            struct user_regs_struct registers;
            try("PTRACE_GETREGS", ptrace(PTRACE_GETREGS, child, 0, &registers));
            registers.orig_rax = SYS_add_key;
            try("PTRACE_SETREGS", ptrace(PTRACE_SETREGS, child, 0, &registers));
        }
        ptrace(PTRACE_CONT, child, 0, 0);
    }
    if (WIFSIGNALED(status)) blocked_by("add_key", "a signal");
    errno = WEXITSTATUS(status);
    if (errno) blocked("add_key");
    succeeded("a traced getppid became add_key");
}

// S16: socket families

static _Noreturn void family(int family, int type, int protocol, const char *name) {
    int fd = socket(family, type, protocol);
    if (fd < 0 && (errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT || errno == ESOCKTNOSUPPORT))
        is_void("this kernel has no %s", name);
    try("socket", fd);
    succeeded("a socket of %s", name);
}

static void s16_vsock(void) {
    int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (fd < 0 && errno == EAFNOSUPPORT) is_void("this kernel has no AF_VSOCK");
    try("socket", fd);
    struct sockaddr_vm here = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = VMADDR_PORT_ANY};
    try("bind", bind(fd, (void *)&here, sizeof here));
    try("listen", listen(fd, 1));
    succeeded("the hypervisor may connect");
}

static void s16_alg(void) { family(AF_ALG, SOCK_SEQPACKET, 0, "AF_ALG"); }
static void s16_tipc(void) { family(AF_TIPC, SOCK_RDM, 0, "AF_TIPC"); }
static void s16_rds(void) { family(AF_RDS, SOCK_SEQPACKET, 0, "AF_RDS"); }
static void s16_xdp(void) { family(44 /* XDP */, SOCK_RAW, 0, "AF_XDP"); }
static void s16_key(void) { family(AF_KEY, SOCK_RAW, 2, "AF_KEY"); }
static void s16_can(void) { family(AF_CAN, SOCK_RAW, 1, "AF_CAN"); }
static void s16_kcm(void) { family(41 /* KCM */, SOCK_DGRAM, 0, "AF_KCM"); }
static void s16_smc(void) { family(43 /* SMC */, SOCK_STREAM, 0, "AF_SMC"); }
static void s16_bluetooth(void) { family(AF_BLUETOOTH, SOCK_RAW, 1, "AF_BLUETOOTH"); }
static void s16_pppox(void) { family(AF_PPPOX, SOCK_DGRAM, 0, "AF_PPPOX"); }

// S17: the same calls by other numbers

static long int80(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    if (result < 0 && result > -4096) errno = -result, result = -1;
    return result;
}

static char low[1024]; // below 4 GiB, for this program is static and not relocated

// A kernel without these calls kills whoever tries them: a child asks first.
static int has_int80(void *unused) {
    (void)unused;
    return int80(20 /* getpid */, 0, 0, 0) == getpid() ? 0 : errno ? errno : EFAULT;
}

static void need_int80(void) {
    int code = in_child(has_int80, NULL);
    if (code == 128 + SIGSEGV || code == ENOSYS) is_void("this kernel has no 32-bit calls");
    if (code == 128 + SIGSYS || code == 128 + SIGKILL) blocked_by("int 0x80", code == 128 + SIGSYS ? "SIGSYS" : "SIGKILL");
    errno = code;
    if (code) blocked("int 0x80");
}

static void s17_int80_open(void) {
    need_int80();
    snprintf(low, sizeof low, "%s", given("decoy"));
    int fd = try("int 0x80 open", int80(5, (long)low, O_RDONLY, 0));
    long got = try("int 0x80 read", int80(3, fd, (long)low, sizeof low));
    judge("int 0x80 read", low, got, "decoy-text");
}

// 217 is pivot_root there and something else here: a filter that does not look at the architecture is deceived.
static void s17_int80_add_key(void) {
    need_int80();
    strcpy(low, "user");
    strcpy(low + 16, "tine-int80");
    long number = 286 /* add_key */, key;
    register long r4 __asm__("rsi") = 1;
    register long r5 __asm__("rdi") = -2;
    __asm__ volatile("int $0x80"
                     : "=a"(key)
                     : "a"(number), "b"((long)low), "c"((long)low + 16), "d"((long)low), "r"(r4), "r"(r5)
                     : "memory", "r8", "r9", "r10", "r11");
    if (key < 0 && key > -4096) errno = -key, key = -1;
    try("int 0x80 add_key", key);
    succeeded("a key was kept");
}

static void s17_int80_socket(void) {
    need_int80();
    try("int 0x80 socket", int80(359, AF_NETLINK, SOCK_RAW, 0));
    succeeded("a netlink socket");
}

static int x32_getpid(void *unused) {
    (void)unused;
    return syscall(0x40000000 | SYS_getpid) == getpid() ? 0 : errno;
}

static void s17_x32(void) {
    int code = in_child(x32_getpid, NULL);
    if (code == ENOSYS) is_void("this kernel has no x32 calls");
    if (code == 128 + SIGSYS) blocked_by("x32", "SIGSYS");
    errno = code;
    if (code) blocked("x32");
    snprintf(low, sizeof low, "%s", given("decoy"));
    int fd = try("x32 open", syscall(0x40000000 | SYS_open, low, O_RDONLY));
    long got = try("x32 read", syscall(0x40000000 | SYS_read, fd, low, sizeof low));
    judge("x32 read", low, got, "decoy-text");
}

// S18

static void s18_personality(void) {
    long before = try("personality", personality(0xffffffff));
    try("personality", personality(before | ADDR_NO_RANDOMIZE | READ_IMPLIES_EXEC));
    if (!(personality(0xffffffff) & ADDR_NO_RANDOMIZE)) blocked_by("personality", "it is as before");
    succeeded("programs started from here lie at known addresses, with all data executable");
}

static void s18_ldt(void) {
    struct user_desc entry = {.entry_number = 0, .base_addr = 0, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1, .useable = 1};
    try_if_there("modify_ldt", syscall(SYS_modify_ldt, 1, &entry, sizeof entry));
    succeeded("a segment of its own");
}

static int read_tsc(void *ticks) {
    unsigned low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    *(uint64_t *)ticks = (uint64_t)high << 32 | low;
    return 0;
}

static void s18_tsc(void) {
    uint64_t *ticks = shared_memory(4096);
    child_must("rdtsc", read_tsc, ticks);
    succeeded("the time-stamp counter is readable, %llu", (unsigned long long)*ticks);
}

static void s18_tsc_off(void) {
    try("PR_SET_TSC", prctl(PR_SET_TSC, PR_TSC_SIGSEGV));
    int now = 0;
    try("PR_GET_TSC", prctl(PR_GET_TSC, &now));
    prctl(PR_SET_TSC, PR_TSC_ENABLE);
    if (now != PR_TSC_SIGSEGV) blocked_by("PR_SET_TSC", "it is as before");
    succeeded("programs started from here die when they read the clock");
}

// S31: being one's own supervisor

static int forbidden_call(void *pair) {
    int *ends = pair;
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_add_key, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    int listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    int told[2] = {listener, errno};
    if (write(ends[1], told, sizeof told) < 0 || listener < 0) return EPIPE;
    return syscall(SYS_add_key, "user", "tine-notified", "x", 1, -2) >= 0 ? 0 : errno;
}

static void s31_continue(void) {
    int ends[2], told[2];
    try("pipe", pipe(ends));
    // One table of descriptors for both, so that the listener is here as well, by the same number.
    pid_t child = try("clone", syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0));
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(forbidden_call(ends));
    }
    struct pollfd said = {ends[0], POLLIN, 0};
    if (poll(&said, 1, 5000) < 1 || read(ends[0], told, sizeof told) != sizeof told) blocked_by("seccomp", "a signal");
    errno = told[1];
    int listener = try("seccomp", told[0]);
    int pidfd = try("pidfd_open", syscall(SYS_pidfd_open, child, 0));
    struct pollfd ready[2] = {{listener, POLLIN, 0}, {pidfd, POLLIN, 0}};
    poll(ready, 2, 5000);
    if (ready[0].revents & POLLIN) {
        struct seccomp_notif question = {0};
        try("SECCOMP_IOCTL_NOTIF_RECV", ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &question));
        struct seccomp_notif_resp answer = {.id = question.id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        try("SECCOMP_IOCTL_NOTIF_SEND", ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer));
    }
    int status;
    try("waitpid", waitpid(child, &status, 0));
    if (WIFSIGNALED(status)) blocked_by("add_key", "a signal");
    errno = WEXITSTATUS(status);
    if (errno) blocked("add_key");
    succeeded("its own supervisor let a call pass");
}

// A path that changes between whoever checks it and the kernel.
static void s31_changing_path(void) {
    char *path = shared_memory(4096);
    const char *good = given("allowed"), *bad = given("decoy");
    pid_t child = try("fork", fork());
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) strcpy(path, good), strcpy(path, bad);
    }
    double end = seconds() + 0.5;
    int tries = 0, error = 0;
    while (seconds() < end) {
        int fd = open(path, O_RDONLY);
        tries++;
        if (fd < 0) {
            if (errno != ENOENT) error = errno;
            continue;
        }
        char bytes[256];
        ssize_t got = read(fd, bytes, sizeof bytes);
        close(fd);
        if (got > 0 && holds(bytes, got, "decoy-text")) {
            kill(child, SIGKILL);
            succeeded("after %d times", tries);
        }
    }
    kill(child, SIGKILL);
    errno = error ? error : ENOENT;
    blocked("open");
}

// S35: before main

static char early_read[256];
static int early_errno = -1;
static char earliest_read[256];
static int earliest_errno = -1;

static void read_early(int argc, char **argv, char *into, int *error) {
    if (argc < 3 || strcmp(argv[1], "client")) return;
    int fd = open(argv[2], O_RDONLY);
    *error = fd < 0 ? errno : 0;
    if (fd < 0) return;
    if (read(fd, into, sizeof early_read - 1) < 0) *error = errno;
    close(fd);
}

static void preinit(int argc, char **argv, char **envp) {
    (void)envp;
    read_early(argc, argv, earliest_read, &earliest_errno);
}

__attribute__((section(".preinit_array"), used)) static void (*at_preinit)(int, char **, char **) = preinit;

__attribute__((constructor)) static void construct(int argc, char **argv) { read_early(argc, argv, early_read, &early_errno); }

static _Noreturn void early(const char *when, const char *bytes, int error) {
    if (error < 0) is_void("it was not told of a file in its arguments");
    errno = error;
    if (error) blocked(when);
    judge(when, bytes, sizeof early_read, "decoy-text");
}

static void s35_constructor(void) { early("open", early_read, early_errno); }
static void s35_preinit(void) { early("open", earliest_read, earliest_errno); }

// What a program that is executed from here can do is what this one can: nothing comes off with an exec.
static void s35_exec(void) {
    char output[512];
    size_t got = run_again(given("other-program"), "S35.inner-read", "inner=1", output, sizeof output);
    if (memmem(output, got, given("decoy-text"), strlen(given("decoy-text")))) succeeded("a program executed from here read it");
    output[strcspn(output, "\n")] = 0;
    blocked_by("open", output);
}

static void s35_inner_read(void) {
    char bytes[256];
    int fd = open(given("decoy"), O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, bytes, sizeof bytes - 1);
    printf("%.*s\n", got < 0 ? 64 : (int)got, got < 0 ? strerrorname_np(errno) : bytes);
    fflush(stdout);
    _exit(0);
}

// The dynamic loader runs what LD_AUDIT names before the program's own first line.
static void s35_audit(void) {
    int ends[2];
    try("pipe", pipe(ends));
    pid_t child = try("fork", fork());
    if (!child) {
        dup2(ends[1], STDOUT_FILENO);
        setenv("LD_AUDIT", given("audit"), 1);
        setenv("AUDIT_READS", given("decoy"), 1);
        execl("/bin/true", "true", NULL);
        dprintf(STDOUT_FILENO, "%s", strerrorname_np(errno));
        _exit(1);
    }
    close(ends[1]);
    char bytes[512];
    size_t length = 0;
    ssize_t got;
    while (length < sizeof bytes - 1 && (got = read(ends[0], bytes + length, sizeof bytes - 1 - length)) > 0) length += got;
    bytes[length] = 0;
    waitpid(child, NULL, 0);
    if (memmem(bytes, length, given("decoy-text"), strlen(given("decoy-text")))) succeeded("an audit library read it");
    blocked_by("open", length ? bytes : "the library was not loaded");
}

const struct attempt kernel_attempts[] = {
    {"S8.open", s8_open},
    {"S8.connect", s8_connect},
    {"S13.raw-socket", s13_raw},
    {"S13.packet-socket", s13_packet},
    {"S13.netlink-route", s13_route},
    {"S13.netlink-diag", s13_diag},
    {"S13.netlink-uevent", s13_uevent},
    {"S13.bpf-map", s13_bpf_map},
    {"S13.bpf-program", s13_bpf_program},
    {"S13.perf", s13_perf},
    {"S13.perf-sibling", s13_perf_sibling},
    {"S13.userfaultfd", s13_userfaultfd},
    {"S13.kexec", s13_kexec},
    {"S13.kexec-file", s13_kexec_file},
    {"S13.init-module", s13_init_module},
    {"S13.finit-module", s13_finit_module},
    {"S13.delete-module", s13_delete_module},
    {"S13.reboot", s13_reboot},
    {"S13.swapon", s13_swapon},
    {"S13.acct", s13_acct},
    {"S13.fanotify", s13_fanotify},
    {"S13.quotactl", s13_quotactl},
    {"S13.syslog", s13_syslog},
    {"S13.ioperm", s13_ioperm},
    {"S13.open-by-handle", s13_open_by_handle},
    {"S13.seccomp-trace", s13_seccomp_trace},
    {"S16.vsock", s16_vsock},
    {"S16.alg", s16_alg},
    {"S16.tipc", s16_tipc},
    {"S16.rds", s16_rds},
    {"S16.xdp", s16_xdp},
    {"S16.key", s16_key},
    {"S16.can", s16_can},
    {"S16.kcm", s16_kcm},
    {"S16.smc", s16_smc},
    {"S16.bluetooth", s16_bluetooth},
    {"S16.pppox", s16_pppox},
    {"S17.int80-open", s17_int80_open},
    {"S17.int80-add-key", s17_int80_add_key},
    {"S17.int80-socket", s17_int80_socket},
    {"S17.x32", s17_x32},
    {"S18.personality", s18_personality},
    {"S18.modify-ldt", s18_ldt},
    {"S18.tsc", s18_tsc},
    {"S18.tsc-off", s18_tsc_off},
    {"S31.own-supervisor", s31_continue},
    {"S31.changing-path", s31_changing_path},
    {"S35.constructor", s35_constructor},
    {"S35.preinit", s35_preinit},
    {"S35.exec", s35_exec},
    {"S35.inner-read", s35_inner_read},
    {"S35.audit", s35_audit},
    {0},
};
