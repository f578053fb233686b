// S29, S30 and S32: what stays when a client has left. Each attempt of S29 is made twice, stage=leave and stage=find, by one
// client and by the next; the test clears away with stage=clear.

#include "jailbreak.h"

#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

// S29

static int stage(const char *name) { return !strcmp(given("stage"), name); }

static key_t number(void) { return (key_t)given_number("ipc-key"); }

static _Noreturn void left(void) { succeeded("left for the next"); }
static _Noreturn void found(void) { succeeded("the client before had left it"); }

static void s29_shm(void) {
    int id = shmget(number(), 4096, stage("leave") ? IPC_CREAT | IPC_EXCL | 0666 : 0);
    if (stage("clear")) {
        shmctl(id, IPC_RMID, NULL);
        succeeded("cleared");
    }
    try("shmget", id);
    char *memory = try_map("shmat", shmat(id, NULL, 0));
    if (stage("leave")) {
        strcpy(memory, given("token"));
        left();
    }
    if (!holds(memory, 4096, "token")) blocked_by("shmat", "something else is in it");
    found();
}

struct letter {
    long type;
    char text[64];
};

static void s29_msg(void) {
    int id = msgget(number(), stage("leave") ? IPC_CREAT | IPC_EXCL | 0666 : 0);
    if (stage("clear")) {
        msgctl(id, IPC_RMID, NULL);
        succeeded("cleared");
    }
    try("msgget", id);
    struct letter letter = {1, ""};
    if (stage("leave")) {
        strcpy(letter.text, given("token"));
        try("msgsnd", msgsnd(id, &letter, sizeof letter.text, IPC_NOWAIT));
        left();
    }
    try("msgrcv", msgrcv(id, &letter, sizeof letter.text, 0, IPC_NOWAIT));
    if (!holds(letter.text, sizeof letter.text, "token")) blocked_by("msgrcv", "something else is in it");
    found();
}

static void s29_sem(void) {
    int id = semget(number(), 1, stage("leave") ? IPC_CREAT | IPC_EXCL | 0666 : 0);
    if (stage("clear")) {
        semctl(id, 0, IPC_RMID);
        succeeded("cleared");
    }
    try("semget", id);
    if (stage("leave")) {
        try("semctl", semctl(id, 0, SETVAL, 77));
        left();
    }
    if (try("semctl", semctl(id, 0, GETVAL)) != 77) blocked_by("semctl", "something else is in it");
    found();
}

static void s29_mqueue(void) {
    char name[64], text[8192];
    snprintf(name, sizeof name, "/tine-%s", given("token"));
    if (stage("clear")) {
        mq_unlink(name);
        succeeded("cleared");
    }
    mqd_t queue = try("mq_open", mq_open(name, O_RDWR | O_NONBLOCK | (stage("leave") ? O_CREAT | O_EXCL : 0), 0666, NULL));
    if (stage("leave")) {
        try("mq_send", mq_send(queue, given("token"), strlen(given("token")), 1));
        left();
    }
    long got = try("mq_receive", mq_receive(queue, text, sizeof text, NULL));
    if (!holds(text, got, "token")) blocked_by("mq_receive", "something else is in it");
    found();
}

static _Noreturn void file(const char *folder) {
    char path[PATH_MAX], text[64];
    snprintf(path, sizeof path, "%s/tine-left-%s", folder, given("token"));
    if (stage("clear")) {
        unlink(path);
        succeeded("cleared");
    }
    if (stage("leave")) {
        put(path, O_CREAT | O_EXCL, given("token"));
        left();
    }
    size_t got = contents(path, text, sizeof text);
    if (!holds(text, got, "token")) blocked_by("read", "something else is in it");
    found();
}

static void s29_tmp(void) { file("/tmp"); }
static void s29_var_tmp(void) { file("/var/tmp"); }
static void s29_dev_shm(void) { file("/dev/shm"); }

static void s29_key(void) {
    char name[64], text[64];
    snprintf(name, sizeof name, "tine-left-%s", given("token"));
    if (stage("leave")) {
        long key = syscall(SYS_add_key, "user", name, given("token"), strlen(given("token")), -4 /* the user's keyring */);
        try("add_key", key);
        syscall(SYS_keyctl, 15 /* time out */, key, 120); // should nobody clear it away
        left();
    }
    syscall(SYS_keyctl, 8 /* link */, -4, -2);
    long key = syscall(SYS_keyctl, 10 /* search */, -2, "user", name, 0);
    if (stage("clear")) {
        syscall(SYS_keyctl, 9 /* unlink */, key, -4);
        succeeded("cleared");
    }
    try("keyctl", key);
    long got = try("keyctl", syscall(SYS_keyctl, 11 /* read */, key, text, sizeof text));
    if (!holds(text, got, "token")) blocked_by("keyctl", "something else is in it");
    found();
}

// S30: processes. Whoever is left is named `marked=...` in its arguments, by which the test finds it; it ends by itself.

#define LIFE 20

static _Noreturn void live(void) {
    double end = seconds() + LIFE;
    while (seconds() < end) nanosleep(&(struct timespec){0, 50000000}, NULL);
    _exit(0);
}

