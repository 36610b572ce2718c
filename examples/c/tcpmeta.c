// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * tcpmeta accepts connections, one at a time, and prints what the packets knew that
 * brought their bytes: the one that opened the connection, and the one of each read. It
 * runs on stock kernels and needs no privilege, but programs that are attached to its
 * cgroup, by sockmeta attach or a process of Go's in it.
 *
 *	cc -I "$(go list -f '{{.Dir}}' github.com/sockmeta/sockmeta-go/bpf/include)" -o tcpmeta tcpmeta.c
 *	./tcpmeta PORT COUNT
 */
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "print.h"

static void print_of(int fd, int opt)
{
	struct sockmeta_record rec;

	/* bytes without a record are bytes all the same */
	if (!sockmeta_socket_tcp_record(fd, opt, &rec))
		print_record(&rec);
	else
		printf(" no record: %s\n", strerror(errno));
	fflush(stdout);
}

static void serve_one(int fd)
{
	char buf[4096];
	ssize_t n;

	printf("opened:");
	print_of(fd, SOCKMETA_OPT_TCP_OPENING);
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		printf("%zd bytes:", n);
		print_of(fd, SOCKMETA_OPT_TCP_READ);
	}
	if (n < 0)
		perror("read");
	close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 at = { .sin6_family = AF_INET6 };
	long count;
	int fd, c;

	if (argc != 3) {
		fprintf(stderr, "usage: %s PORT COUNT\n", argv[0]);
		return 2;
	}
	at.sin6_port = htons(atoi(argv[1]));
	fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		perror("socket");
		return 1;
	}
	/* The connections inherit it. Where it fails, this is a server like any other. */
	if (sockmeta_socket_enable(fd))
		perror("no records");
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)) || listen(fd, 16)) {
		perror("listen");
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	for (count = atol(argv[2]); count > 0; count--) {
		c = accept(fd, NULL, NULL);
		if (c < 0) {
			perror("accept");
			return 1;
		}
		serve_one(c);
	}
	return 0;
}
