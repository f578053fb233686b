// S19, S33, S34 and S36: files. The secret is its owner's only; the decoy is anybody's; nothing of either was opened to the
// program, nor was the folder, in which anybody may write.

#include "jailbreak.h"

#include <sys/xattr.h>
#include <utime.h>

static char bytes[4096];

static _Noreturn void reads(const char *path, const char *key) {
    size_t got = contents(path, bytes, sizeof bytes);
    judge("read", bytes, got, key);
}

// S19: reading

static void s19_secret(void) { reads(given("secret"), "secret-text"); }
static void s19_decoy(void) { reads(given("decoy"), "decoy-text"); }
static void s19_other_tmp(void) { reads(given("victim-file"), "victim-text"); }

// Where the secret is: what else is there may have been opened.
static void s19_list(void) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", given("secret"));
    *strrchr(path, '/') = 0;
    int fd = try("open", open(path, O_RDONLY | O_DIRECTORY));
    long got = try("getdents64", syscall(SYS_getdents64, fd, bytes, sizeof bytes));
    if (!memmem(bytes, got, "secret", 7)) blocked_by("getdents64", "the secret is not listed");
    succeeded("the secret is among %ld bytes of names", got);
}

static void s19_stat(void) {
    struct stat what;
    try("stat", stat(given("secret"), &what));
    succeeded("the secret has %ld bytes", (long)what.st_size);
}

static void s19_log(void) {
    // What standard error is may be opened again, with all that was written there before.
    int fd = try("open", open("/proc/self/fd/2", O_RDONLY | O_NONBLOCK));
    struct stat what;
    try("fstat", fstat(fd, &what));
    if (S_ISFIFO(what.st_mode)) succeeded("the log's pipe can be read, and its lines kept from whoever keeps them");
    succeeded("the log can be read");
}

// S19: writing

static void s19_write(void) {
    put(given("writable"), O_APPEND, "WRITTEN\n");
    succeeded("a line was appended");
}

static void s19_truncate(void) {
    try("truncate", truncate(given("writable"), 1));
    struct stat what;
    try("stat", stat(given("writable"), &what));
    if (what.st_size != 1) blocked_by("truncate", "it is as long as before");
    succeeded("it has one byte now");
}

static void s19_create(void) {
    put(inside("folder", "created"), O_CREAT | O_EXCL, "WRITTEN\n");
    succeeded("a file was made");
}

static void s19_tmpfile(void) {
    int fd = try("open", open(given("folder"), O_TMPFILE | O_RDWR, 0600));
    try("write", write(fd, "x", 1));
    succeeded("a file without a name was made");
}

static void s19_mkdir(void) {
    try("mkdir", mkdir(inside("folder", "created"), 0700));
    succeeded("a folder was made");
}

static void s19_symlink(void) {
    try("symlink", symlink(given("secret"), inside("folder", "created")));
    succeeded("a symbolic link was made");
}

static void s19_hardlink(void) {
    try("link", link(given("writable"), inside("folder", "created")));
    succeeded("a second name for the file");
}

static void s19_mkfifo(void) {
    try("mkfifo", mkfifo(inside("folder", "created"), 0600));
    succeeded("a pipe was made");
}