// Descriptors of the client and of the log are let go: nothing of them is what the survivor is held by.
static void let_go(void) {
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) {
        if (null >= 0) dup2(null, fd);
        else close(fd);
    }
}

static _Noreturn void survivor(void) {
    let_go();
    live();
}

static void s30_daemon(void) {
    if (!try("fork", fork())) {
        setsid();
        if (!fork()) survivor();
        _exit(0);
    }
    wait(NULL);
    succeeded("a daemon was started");
}

static void s30_deaf(void) {
    if (!try("fork", fork())) {
        for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
        survivor();
    }
    succeeded("a process that hears no signal was started");
}

static void s30_stopped(void) {
    pid_t child = try("fork", fork());
    if (!child) {
        let_go();
        alarm(LIFE);
        raise(SIGSTOP);
        live();
    }
    waitpid(child, NULL, WUNTRACED);
    succeeded("a process that is stopped was left");
}

// The parent of a vfork waits where nothing but the end of both reaches it.
static void s30_vfork(void) {
    pid_t child = try("fork", fork());
    if (!child) {
        setsid();
        let_go();
        long grandchild = syscall(SYS_clone, CLONE_VM | CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
        if (!grandchild) live();
        _exit(0);
    }
    succeeded("a process that waits for its vfork was left");
}

static void s30_many_sessions(void) {
    pid_t between[50];
    for (int i = 0; i < 50; i++)
        if (!(between[i] = try("fork", fork()))) {
            setsid();
            if (fork() == 0) {
                setsid();
                survivor();
            }
            _exit(0);
        }
    // Not for the daemons, which are ours to wait for where orphans are adopted by us.
    for (int i = 0; i < 50; i++) waitpid(between[i], NULL, 0);
    succeeded("50 daemons, each in a session of its own");
}

// A file system that never answers, in a mount namespace of its own, and somebody who waits for it.
static void s30_fuse(void) {
    int said[2], error = 0;
    try("pipe", pipe(said));
    if (!try("fork", fork())) {
        setsid();
        char options[128];
        int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
        snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%d,group_id=%d", fuse, geteuid(), getegid());
        if (fuse < 0 || unshare(CLONE_NEWNS) < 0 || syscall(SYS_mount, NULL, "/", NULL, 16384 | 1 << 18, NULL) < 0 ||
            syscall(SYS_mount, "none", given("scratch"), "fuse", 0, options) < 0) {
            error = errno;
            _exit(write(said[1], &error, sizeof error) < 0);
        }
        pid_t waits = fork();
        if (!waits) {
            struct stat what;
            let_go();
            stat(inside("scratch", "nothing"), &what);
            live();
        }
        // It is there when its first question is.
        char question[1 << 16];
        if (read(fuse, question, sizeof question) < 0) error = errno;
        if (write(said[1], &error, sizeof error) < 0) _exit(1);
        close(said[1]);
        survivor();
    }
    close(said[1]);
    if (read(said[0], &error, sizeof error) != sizeof error) blocked_by("fuse", "it died");
    if (error == ENOENT || error == ENODEV) is_void("this kernel has no FUSE");
    errno = error;
    if (error) blocked("fuse");
    succeeded("a process that waits for a file system was left");
}

// S32: whoever adopts orphans keeps them from the server.
static void s32_subreaper(void) {
    if (!try("fork", fork())) {
        setsid();
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        if (!fork()) {
            if (!fork()) survivor();
            _exit(0);
        }
        survivor();
    }
    succeeded("a process that adopts orphans was left, with one");
}

// Dies with the master, but for this.
static void s32_pdeathsig(void) {
    int before = 0, after = -1;
    prctl(PR_GET_PDEATHSIG, &before);
    try("PR_SET_PDEATHSIG", prctl(PR_SET_PDEATHSIG, 0));
    prctl(PR_GET_PDEATHSIG, &after);
    if (after) blocked_by("PR_SET_PDEATHSIG", "it is as before");
    // The master is killed now, and we are looked for.
    dprintf(report_fd, "%s succeeded: signal %d on the parent's death was called off\n", attempt_name, before);
    let_go();
    live();
}

const struct attempt remains_attempts[] = {
    {"S29.shm", s29_shm},
    {"S29.msg", s29_msg},
    {"S29.sem", s29_sem},
    {"S29.mqueue", s29_mqueue},
    {"S29.tmp", s29_tmp},
    {"S29.var-tmp", s29_var_tmp},
    {"S29.dev-shm", s29_dev_shm},
    {"S29.key", s29_key},
    // Left by a program outside, found by one inside.
    {"S29.host-shm", s29_shm},
    {"S29.host-msg", s29_msg},
    {"S29.host-sem", s29_sem},
    {"S29.host-mqueue", s29_mqueue},
    {"S30.daemon", s30_daemon},
    {"S30.deaf", s30_deaf},
    {"S30.stopped", s30_stopped},
    {"S30.vfork", s30_vfork},
    {"S30.many-sessions", s30_many_sessions},
    {"S30.fuse", s30_fuse},
    {"S32.subreaper", s32_subreaper},
    {"S32.pdeathsig", s32_pdeathsig},
    {0},
};
