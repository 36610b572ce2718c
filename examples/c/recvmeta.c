// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * recvmeta receives datagrams and prints what they knew: a server with one call more
 * than others have for its socket, and one for each datagram. It runs on stock kernels
 * and needs no privilege, but programs that are attached to its cgroup, by sockmeta
 * attach or a process of Go's in it. Where the native tier is attached (bpf/kmod),
 * recvmsg() returns the records; elsewhere it returns handles, and the kernel is asked.
 *
 *	cc -I "$(go list -f '{{.Dir}}' github.com/sockmeta/sockmeta-go/bpf/include)" -o recvmeta recvmeta.c
 *	./recvmeta PORT COUNT
 */
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>

#include "print.h"

static int receive_one(int fd)
{
	union {
		struct cmsghdr align;
		char buf[SOCKMETA_CONTROL_SPACE];
	} control;
	char payload[2048];
	struct iovec iov = { payload, sizeof(payload) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct sockmeta_record rec;
	ssize_t n = recvmsg(fd, &msg, 0);

	if (n < 0)
		return -1;
	printf("%zd bytes", n);
	if (n >= (ssize_t)sizeof(uint64_t)) {
		uint64_t number;

		memcpy(&number, payload, sizeof(number));
		printf(" of %llu", (unsigned long long)number);
	}
	printf(":");
	/* a datagram without a record is a datagram all the same */
	if (!sockmeta_socket_record(fd, &msg, &rec))
		print_record(&rec);
	else
		printf(" no record: %s\n", strerror(errno));
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 at = { .sin6_family = AF_INET6 };
	long count;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: %s PORT COUNT\n", argv[0]);
		return 2;
	}
	at.sin6_port = htons(atoi(argv[1]));
	fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		perror("socket");
		return 1;
	}
	/* Where it fails, this is a server like any other. */
	if (sockmeta_socket_enable(fd))
		perror("no records");
	if (bind(fd, (struct sockaddr *)&at, sizeof(at))) {
		perror("bind");
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	for (count = atol(argv[2]); count > 0; count--) {
		if (receive_one(fd)) {
			perror("recvmsg");
			return 1;
		}
	}
	return 0;
}
