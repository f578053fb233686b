// S11 and S12: programs that give rights, and files of the kernel's that give the machine.

#include "jailbreak.h"

#include <grp.h>
#include <linux/capability.h>

// S11

// Ordinary rights, as far as they can be had, so that those which are gained are seen.
static void be_ordinary(void) {
    if (geteuid() != 0) return;
    syscall(SYS_setgroups, 0, NULL);
    syscall(SYS_setresgid, 65534, 65534, 65534);
    syscall(SYS_setresuid, 65534, 65534, 65534);
}

static _Noreturn void gain(const char *key) {
    be_ordinary();
    char output[512];
    if (open(given("secret"), O_RDONLY) >= 0) blocked_by("setresuid", "the secret is readable without gaining anything");
    size_t got = run_again(given(key), "S11.inner-read", "inner=1", output, sizeof output);
    if (!memmem(output, got, given("secret-text"), strlen(given("secret-text")))) {
        output[strcspn(output, "\n")] = 0;
        blocked_by("execve", got ? output : "no rights were gained");
    }
    succeeded("it read the secret");
}

static void s11_setuid(void) { gain("suid"); }

static void s11_file_caps(void) { gain("filecaps"); }

// What runs with the gained rights.
static void s11_inner_read(void) {
    char bytes[256];
    size_t got = contents(given("secret"), bytes, sizeof bytes - 1);
    bytes[got] = 0;
    printf("%s", bytes);
    fflush(stdout);
    _exit(0);
}

static void s11_ambient(void) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct caps[2];
    try("capget", syscall(SYS_capget, &head, caps));
    caps[0].inheritable |= 1 << CAP_CHOWN;
    try("capset", syscall(SYS_capset, &head, caps));
    try("PR_CAP_AMBIENT_RAISE", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
    succeeded("a capability that programs inherit");
}

// Root's own: a file is given away.
static void s11_use(void) {
    const char *path = inside("folder", "given-away");
    close(try("open", open(path, O_CREAT | O_WRONLY, 0600)));
    int done = chown(path, 12345, 12345);
    int error = errno;
    unlink(path);
    errno = error;
    try("chown", done);
    succeeded("a file was given away");
}

static void s11_setuid_call(void) {
    uid_t before = getuid();
    try("setresuid", setresuid(12345, 12345, 12345));
    succeeded("from user %d to %d", before, getuid());
}

// S12

// CVE-2019-5736: who runs a program of ours can be made to open itself, and to write once it has become another.
static void s12_self_exe(void) {
    char output[512];
    size_t got = run_again(given("program"), "S12.inner-open", "inner=1", output, sizeof output);
    if (memmem(output, got, "written", 7)) succeeded("the program was changed on disk");
    output[strcspn(output, "\n")] = 0;
    blocked_by("open", output);
}

static void s12_inner_open(void) {
    char number[32];
    int fd = open("/proc/self/exe", O_PATH);
    if (fd < 0) { printf("%s\n", strerrorname_np(errno)); fflush(stdout); _exit(1); }
    snprintf(number, sizeof number, "inherited=%d", fd);
    char output[256];
    // The other program is the one that tries; now nobody runs the first any more, but for this process, which ends.
    char *argv[] = {"jailbreak", "S12.inner-write", number, NULL};
    (void)output;
    execv(given("other-program"), argv);
    printf("%s\n", strerrorname_np(errno));
    fflush(stdout);
    _exit(1);
}

static void s12_inner_write(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%ld", given_number("inherited"));
    int fd = open(path, O_WRONLY | O_APPEND);
    if (fd < 0 || write(fd, "REWRITTEN", 9) != 9) printf("%s\n", strerrorname_np(errno));
    else printf("written\n");
    fflush(stdout);
    _exit(0);
}

// The same is written back, so that nothing changes; that the kernel takes it is the point.
static _Noreturn void write_back(const char *path, const char *what) {
    char text[4096];
    int fd = open(path, O_RDONLY);
    if (fd < 0 && errno == ENOENT) is_void("this kernel has no %s here", path);
    try("open", fd);
    ssize_t got = try("read", read(fd, text, sizeof text - 1));
    close(fd);
    text[got] = 0;
    put(path, 0, got ? text : "\n");
    succeeded("%s was written, with what was there", what);
}

static void s12_sysctl(void) { write_back("/proc/sys/vm/swappiness", "a setting of the machine's"); }

static void s12_core_pattern(void) { write_back("/proc/sys/kernel/core_pattern", "the path of core dumps"); }

static void s12_modprobe(void) { write_back("/proc/sys/kernel/modprobe", "the path of modprobe"); }

static void s12_uevent(void) { write_back("/sys/kernel/uevent_helper", "the path of the hotplug program"); }

static void s12_release_agent(void) { write_back(given("release-agent"), "the path of the release agent"); }

static void s12_sysrq(void) {
    int fd = open("/proc/sysrq-trigger", O_WRONLY);
    if (fd < 0 && errno == ENOENT) is_void("this kernel has no /proc/sysrq-trigger");
    try("open", fd);
    succeeded("it was opened (nothing was asked for)");
}

static void s12_sysfs(void) {
    int fd = open("/sys/kernel/mm/transparent_hugepage/enabled", O_WRONLY);
    if (fd < 0 && errno == ENOENT) is_void("this kernel has no transparent huge pages");
    try("open", fd);
    succeeded("a setting of the kernel's was opened for writing");
}

const struct attempt privileges_attempts[] = {
    {"S11.setuid-program", s11_setuid},
    {"S11.file-capabilities", s11_file_caps},
    {"S11.inner-read", s11_inner_read},
    {"S11.ambient", s11_ambient},
    {"S11.use-capability", s11_use},
    {"S11.change-user", s11_setuid_call},
    {"S12.self-exe", s12_self_exe},
    {"S12.inner-open", s12_inner_open},
    {"S12.inner-write", s12_inner_write},
    {"S12.sysctl", s12_sysctl},
    {"S12.core-pattern", s12_core_pattern},
    {"S12.modprobe", s12_modprobe},
    {"S12.uevent-helper", s12_uevent},
    {"S12.release-agent", s12_release_agent},
    {"S12.sysrq", s12_sysrq},
    {"S12.sysfs", s12_sysfs},
    {0},
};
