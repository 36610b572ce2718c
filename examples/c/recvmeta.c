// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * recvmeta receives datagrams and prints what they knew: a plain server, with one
 * socket option and recvmsg(). It needs the native tier (bpf/kmod), and programs that
 * are attached to its cgroup, by sockmeta attach or a process of Go's in it.
 *
 *	cc -o recvmeta recvmeta.c
 *	./recvmeta PORT COUNT
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "record.h"

static void print_value(const struct sockmeta_record *rec)
{
	size_t at, len;

	for (at = 0; at + 2 <= rec->area_len; at += (2 + len + 3) & ~(size_t)3) {
		size_t i;

		len = rec->area[at + 1];
		/* padding, and the mark that ends the producer's values */
		if (at + 2 + len > rec->area_len || !rec->area[at] || rec->area[at] == 255)
			continue;
		printf(" %d=", rec->area[at]);
		for (i = 0; i < len; i++)
			printf("%02x", rec->area[at + 2 + i]);
	}
}

static void print_record(const struct sockmeta_record *rec)
{
	if (rec->valid & SOCKMETA_VALID_TSTAMP)
		printf(" time=%llu", (unsigned long long)rec->tstamp);
	if (rec->valid & SOCKMETA_VALID_MARK)
		printf(" mark=%#x", rec->mark);
	if (rec->valid & SOCKMETA_VALID_IFINDEX)
		printf(" ifindex=%u", rec->ifindex);
	if (rec->valid & SOCKMETA_VALID_HASH)
		printf(" hash=%#x", rec->hash);
	if (rec->format == SOCKMETA_FORMAT_TLV)
		print_value(rec);
	printf("\n");
}

static int receive_one(int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(RECORD_MAX)];
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
	if (!record_find(&msg, &rec))
		print_record(&rec);
	else
		printf(" no record%s\n", msg.msg_flags & MSG_CTRUNC ? ", there was no room" : "");
	fflush(stdout);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockmeta_enable enable = { .abi = SOCKMETA_ABI, .flags = SOCKMETA_ENABLE_CMSG };
	struct sockaddr_in6 at = { .sin6_family = AF_INET6 };
	long count;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: %s PORT COUNT\n", argv[0]);
		return 2;
	}
	at.sin6_port = htons(atoi(argv[1]));
	fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at))) {
		perror("socket");
		return 1;
	}
	/* Without it, or where it fails, this is a server like any other. */
	if (setsockopt(fd, SOL_BPF, SOCKMETA_OPT_ENABLE, &enable, sizeof(enable)))
		perror("no records");
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
