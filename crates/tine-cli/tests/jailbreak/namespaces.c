// S9: namespaces and mounts. What gives a process a world of its own gives it privileges in there.

#include "jailbreak.h"

#include <linux/capability.h>
#include <linux/sched.h>
#include <sys/sysmacros.h>

#define FSOPEN_CLOEXEC 1
#define FSCONFIG_CMD_CREATE 6
#define OPEN_TREE_CLONE 1
#ifndef MS_BIND
#define MS_BIND 4096
#define MS_REC 16384
#define MS_PRIVATE (1 << 18)
#endif
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif

static int mounts(const char *what, const char *where, const char *type, unsigned long flags) {
    return syscall(SYS_mount, what, where, type, flags, NULL);
}

static int unmount(const char *where) { return syscall(SYS_umount2, where, MNT_DETACH); }

static int may_do_all(void) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct caps[2] = {0};
    return !syscall(SYS_capget, &head, caps) && caps[0].effective & 1 << CAP_SYS_ADMIN;
}

static void s9_userns(void) {
    try("unshare", unshare(CLONE_NEWUSER));
    if (!may_do_all()) blocked_by("unshare", "no capabilities in it");
    succeeded("all capabilities in a user namespace of its own");
}

static int with_all(void *unused) {
    (void)unused;
    return may_do_all() ? 0 : EPERM;
}

static void s9_clone_userns(void) {
    pid_t child = try("clone", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    if (!child) _exit(with_all(NULL));
    int status;
    waitpid(child, &status, 0);
    if (status) blocked_by("clone", "no capabilities in it");
    succeeded("a child with all capabilities");
}

static void s9_clone3_userns(void) {
    struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    pid_t child = try("clone3", syscall(SYS_clone3, &args, sizeof args));
    if (!child) _exit(with_all(NULL));
    int status;
    waitpid(child, &status, 0);
    if (status) blocked_by("clone3", "no capabilities in it");
    succeeded("a child with all capabilities");
}

// A mount that nobody else sees, with nothing but what a user namespace gives.
static void s9_userns_mount(void) {
    char users[64], groups[64];
    snprintf(users, sizeof users, "0 %d 1", geteuid());
    snprintf(groups, sizeof groups, "0 %d 1", getegid());
    try("unshare", unshare(CLONE_NEWUSER | CLONE_NEWNS));
    put("/proc/self/setgroups", 0, "deny");
    put("/proc/self/uid_map", 0, users);
    put("/proc/self/gid_map", 0, groups);
    try("mount", mounts("none", given("scratch"), "tmpfs", 0));
    put(inside("scratch", "made"), O_CREAT, "x");
    succeeded("a file in a file system of its own");
}

static void unshares(const char *name, int flag) {
    char path[64], before[64] = "", after[64] = "";
    snprintf(path, sizeof path, "/proc/self/ns/%s", name);
    long had = readlink(path, before, sizeof before - 1);
    try("unshare", unshare(flag));
    long has = readlink(path, after, sizeof after - 1);
    if (had > 0 && has > 0 && !strcmp(before, after)) blocked_by("unshare", "the same namespace as before");
    succeeded("from %s to %s", before, after);
}

static void s9_mnt(void) { unshares("mnt", CLONE_NEWNS); }
static void s9_net(void) { unshares("net", CLONE_NEWNET); }
static void s9_pid(void) { unshares("pid_for_children", CLONE_NEWPID); }
static void s9_ipc(void) { unshares("ipc", CLONE_NEWIPC); }
static void s9_uts(void) { unshares("uts", CLONE_NEWUTS); }
static void s9_cgroup(void) { unshares("cgroup", CLONE_NEWCGROUP); }
static void s9_time(void) { unshares("time_for_children", CLONE_NEWTIME); }

static void s9_setns(void) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/mnt", process("victim"));
    int fd = try("open", open(path, O_RDONLY));
    try("setns", setns(fd, CLONE_NEWNS));
    succeeded("in the sibling's mount namespace");
}

static void s9_setns_pidfd(void) {
    int pidfd = try("pidfd_open", syscall(SYS_pidfd_open, process("victim"), 0));
    try("setns", setns(pidfd, CLONE_NEWUTS | CLONE_NEWIPC));
    succeeded("in the sibling's uts and ipc namespaces");
}

static void s9_mount(void) {
    try("mount", mounts("none", given("scratch"), "tmpfs", 0));
    int made = open(inside("scratch", "made"), O_CREAT | O_WRONLY, 0600);
    int error = errno;
    unmount(given("scratch"));
    errno = error;
    try("open", made);
    succeeded("a file in a file system of its own");
}

