// S14 and S15: the network, and sockets of other programs on this machine. The services are the test's.

#include "jailbreak.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <poll.h>

#define IPPROTO_MPTCP_ 262

static struct sockaddr_in loopback(const char *key) {
    return (struct sockaddr_in){AF_INET, htons(key ? given_number(key) : 0), {htonl(INADDR_LOOPBACK)}};
}

static void patient(int fd) {
    struct timeval five = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &five, sizeof five);
}

static _Noreturn void hear(int fd, const char *key) {
    char bytes[256];
    patient(fd);
    long got = try("recv", recv(fd, bytes, sizeof bytes, 0));
    judge("recv", bytes, got, key);
}

// S14

static void s14_tcp(void) {
    int fd = try("socket", socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in where = loopback("tcp");
    try("connect", connect(fd, (void *)&where, sizeof where));
    hear(fd, "service-text");
}

static void s14_tcp6(void) {
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    if (fd < 0 && errno == EAFNOSUPPORT) is_void("this kernel has no AF_INET6");
    try("socket", fd);
    struct sockaddr_in6 where = {.sin6_family = AF_INET6, .sin6_port = htons(given_number("tcp"))};
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &where.sin6_addr);
    try("connect", connect(fd, (void *)&where, sizeof where));
    hear(fd, "service-text");
}

static void s14_mptcp(void) {
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP_);
    if (fd < 0 && (errno == EPROTONOSUPPORT || errno == ENOPROTOOPT)) is_void("this kernel has no MPTCP");
    try("socket", fd);
    struct sockaddr_in where = loopback("tcp");
    try("connect", connect(fd, (void *)&where, sizeof where));
    hear(fd, "service-text");
}

