// jailbreak: tries to get out of what tine puts a program into, one named way at a time.
//
//     jailbreak NAME [KEY=VALUE...]       tries NAME
//     jailbreak client [SECRET [PLACE]]   says "hello PID", reads the line "NAME KEY=VALUE...", and tries that
//                                         (or is the sibling, "victim ...", or gives back each byte, "echo")
//     jailbreak control NAME ...          makes first what the attempt looks for, so that it must be found
//     jailbreak list                      names all attempts
//
// One line comes out, `NAME succeeded: what`, `NAME blocked: CALL: ERRNO` or `NAME void: why`, and the exit code is 0, 1 or 2.
// The names are those of the tests' table. Targets are only what the caller has made and names; attempts that use up a
// resource stop at a number that is written beside them, and give back what they took.
//
// Static, so that it runs in a root that has nothing else. Needs gcc, glibc and the kernel's headers of Debian 12.

#include "jailbreak.h"

int report_fd = STDOUT_FILENO;
const char *attempt_name = "?";

static char *words[512]; // the keys and values of the attempt
static int word_count;

static const struct attempt *const TABLES[] = {
    processes_attempts, keys_attempts,    namespaces_attempts,  terminal_attempts,  privileges_attempts, kernel_attempts,
    network_attempts,   files_attempts,   descriptors_attempts, resources_attempts, remains_attempts,
};

// Verdicts

static _Noreturn void report(int code, const char *word, const char *text) {
    char line[1024];
    int length = snprintf(line, sizeof line, "%s %s: %s", attempt_name, word, text);
    if (length > (int)sizeof line - 2) length = sizeof line - 2;
    for (int i = 0; i < length; i++)
        if ((unsigned char)line[i] < ' ') line[i] = '?'; // one line, whatever was read
    line[length++] = '\n';
    ssize_t done = write(report_fd, line, length);
    (void)done; // nobody listens any more: the exit code is left
    _exit(code);
}

void succeeded(const char *what, ...) {
    char text[800];
    va_list list;
    va_start(list, what);
    vsnprintf(text, sizeof text, what, list);
    va_end(list);
    report(0, "succeeded", text);
}

void blocked_by(const char *call, const char *reason) {
    char text[800];
    snprintf(text, sizeof text, "%s: %s", call, reason);
    report(1, "blocked", text);
}

void blocked(const char *call) {
    const char *name = strerrorname_np(errno);
    blocked_by(call, name ? name : "no errno");
}

void is_void(const char *why, ...) {
    char text[800];
    va_list list;
    va_start(list, why);
    vsnprintf(text, sizeof text, why, list);
    va_end(list);
    report(2, "void", text);
}

long try(const char *call, long result) {
    if (result < 0) blocked(call);
    return result;
}

long try_if_there(const char *call, long result) {
    if (result < 0 && errno == ENOSYS) is_void("this kernel has no %s", call);
    return try(call, result);
}

void *try_map(const char *call, void *result) {
    if (result == MAP_FAILED) blocked(call);
    return result;
}

void judge(const char *call, const void *bytes, size_t size, const char *key) {
    if (!holds(bytes, size, key)) blocked_by(call, "not what was planted");
    succeeded("%s gave what was planted", call);
}

// What was given

const char *given_or(const char *key, const char *otherwise) {
    size_t length = strlen(key);
    for (int i = 0; i < word_count; i++)
        if (!strncmp(words[i], key, length) && words[i][length] == '=') return words[i] + length + 1;
    return otherwise;
}

const char *given(const char *key) {
    const char *value = given_or(key, NULL);
    if (value) return value;
    dprintf(report_fd, "%s mistaken: it needs %s=\n", attempt_name, key);
    _exit(3);
}

long given_number(const char *key) { return strtol(given(key), NULL, 0); }

pid_t process(const char *key) {
    // By number a process can be named only in the namespace that counted it. `self` is what the caller, outside, sees us as.
    if (getpid() == given_number("self")) return given_number(key);
    if (!strcmp(key, "victim")) {
        // Both may share a namespace that is not the caller's.
        pid_t pid = given_number("victim-own");
        if (pid != 1 && pid != getpid()) return pid;
    }
    blocked_by("pid", "ESRCH (another pid namespace)");
}

int holds(const void *bytes, size_t size, const char *key) {
    const char *text = given(key);
    return memmem(bytes, size, text, strlen(text)) != NULL;
}

const char *inside(const char *key, const char *name) {
    static char paths[4][PATH_MAX];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, PATH_MAX, "%s/%s", given(key), name);
    return path;
}

const char *in_room(const char *name) {
    static char paths[4][PATH_MAX];
    static int next;
    const char *folders[] = {given("folder"), "/tmp", "/dev/shm", given("folder")};
    const char *folder = NULL;
    for (int i = 0; i < 4; i++) {
        folder = folders[i];
        int fd = open(folder, O_TMPFILE | O_WRONLY, 0600);
        if (fd < 0) continue;
        close(fd);
        break;
    }
    char *path = paths[next++ % 4];
    snprintf(path, PATH_MAX, "%s/%s", folder, name);
    return path;
}

