/* Bare loops that echo datagrams, as limits to compare with.
 *
 *     datagram KIND PORT
 *
 * plain        recvfrom, sendto
 * mmsg         recvmmsg, sendmmsg, 64 at once
 * gro          recvmmsg with UDP_GRO, each piece sent back as it came, with UDP_SEGMENT */

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

#define BATCH 64
#define PIECE 65536
#define BUFFER (4 << 20)

static int bound(int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int size = BUFFER, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size); /* as much as anybody may have */
	if (bind(fd, (struct sockaddr *)&address, sizeof address)) {
		perror("bind");
		exit(111);
	}
	return fd;
}

static void plain(int fd)
{
	char line[2048];
	for (;;) {
		struct sockaddr_in from;
		socklen_t length = sizeof from;
		ssize_t got = recvfrom(fd, line, sizeof line, 0, (struct sockaddr *)&from, &length);
		if (got >= 0)
			sendto(fd, line, got, 0, (struct sockaddr *)&from, length);
	}
}

static struct mmsghdr messages[BATCH];
static struct iovec pieces[BATCH];
static struct sockaddr_in peers[BATCH];
static char controls[BATCH][CMSG_SPACE(sizeof(int))];

static void batches(int fd, int offload)
{
	int one = 1;
	size_t room = offload ? PIECE : 2048;
	char *bytes = malloc(BATCH * room);
	if (offload && setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof one)) {
		perror("UDP_GRO");
		exit(111);
	}
	for (;;) {
		for (int i = 0; i < BATCH; i++) {
			pieces[i] = (struct iovec){ bytes + i * room, room };
			messages[i].msg_hdr = (struct msghdr){ .msg_name = &peers[i], .msg_namelen = sizeof peers[i],
				.msg_iov = &pieces[i], .msg_iovlen = 1 };
			if (offload) {
				messages[i].msg_hdr.msg_control = controls[i];
				messages[i].msg_hdr.msg_controllen = sizeof controls[i];
			}
		}
		int got = recvmmsg(fd, messages, BATCH, MSG_WAITFORONE, NULL);
		for (int i = 0; i < got; i++) {
			pieces[i].iov_len = messages[i].msg_len;
			if (!offload)
				continue;
			struct cmsghdr *told = CMSG_FIRSTHDR(&messages[i].msg_hdr);
			int size = 0;
			if (told && told->cmsg_level == IPPROTO_UDP && told->cmsg_type == UDP_GRO)
				memcpy(&size, CMSG_DATA(told), sizeof size);
			messages[i].msg_hdr.msg_controllen = 0;
			if (size > 0 && (size_t)size < pieces[i].iov_len) {
				uint16_t cut = size;
				messages[i].msg_hdr.msg_controllen = CMSG_SPACE(sizeof cut);
				told->cmsg_level = IPPROTO_UDP;
				told->cmsg_type = UDP_SEGMENT;
				told->cmsg_len = CMSG_LEN(sizeof cut);
				memcpy(CMSG_DATA(told), &cut, sizeof cut);
			}
		}
		for (int sent = 0; sent < got;) {
			int more = sendmmsg(fd, messages + sent, got - sent, 0);
			sent += more > 0 ? more : 1;
		}
	}
}

int main(int count, char **arguments)
{
	if (count != 3) {
		fprintf(stderr, "datagram: plain|mmsg|gro PORT\n");
		return 100;
	}
	int fd = bound(atoi(arguments[2]));
	if (!strcmp(arguments[1], "plain"))
		plain(fd);
	else
		batches(fd, !strcmp(arguments[1], "gro"));
}
