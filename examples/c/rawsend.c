// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * rawsend sends datagrams with metadata from a program that has nothing of
 * sockmeta but its header: the record is a control message, {SOL_BPF,
 * SOCKMETA_SCM_RECORD}. Where raw control messages are read (bpf.Options.Tracing
 * in Go), programs on the packet's way find in it, under key 16, the number that
 * the payload begins with. Elsewhere the kernel ignores the message, and the
 * datagrams leave all the same.
 *
 *	cc -I "$(go list -f '{{.Dir}}' github.com/sockmeta/sockmeta-go/bpf/include)" -o rawsend rawsend.c
 *	./rawsend ADDRESS PORT FIRST COUNT
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <sockmeta_socket.h>

#define KEY 16

static int send_one(int fd, struct sockaddr *to, socklen_t to_len, uint64_t number)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(SOCKMETA_RECORD_MAX)];
	} control = {};
	struct sockmeta_record rec = {
		.version = SOCKMETA_RECORD_VERSION,
		.hdr_len = SOCKMETA_RECORD_HDR,
		.format = SOCKMETA_FORMAT_TLV,
	};
	struct iovec iov = { &number, sizeof(number) };
	struct msghdr msg = {
		.msg_name = to,
		.msg_namelen = to_len,
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	sockmeta_add_value(&rec, KEY, &number, sizeof(number));
	msg.msg_controllen = sockmeta_put_record(CMSG_FIRSTHDR(&msg), &rec);
	return sendmsg(fd, &msg, 0) < 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to4 = { .sin_family = AF_INET };
	struct sockaddr_in6 to6 = { .sin6_family = AF_INET6 };
	struct sockaddr *to = (struct sockaddr *)&to4;
	socklen_t to_len = sizeof(to4);
	uint64_t number, end;
	int fd;

	if (argc != 5) {
		fprintf(stderr, "usage: %s ADDRESS PORT FIRST COUNT\n", argv[0]);
		return 2;
	}
	to4.sin_port = to6.sin6_port = htons(atoi(argv[2]));
	if (inet_pton(AF_INET6, argv[1], &to6.sin6_addr) == 1) {
		to = (struct sockaddr *)&to6;
		to_len = sizeof(to6);
	} else if (inet_pton(AF_INET, argv[1], &to4.sin_addr) != 1) {
		fprintf(stderr, "%s: not an address: %s\n", argv[0], argv[1]);
		return 2;
	}
	fd = socket(to->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		perror("socket");
		return 1;
	}
	number = strtoull(argv[3], NULL, 0);
	end = number + strtoull(argv[4], NULL, 0);
	for (; number < end; number++) {
		if (send_one(fd, to, to_len, number)) {
			perror("sendmsg");
			return 1;
		}
	}
	return 0;
}