// Files, children

size_t contents(const char *path, char *buffer, size_t size) {
    int fd = try("open", open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY));
    size_t length = 0;
    ssize_t got;
    while (length < size && (got = read(fd, buffer + length, size - length)) != 0) {
        try("read", got);
        length += got;
    }
    close(fd);
    return length;
}

void put(const char *path, int flags, const char *text) {
    int fd = try("open", open(path, flags | O_WRONLY | O_CLOEXEC, 0600));
    try("write", write(fd, text, strlen(text)));
    close(fd);
}

void *shared_memory(size_t size) {
    return try_map("mmap", mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
}

int in_child(int (*act)(void *), void *argument) {
    pid_t child = try("fork", fork());
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(act(argument));
    }
    int status;
    while (waitpid(child, &status, __WALL) < 0)
        if (errno != EINTR) blocked("waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void child_must(const char *call, int (*act)(void *), void *argument) {
    int code = in_child(act, argument);
    if (!code) return;
    char reason[32];
    if (code > 128) {
        snprintf(reason, sizeof reason, "SIG%s", sigabbrev_np(code - 128) ? sigabbrev_np(code - 128) : "?");
        blocked_by(call, reason);
    }
    errno = code;
    blocked(call);
}

size_t run_again(const char *path, const char *name, const char *more, char *output, size_t size) {
    int ends[2];
    try("pipe", pipe(ends));
    pid_t child = try("fork", fork());
    if (!child) {
        char *argv[515] = {"jailbreak", (char *)name};
        memcpy(argv + 2, words, word_count * sizeof *words);
        argv[2 + word_count] = (char *)more;
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        execv(path, argv);
        dprintf(STDOUT_FILENO, "errno %d", errno);
        _exit(1);
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t got;
    while (length < size - 1 && (got = read(ends[0], output + length, size - 1 - length)) > 0) length += got;
    output[length] = 0;
    int status;
    waitpid(child, &status, 0);
    if (sscanf(output, "errno %d", &errno) == 1) blocked("execve");
    if (!length && WIFSIGNALED(status)) blocked_by("execve", strsignal(WTERMSIG(status)));
    return length;
}

void write_over(char *place, const char *text) {
    if (!place) return;
    size_t room = strlen(place);
    if (room < strlen(text)) return;
    memset(place, 0, room);
    memcpy(place, text, strlen(text));
}

double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

// The program

static void find_and_run(const char *name) {
    attempt_name = name;
    for (size_t t = 0; t < sizeof TABLES / sizeof *TABLES; t++)
        for (const struct attempt *a = TABLES[t]; a->name; a++)
            if (!strcmp(a->name, name)) {
                a->run();
                blocked_by("attempt", "it came to no verdict");
            }
    dprintf(report_fd, "%s mistaken: there is no such attempt\n", name);
    _exit(3);
}

static void list(void) {
    for (size_t t = 0; t < sizeof TABLES / sizeof *TABLES; t++)
        for (const struct attempt *a = TABLES[t]; a->name; a++) puts(a->name);
}

// Reads one line and no byte more, for the rest may be somebody else's.
static char *read_line(void) {
    static char line[16384];
    size_t length = 0;
    while (length < sizeof line - 1 && read(STDIN_FILENO, line + length, 1) == 1 && line[length] != '\n') length++;
    line[length] = 0;
    return line;
}

// A neighbour whose time is measured.
static _Noreturn void echo(void) {
    char byte;
    while (read(STDIN_FILENO, &byte, 1) == 1 && write(STDOUT_FILENO, &byte, 1) == 1) continue;
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: jailbreak NAME [KEY=VALUE...] | client [SECRET [PLACE]] | control NAME ... | list\n");
        return 3;
    }
    const char *name = argv[1];
    int first = 2;
    if (!strcmp(name, "list")) {
        list();
        return 0;
    }
    if (!strcmp(name, "client")) {
        dprintf(STDOUT_FILENO, "hello %d\n", getpid());
        char *rest = read_line();
        name = strtok_r(rest, " ", &rest);
        if (!name) return 3; // the client has left
        for (char *word; word_count < 512 && (word = strtok_r(rest, " ", &rest));) words[word_count++] = word;
        if (!strcmp(name, "victim")) victim(argc, argv);
        if (!strcmp(name, "echo")) echo();
        // By this the test finds whoever is left, for a fork has the arguments of its parent.
        if (argc > 3) write_over(argv[3], given_or("mark", ""));
    } else {
        int control = !strcmp(name, "control");
        if (control && argc < 3) return 3;
        if (control) name = argv[first++];
        for (int i = first; i < argc && word_count < 512; i++) words[word_count++] = argv[i];
        if (control) {
            attempt_name = name;
            control_descriptors(name);
        }
    }
    find_and_run(name);
}
