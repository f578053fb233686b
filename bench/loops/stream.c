/* Bare loops for connections, as limits to compare with: no limits, no logs, no safety, no arguments checked.
 *
 *     stream KIND PORT [PROGRAM]
 *
 * event        one loop, all clients in it (epoll)
 * thread       a thread for each client
 * fork         a process for each client; waited for, so status and usage are known
 * fork-ign     the same, the kernel told to forget the dead (SIGCHLD ignored)
 * vfork        vfork and exec of PROGRAM for each client; waited for
 * vfork-ign    the same, the dead forgotten
 *
 * Each client is read from once, what came is written back, and that is the end. The dead of fork and vfork are waited for
 * between two clients and when a signal says so, with wait4(2), which tells status and usage. */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static char *program;

static int listener(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) {
		perror("listen");
		exit(111);
	}
	return fd;
}

static void serve(int in, int out)
{
	char line[4096];
	ssize_t length = read(in, line, sizeof line);
	if (length > 0 && write(out, line, length) < 0)
		_exit(1);
}

static void event(int fd)
{
	struct epoll_event mine = { .events = EPOLLIN }, ready[256];
	int set = epoll_create1(EPOLL_CLOEXEC);
	mine.data.fd = fd;
	epoll_ctl(set, EPOLL_CTL_ADD, fd, &mine);
	for (;;) {
		int count = epoll_wait(set, ready, 256, -1);
		for (int i = 0; i < count; i++) {
			if (ready[i].data.fd != fd) {
				serve(ready[i].data.fd, ready[i].data.fd);
				close(ready[i].data.fd);
				continue;
			}
			int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
			if (client < 0)
				continue;
			mine.data.fd = client;
			epoll_ctl(set, EPOLL_CTL_ADD, client, &mine);
		}
	}
}

static void *one_thread(void *client)
{
	serve((int)(long)client, (int)(long)client);
	close((int)(long)client);
	return NULL;
}

static void thread(int fd)
{
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, 65536);
	for (;;) {
		pthread_t id;
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (client >= 0 && pthread_create(&id, &attributes, one_thread, (void *)(long)client))
			close(client);
	}
}

static void interrupt(int signal)
{
	(void)signal;
}

/* Without SA_RESTART: accept ends with EINTR, and the dead are looked for. */
static void reaping(int waited)
{
	struct sigaction action = { .sa_handler = waited ? interrupt : SIG_IGN };
	sigaction(SIGCHLD, &action, NULL);
}

static void reap(void)
{
	int status;
	struct rusage usage;
	while (wait4(-1, &status, WNOHANG, &usage) > 0)
		;
}

static void forking(int fd, int waited)
{
	reaping(waited);
	for (;;) {
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (client >= 0) {
			if (fork() == 0) {
				close(fd);
				serve(client, client);
				_exit(0);
			}
			close(client);
		}
		if (waited)
			reap();
	}
}

static void starting(int fd, int waited)
{
	char *arguments[] = { program, NULL }, *environment[] = { NULL };
	reaping(waited);
	for (;;) {
		int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
		if (client >= 0) {
			if (vfork() == 0) {
				dup2(client, 0);
				dup2(client, 1);
				execve(program, arguments, environment);
				_exit(111);
			}
			close(client);
		}
		if (waited)
			reap();
	}
}

int main(int count, char **arguments)
{
	if (count < 3 || (!strncmp(arguments[1], "vfork", 5) && count < 4)) {
		fprintf(stderr, "stream: event|thread|fork|fork-ign|vfork|vfork-ign PORT [PROGRAM]\n");
		return 100;
	}
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	signal(SIGPIPE, SIG_IGN);
	char *kind = arguments[1];
	int fd = listener(atoi(arguments[2]));
	program = arguments[3];
	if (!strcmp(kind, "event"))
		event(fd);
	else if (!strcmp(kind, "thread"))
		thread(fd);
	else if (!strncmp(kind, "fork", 4))
		forking(fd, !strcmp(kind, "fork"));
	else if (!strncmp(kind, "vfork", 5))
		starting(fd, !strcmp(kind, "vfork"));
	return 100;
}
