// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * sendmeta sends a datagram with values that programs on its way can read, and that a
 * receiver on this host gets where the host lets them through: a plain client, with
 * sendmsg() and a control message. Where nobody reads control messages of this kind
 * the kernel ignores them, and the datagram leaves all the same.
 *
 *	cc -I "$(go list -f '{{.Dir}}' github.com/sockmeta/sockmeta-go/bpf/include)" -o sendmeta sendmeta.c
 *	./sendmeta ADDRESS PORT TEXT [KEY=VALUE]...
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <sockmeta_socket.h>

/* Reads KEY=VALUE: a key from 16 to 223, and a number of 32 bits. */
static int add_value(struct sockmeta_record *rec, const char *arg)
{
	char *end;
	unsigned long key = strtoul(arg, &end, 0);
	uint32_t value;

	if (*end != '=' || key < 16 || key > 223)
		return -1;
	value = strtoul(end + 1, &end, 0);
	return *end ? -1 : sockmeta_add_value(rec, key, &value, sizeof(value));
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 to = { .sin6_family = AF_INET6 };
	char mapped[64];
	struct sockmeta_record rec = {
		.version = SOCKMETA_RECORD_VERSION,
		.hdr_len = SOCKMETA_RECORD_HDR,
		.format = SOCKMETA_FORMAT_TLV,
	};
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(SOCKMETA_RECORD_MAX)];
	} control = {};
	struct iovec iov;
	struct msghdr msg = {
		.msg_name = &to,
		.msg_namelen = sizeof(to),
		.msg_iov = &iov,
		.msg_iovlen = 1,
	};
	int i, fd;

	if (argc < 4) {
		fprintf(stderr, "usage: %s ADDRESS PORT TEXT [KEY=VALUE]...\n", argv[0]);
		return 2;
	}
	for (i = 4; i < argc; i++) {
		if (add_value(&rec, argv[i])) {
			fprintf(stderr, "%s: not a value\n", argv[i]);
			return 2;
		}
	}
	/* IPv4 goes by an IPv6 socket, too */
	snprintf(mapped, sizeof(mapped), "::ffff:%s", argv[1]);
	if (inet_pton(AF_INET6, argv[1], &to.sin6_addr) != 1 &&
	    inet_pton(AF_INET6, mapped, &to.sin6_addr) != 1) {
		fprintf(stderr, "%s: not an address\n", argv[1]);
		return 2;
	}
	to.sin6_port = htons(atoi(argv[2]));
	fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	iov.iov_base = argv[3];
	iov.iov_len = strlen(argv[3]);
	/* A control message costs a connected socket a route lookup: only with values. */
	if (rec.area_len) {
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
		msg.msg_controllen = sockmeta_put_record(CMSG_FIRSTHDR(&msg), &rec);
	}
	if (fd < 0 || sendmsg(fd, &msg, 0) < 0) {
		perror("sendmsg");
		return 1;
	}
	return 0;
}