static void s19_socket(void) {
    int fd = try("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un where = {AF_UNIX, ""};
    snprintf(where.sun_path, sizeof where.sun_path, "%s", inside("folder", "created"));
    try("bind", bind(fd, (void *)&where, sizeof where));
    succeeded("a socket was made");
}

static void s19_unlink(void) {
    try("unlink", unlink(given("writable")));
    succeeded("the file is gone");
}

static void s19_rename(void) {
    try("rename", rename(given("writable"), inside("folder", "renamed")));
    succeeded("the file has another name");
}

static void s19_chmod(void) {
    try("chmod", chmod(given("writable"), 0604));
    struct stat what;
    try("stat", stat(given("writable"), &what));
    if ((what.st_mode & 0777) != 0604) blocked_by("chmod", "its mode is as before");
    succeeded("its mode was changed");
}

static void s19_utime(void) {
    struct utimbuf times = {1, 1};
    try("utime", utime(given("writable"), &times));
    struct stat what;
    try("stat", stat(given("writable"), &what));
    if (what.st_mtime != 1) blocked_by("utime", "its times are as before");
    succeeded("it is from 1970 now");
}

static void s19_setxattr(void) {
    int done = setxattr(given("writable"), "user.tine", "x", 1, 0);
    if (done < 0 && errno == ENOTSUP) is_void("this file system has no user attributes");
    try("setxattr", done);
    succeeded("it has an attribute more");
}

static void s19_lock(void) {
    int fd = try("open", open(given("decoy"), O_RDONLY));
    struct flock all = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    try("F_SETLK", fcntl(fd, F_SETLK, &all));
    succeeded("others wait for our lock");
}

// Out of the group that the server holds us by.
static void s19_cgroup_leave(void) {
    put(given("cgroup-procs"), 0, "0");
    succeeded("this process is in the group at the root");
}

static void s19_cgroup_make(void) {
    const char *path = inside("cgroup", given("token"));
    try("mkdir", mkdir(path, 0700));
    rmdir(path);
    succeeded("a control group of its own");
}

// S33: the memory of what dies

static int dies(void *unused) {
    (void)unused;
    static volatile char planted[64];
    strcpy((char *)planted, given("token"));
    struct rlimit most;
    getrlimit(RLIMIT_CORE, &most);
    most.rlim_cur = most.rlim_max;
    setrlimit(RLIMIT_CORE, &most);
    if (chdir(in_room("cores")) < 0) return errno;
    abort();
}

static void s33_core(void) {
    FILE *file = fopen("/proc/sys/kernel/core_pattern", "r");
    char pattern[128] = "";
    if (file && fgets(pattern, sizeof pattern, file) && strcmp(pattern, "core\n"))
        is_void("cores of this machine do not go to the working directory but to %s", pattern);
    struct rlimit most;
    getrlimit(RLIMIT_CORE, &most);
    mkdir(in_room("cores"), 0700);
    int code = in_child(dies, NULL);
    if (code < 128) {
        errno = code;
        blocked("chdir");
    }
    const char *names[] = {"cores/core", NULL};
    for (const char **name = names; *name; name++) {
        int fd = open(in_room(*name), O_RDONLY);
        if (fd < 0) continue;
        static char core[1 << 22];
        ssize_t got = read(fd, core, sizeof core);
        unlink(in_room(*name));
        if (got > 0 && holds(core, got, "token")) succeeded("what it had in memory is in a file");
    }
    char limit[64];
    snprintf(limit, sizeof limit, "no core with it in it (hard limit %ld)", (long)most.rlim_max);
    blocked_by("core", limit);
}

// S34: ways that begin somewhere else than at the root

static void s34_dots(void) {
    char path[PATH_MAX] = "";
    for (int i = 0; i < 40; i++) strcat(path, "../");
    strcat(path, given("decoy") + 1);
    reads(path, "decoy-text");
}

static void s34_cwd_link(void) {
    char path[PATH_MAX];
    int here = try("open", open(".", O_PATH | O_DIRECTORY));
    snprintf(path, sizeof path, "/proc/self/fd/%d/../../../../../../../../..%s", here, given("decoy"));
    reads(path, "decoy-text");
}

// CVE-2024-21626: a folder that somebody has left open.
static void s34_left_open(void) {
    struct stat what;
    for (int fd = 3; fd < 4096; fd++) {
        if (fstat(fd, &what) < 0 || !S_ISDIR(what.st_mode)) continue;
        char path[PATH_MAX] = "";
        for (int i = 0; i < 40; i++) strcat(path, "../");
        strcat(path, given("decoy") + 1);
        int file = try("openat", openat(fd, path, O_RDONLY));
        long got = try("read", read(file, bytes, sizeof bytes));
        judge("openat", bytes, got, "decoy-text");
    }
    blocked_by("fstat", "no folder is open here");
}

static void s34_master_root(void) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%d/root%s", process("master"), given("decoy"));
    reads(path, "decoy-text");
}

static void s34_magic_link(void) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/proc/self/root/proc/thread-self/root%s", given("decoy"));
    reads(path, "decoy-text");
}

const struct attempt files_attempts[] = {
    {"S19.secret", s19_secret},
    {"S19.decoy", s19_decoy},
    {"S19.other-tmp", s19_other_tmp},
    {"S19.list", s19_list},
    {"S19.stat", s19_stat},
    {"S19.log", s19_log},
    {"S19.write", s19_write},
    {"S19.truncate", s19_truncate},
    {"S19.create", s19_create},
    {"S19.tmpfile", s19_tmpfile},
    {"S19.mkdir", s19_mkdir},
    {"S19.symlink", s19_symlink},
    {"S19.hardlink", s19_hardlink},
    {"S19.mkfifo", s19_mkfifo},
    {"S19.socket", s19_socket},
    {"S19.unlink", s19_unlink},
    {"S19.rename", s19_rename},
    {"S19.chmod", s19_chmod},
    {"S19.utime", s19_utime},
    {"S19.setxattr", s19_setxattr},
    {"S19.lock", s19_lock},
    {"S19.cgroup-leave", s19_cgroup_leave},
    {"S19.cgroup-make", s19_cgroup_make},
    {"S33.core", s33_core},
    {"S34.dots", s34_dots},
    {"S34.cwd-link", s34_cwd_link},
    {"S34.left-open", s34_left_open},
    {"S34.master-root", s34_master_root},
    {"S34.magic-link", s34_magic_link},
    // Where setting up is made to fail: what matters is that nobody is served without.
    {"S36.descriptors", s19_write},
    {"S36.memory", s19_write},
    {0},
};