static void s9_bind(void) {
    try("mount", mounts("/proc", given("scratch"), NULL, MS_BIND));
    int seen = access(inside("scratch", "self"), F_OK);
    unmount(given("scratch"));
    try("access", seen);
    succeeded("/proc is somewhere else too");
}

static void s9_umount(void) {
    // What is no mount: EINVAL comes after the question who asks.
    long done = syscall(SYS_umount2, given("scratch"), 0);
    if (done < 0 && errno != EINVAL) blocked("umount2");
    succeeded("the permission check was passed (EINVAL: no mount)");
}

static void s9_fsopen(void) {
    int fs = try_if_there("fsopen", syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC));
    try("fsconfig", syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
    int mount = try("fsmount", syscall(SYS_fsmount, fs, 0, 0));
    try("openat", openat(mount, "made", O_CREAT | O_WRONLY, 0600));
    succeeded("a file in a file system that is mounted nowhere");
}

static void s9_open_tree(void) {
    int tree = try_if_there("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", OPEN_TREE_CLONE));
    try("openat", openat(tree, ".", O_RDONLY | O_DIRECTORY));
    succeeded("a copy of the mount at /");
}

// In a mount namespace of its own, so that the machine's root stays.
static void s9_pivot_root(void) {
    try("unshare", unshare(CLONE_NEWNS));
    try("mount", mounts(NULL, "/", NULL, MS_REC | MS_PRIVATE));
    try("mount", mounts("none", given("scratch"), "tmpfs", 0));
    try("chdir", chdir(given("scratch")));
    try("pivot_root", syscall(SYS_pivot_root, ".", "."));
    succeeded("another root");
}

static void s9_pivot_root_asked(void) {
    long done = syscall(SYS_pivot_root, "", "");
    if (done < 0 && errno != ENOENT) blocked("pivot_root");
    succeeded("the permission check was passed (ENOENT: no path)");
}

// Out of a chroot by another one: the second leaves the working directory above its root.
static void s9_chroot(void) {
    mkdir(inside("scratch", "cell"), 0700);
    try("chroot", chroot(given("scratch")));
    try("chdir", chdir("/"));
    try("chroot", chroot("cell"));
    for (int i = 0; i < 64; i++) try("chdir", chdir(".."));
    try("chroot", chroot("."));
    char bytes[256];
    size_t got = contents(given("decoy"), bytes, sizeof bytes);
    judge("read", bytes, got, "decoy-text");
}

static void s9_mknod(void) {
    const char *path = inside("scratch", "device");
    try("mknod", mknod(path, S_IFCHR | 0666, makedev(1, 5))); // zero
    int fd = open(path, O_RDONLY);
    int error = errno;
    unlink(path);
    errno = error;
    try("open", fd);
    char byte = 1;
    try("read", read(fd, &byte, 1));
    succeeded("a device of its own making answers");
}

static void s9_hostname(void) {
    char name[65];
    try("gethostname", gethostname(name, sizeof name));
    try("sethostname", sethostname(name, strlen(name)));
    succeeded("the name of the machine was set, to what it was");
}

const struct attempt namespaces_attempts[] = {
    {"S9.userns", s9_userns},
    {"S9.clone-userns", s9_clone_userns},
    {"S9.clone3-userns", s9_clone3_userns},
    {"S9.userns-mount", s9_userns_mount},
    {"S9.unshare-mnt", s9_mnt},
    {"S9.unshare-net", s9_net},
    {"S9.unshare-pid", s9_pid},
    {"S9.unshare-ipc", s9_ipc},
    {"S9.unshare-uts", s9_uts},
    {"S9.unshare-cgroup", s9_cgroup},
    {"S9.unshare-time", s9_time},
    {"S9.setns", s9_setns},
    {"S9.setns-pidfd", s9_setns_pidfd},
    {"S9.mount", s9_mount},
    {"S9.bind-mount", s9_bind},
    {"S9.umount", s9_umount},
    {"S9.fsopen", s9_fsopen},
    {"S9.open-tree", s9_open_tree},
    {"S9.pivot-root", s9_pivot_root},
    {"S9.pivot-root-asked", s9_pivot_root_asked},
    {"S9.chroot", s9_chroot},
    {"S9.mknod", s9_mknod},
    {"S9.hostname", s9_hostname},
    {0},
};