// A connection by sendto: not every layer that watches connect sees it.
static void s14_fastopen(void) {
    int fd = try("socket", socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in where = loopback("tcp");
    try("sendto", sendto(fd, "x", 1, MSG_FASTOPEN, (void *)&where, sizeof where));
    hear(fd, "service-text");
}

static void s14_udp(void) {
    int fd = try("socket", socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_in where = loopback("udp");
    const char *word = given("token");
    try("sendto", sendto(fd, word, strlen(word), 0, (void *)&where, sizeof where));
    hear(fd, "token");
}

static void s14_udplite(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
    if (fd < 0 && errno == EPROTONOSUPPORT) is_void("this kernel has no UDP-Lite");
    try("socket", fd);
    int port = 0;
    struct sockaddr_in here = loopback(NULL);
    socklen_t size = sizeof here;
    (void)port;
    try("bind", bind(fd, (void *)&here, sizeof here));
    try("getsockname", getsockname(fd, (void *)&here, &size));
    const char *word = given("token");
    try("sendto", sendto(fd, word, strlen(word), 0, (void *)&here, sizeof here));
    hear(fd, "token");
}

static void s14_sctp(void) {
    int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_SCTP);
    if (fd < 0 && errno == EPROTONOSUPPORT) is_void("this kernel has no SCTP");
    try("socket", fd);
    succeeded("a socket of SCTP");
}

// A question as a resolver asks it, to the service, which gives it back.
static void s14_dns(void) {
    static const unsigned char question[] = "\x12\x34\x01\0\0\1\0\0\0\0\0\0\7example\3org\0\0\1\0\1";
    int fd = try("socket", socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    struct sockaddr_in where = loopback("udp");
    try("connect", connect(fd, (void *)&where, sizeof where));
    try("send", send(fd, question, sizeof question - 1, MSG_NOSIGNAL));
    struct pollfd ready = {fd, POLLIN, 0};
    poll(&ready, 1, 5000);
    char bytes[64];
    long got = try("recv", recv(fd, bytes, sizeof bytes, 0));
    if (got != sizeof question - 1 || memcmp(bytes, question, got)) blocked_by("recv", "another answer");
    succeeded("a name server was asked, and answered");
}

// Whoever listens can be connected to, from here for a start.
static _Noreturn void is_reachable(int listener) {
    struct sockaddr_in here;
    socklen_t size = sizeof here;
    try("getsockname", getsockname(listener, (void *)&here, &size));
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = try("socket", socket(AF_INET, SOCK_STREAM, 0));
    int done = connect(fd, (void *)&here, sizeof here);
    try("connect", done);
    try("accept", accept(listener, NULL, NULL));
    succeeded("it listens at port %d, and was reached", ntohs(here.sin_port));
}

static void s14_bind(void) {
    int fd = try("socket", socket(AF_INET, SOCK_STREAM, 0));
    struct sockaddr_in here = loopback(NULL);
    try("bind", bind(fd, (void *)&here, sizeof here));
    try("listen", listen(fd, 5));
    is_reachable(fd);
}

// The kernel binds whoever listens without: not every layer that watches bind sees it.
static void s14_listen_unbound(void) {
    int fd = try("socket", socket(AF_INET, SOCK_STREAM, 0));
    try("listen", listen(fd, 5));
    is_reachable(fd);
}

static void s14_icmp(void) {
    int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    char range[64] = "";
    FILE *file = fopen("/proc/sys/net/ipv4/ping_group_range", "r");
    if (file && fgets(range, sizeof range, file) && atoi(range) > 0) is_void("no group may ping here");
    try("socket", fd);
    struct icmphdr question = {.type = ICMP_ECHO};
    struct sockaddr_in where = loopback(NULL);
    try("sendto", sendto(fd, &question, sizeof question, 0, (void *)&where, sizeof where));
    char bytes[256];
    patient(fd);
    try("recv", recv(fd, bytes, sizeof bytes, 0));
    succeeded("an echo came back");
}

// The client's own socket, which is here already: taken off the client, and connected to somebody else.
static void s14_client_connects(void) {
    report_fd = STDERR_FILENO;
    struct sockaddr nobody = {AF_UNSPEC};
    try("connect", connect(STDIN_FILENO, &nobody, sizeof nobody));
    struct sockaddr_in where = loopback("tcp");
    try("connect", connect(STDIN_FILENO, (void *)&where, sizeof where));
    hear(STDIN_FILENO, "service-text");
}

static void s14_client_listens(void) {
    report_fd = STDERR_FILENO;
    struct sockaddr nobody = {AF_UNSPEC};
    try("connect", connect(STDIN_FILENO, &nobody, sizeof nobody));
    try("listen", listen(STDIN_FILENO, 5));
    struct sockaddr_in here;
    socklen_t size = sizeof here;
    try("getsockname", getsockname(STDIN_FILENO, (void *)&here, &size));
    succeeded("it listens at port %d", ntohs(here.sin_port));
}

// S15

static struct sockaddr_un path_of(const char *key, socklen_t *size) {
    struct sockaddr_un where = {AF_UNIX, ""};
    const char *text = given(key);
    int abstract = *text == '@';
    strncpy(where.sun_path + abstract, text + abstract, sizeof where.sun_path - 1 - abstract);
    *size = offsetof(struct sockaddr_un, sun_path) + strlen(text) + !abstract;
    return where;
}

static int neighbour(const char *key) {
    socklen_t size;
    struct sockaddr_un where = path_of(key, &size);
    int fd = try("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    try("connect", connect(fd, (void *)&where, size));
    patient(fd);
    return fd;
}

static _Noreturn void greet(const char *key) {
    int fd = neighbour(key);
    try("send", send(fd, "hello\n", 6, MSG_NOSIGNAL));
    hear(fd, "service-text");
}

static void s15_path(void) { greet("unix"); }
static void s15_abstract(void) { greet("abstract"); }

static void s15_abstract_datagram(void) {
    socklen_t size;
    struct sockaddr_un where = path_of("abstract-datagram", &size);
    int fd = try("socket", socket(AF_UNIX, SOCK_DGRAM, 0));
    struct sockaddr_un own = {AF_UNIX, ""};
    try("bind", bind(fd, (void *)&own, sizeof(sa_family_t))); // a name of the kernel's choice, to be answered
    try("sendto", sendto(fd, "hello", 5, 0, (void *)&where, size));
    hear(fd, "service-text");
}

// A Unix socket that is listening in the abstract namespace, for whoever wants to meet us there.
static void s15_listen(void) {
    int fd = try("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    struct sockaddr_un own = {AF_UNIX, ""};
    try("bind", bind(fd, (void *)&own, sizeof(sa_family_t)));
    try("listen", listen(fd, 1));
    socklen_t size = sizeof own;
    try("getsockname", getsockname(fd, (void *)&own, &size));
    int other = try("socket", socket(AF_UNIX, SOCK_STREAM, 0));
    try("connect", connect(other, (void *)&own, size));
    succeeded("it listens at a name, and was reached");
}

// An accomplice outside opens what is closed here, and hands it in.
static void s15_rights_in(void) {
    int fd = neighbour(given_or("way", "path")[0] == 'a' ? "abstract" : "unix");
    try("send", send(fd, "give\n", 5, MSG_NOSIGNAL));
    char word[64], room[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec text = {word, sizeof word};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    try("recvmsg", recvmsg(fd, &message, 0));
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    if (!head || head->cmsg_type != SCM_RIGHTS) blocked_by("recvmsg", "no descriptor came");
    int file;
    memcpy(&file, CMSG_DATA(head), sizeof file);
    char bytes[256];
    long got = try("pread", pread(file, bytes, sizeof bytes, 0));
    judge("pread", bytes, got, "secret-text");
}

// The client is handed to an accomplice outside, which outlives us and every layer.
static void s15_rights_out(void) {
    int fd = neighbour("unix"), socket = STDIN_FILENO;
    char room[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec text = {"take\n", 5};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(head), &socket, sizeof socket);
    try("sendmsg", sendmsg(fd, &message, MSG_NOSIGNAL));
    hear(fd, "taken-text");
}

const struct attempt network_attempts[] = {
    {"S14.tcp", s14_tcp},
    {"S14.tcp6", s14_tcp6},
    {"S14.mptcp", s14_mptcp},
    {"S14.fastopen", s14_fastopen},
    {"S14.udp", s14_udp},
    {"S14.udplite", s14_udplite},
    {"S14.sctp", s14_sctp},
    {"S14.dns", s14_dns},
    {"S14.bind", s14_bind},
    {"S14.listen-unbound", s14_listen_unbound},
    {"S14.icmp", s14_icmp},
    {"S14.client-connects", s14_client_connects},
    {"S14.client-listens", s14_client_listens},
    {"S15.path", s15_path},
    {"S15.abstract", s15_abstract},
    {"S15.abstract-datagram", s15_abstract_datagram},
    {"S15.listen", s15_listen},
    {"S15.rights-in", s15_rights_in},
    {"S15.rights-out", s15_rights_out},
    {0},
};
