// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/* Looks at what sockmeta_socket_enable() leaves of what an application has set. */
#include <stdio.h>
#include <unistd.h>

#include <sockmeta_socket.h>

#define OWN SOF_TIMESTAMPING_RX_SOFTWARE

static int failed(const char *what, int line)
{
	fprintf(stderr, "line %d: %s: %s\n", line, what, strerror(errno));
	return 1;
}

#define CHECK(what)						\
	do {							\
		if (!(what))					\
			return failed(#what, __LINE__);		\
	} while (0)

static int timestamping(int fd)
{
	int flags[2] = {};
	socklen_t len = sizeof(flags);

	return getsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, flags, &len) ? -1 : flags[0];
}

int main(void)
{
	struct sockmeta_info first, again;
	int own = OWN;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	CHECK(!setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &own, sizeof(own)));
	CHECK(!sockmeta_socket_enable(fd));
	CHECK(!sockmeta_socket_info(fd, &first));
	CHECK(timestamping(fd) == OWN);
	CHECK(!sockmeta_socket_enable(fd));
	CHECK(!sockmeta_socket_info(fd, &again) && again.instance == first.instance);
	CHECK(timestamping(fd) == OWN);
	close(fd);

	fd = socket(AF_INET6, SOCK_STREAM, 0);
	CHECK(!sockmeta_socket_enable(fd));
	CHECK(timestamping(fd) == 0);
	close(fd);

	fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	CHECK(sockmeta_socket_enable(fd) && (errno == ENOPROTOOPT || errno == EOPNOTSUPP));
	CHECK(timestamping(fd) == 0);
	close(fd);
	return 0;
}
