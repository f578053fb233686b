// S7: keyrings, which no namespace divides and which all processes of a user share.

#include "jailbreak.h"

#include <linux/keyctl.h>

static const char *named(const char *what) {
    static char name[128];
    snprintf(name, sizeof name, "tine-%s-%s", what, given("token"));
    return name;
}

static long keyctl(int what, long a, long b, long c) { return syscall(SYS_keyctl, what, a, b, c, 0); }

static void s7_read_sibling(void) {
    // In the user's keyring, and so ours as soon as that hangs from a keyring of our own.
    try("keyctl", keyctl(KEYCTL_LINK, KEY_SPEC_USER_KEYRING, KEY_SPEC_PROCESS_KEYRING, 0));
    long key = try("keyctl", keyctl(KEYCTL_SEARCH, KEY_SPEC_PROCESS_KEYRING, (long)"user", (long)named("victim")));
    char bytes[128];
    long got = try("keyctl", keyctl(KEYCTL_READ, key, (long)bytes, sizeof bytes));
    judge("keyctl", bytes, got, "victim-text");
}

static void s7_add_key(void) {
    long key = try("add_key", syscall(SYS_add_key, "user", named("own"), "kept", 4, KEY_SPEC_PROCESS_KEYRING));
    char bytes[8];
    long got = try("keyctl", keyctl(KEYCTL_READ, key, (long)bytes, sizeof bytes));
    succeeded("a key was kept and read again, %ld bytes", got);
}

static void s7_request_key(void) {
    long key = try("request_key", syscall(SYS_request_key, "user", named("victim"), NULL, 0));
    succeeded("the sibling's key is %ld", key);
}

static int give_to_parent(void *unused) {
    (void)unused;
    if (keyctl(KEYCTL_JOIN_SESSION_KEYRING, (long)named("given"), 0, 0) < 0) return errno;
    return keyctl(KEYCTL_SESSION_TO_PARENT, 0, 0, 0) < 0 ? errno : 0;
}

// CVE-2024-42318: the parent's credentials were replaced by ones without its Landlock domain.
static void s7_session_to_parent(void) {
    long before = keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0, 0);
    child_must("keyctl", give_to_parent, NULL);
    getppid(); // it takes effect on the way back from a call
    long after = try("keyctl", keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0, 0));
    if (before == after) blocked_by("keyctl", "the session keyring is the same");
    succeeded("a child replaced this process's session keyring");
}

static void s7_join(void) {
    succeeded("session keyring %ld", try("keyctl", keyctl(KEYCTL_JOIN_SESSION_KEYRING, (long)named("joined"), 0, 0)));
}

const struct attempt keys_attempts[] = {
    {"S7.read-sibling", s7_read_sibling},
    {"S7.add-key", s7_add_key},
    {"S7.request-key", s7_request_key},
    {"S7.session-to-parent", s7_session_to_parent},
    {"S7.join-session", s7_join},
    {0},
};
