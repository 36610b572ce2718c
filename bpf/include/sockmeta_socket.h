/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * sockmeta_socket.h: how C applications get the metadata of what their sockets
 * receive: with socket options and recvmsg() alone, and without privilege. Somebody
 * has to have attached sockmeta's programs to the process's cgroup, as "sockmeta
 * attach" does.
 *
 *	fd = socket(AF_INET6, SOCK_DGRAM, 0);
 *	if (sockmeta_socket_enable(fd))
 *		perror("no metadata");	// a socket like any other
 *	bind(fd, …);
 *
 *	char control[SOCKMETA_CONTROL_SPACE];
 *	struct msghdr msg = { …, .msg_control = control, .msg_controllen = sizeof(control) };
 *	struct sockmeta_record rec;
 *
 *	recvmsg(fd, &msg, 0);
 *	if (!sockmeta_socket_record(fd, &msg, &rec))
 *		service = sockmeta_value(&rec, SOCKMETA_KEY_SERVICE_ID, &len);
 *
 * What it does, for those who do it by themselves. The datagram's handle comes where
 * its time would: in the first of the three times of SCM_TIMESTAMPING. So the socket
 * has to have SOF_TIMESTAMPING_SOFTWARE, which the application sets itself after
 * SOCKMETA_OPT_ENABLE. The handle's low bits are the number of a slot. The option
 * SOCKMETA_OPT_SLOT reads that slot, which may have a newer packet's record by then:
 * the record is the datagram's if, and only if, sockmeta_answer.seq is the handle.
 * With the native tier (SOCKMETA_FEATURE_NATIVE) recvmsg() returns the record itself.
 *
 * Opt in before bind(): the records of datagrams that came earlier are flagged
 * SOCKMETA_F_UNPROVEN. A socket may be opted in again. Processes of 32 bits cannot opt
 * in on a kernel of 64 bits.
 *
 * Minimum kernel: 6.1.
 */
#ifndef SOCKMETA_SOCKET_H
#define SOCKMETA_SOCKET_H

#include <errno.h>
#include <linux/net_tstamp.h>
#include <linux/types.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "sockmeta_abi.h"

/* Bytes of a record without values, and the most that one has with them. */
#define SOCKMETA_RECORD_HDR offsetof(struct sockmeta_record, area)
#define SOCKMETA_RECORD_MAX (SOCKMETA_RECORD_HDR + SOCKMETA_AREA_MAX)

/* Room for what sockmeta_socket_record() needs, in whichever tier. */
#define SOCKMETA_CONTROL_SPACE \
	(CMSG_SPACE(SOCKMETA_RECORD_MAX) + CMSG_SPACE(3 * sizeof(struct timespec)))

static inline int sockmeta_socket_info(int fd, struct sockmeta_info *info)
{
	socklen_t len = sizeof(*info);

	return getsockopt(fd, SOL_BPF, SOCKMETA_OPT_INFO, info, &len);
}

/**
 * sockmeta_socket_enable - opt a UDP or TCP socket in
 * @fd: the socket; a listener's connections inherit it
 *
 * Return: 0, or -1 and errno: ENOPROTOOPT or EOPNOTSUPP where nobody has attached for
 * the socket, ENFILE or EDQUOT where there are as many sockets with metadata as there
 * may be, in all or of the user. The socket works on as it did.
 */
static inline int sockmeta_socket_enable(int fd)
{
	struct sockmeta_enable req = { .abi = SOCKMETA_ABI };
	struct sockmeta_info info = { .instance = 0 };
	__u32 ts[2] = { 0, 0 };	/* struct so_timestamping */
	socklen_t len = sizeof(int);
	int type;

	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len))
		return -1;
	len = sizeof(ts);
	if (type == SOCK_DGRAM && getsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, ts, &len))
		return -1;
	req.tsflags = ts[0];
	/* whose the socket is already: else two attachments could have it */
	if (!sockmeta_socket_info(fd, &info))
		req.instance = info.instance;
	if (setsockopt(fd, SOL_BPF, SOCKMETA_OPT_ENABLE, &req, sizeof(req)) ||
	    sockmeta_socket_info(fd, &info))
		return -1;
	if (type != SOCK_DGRAM)
		return 0;
	req.instance = info.instance;
	if (info.features & SOCKMETA_FEATURE_NATIVE) {
		req.flags = SOCKMETA_ENABLE_CMSG;
	} else {
		ts[0] |= SOF_TIMESTAMPING_SOFTWARE;
		if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, ts, sizeof(ts)))
			return -1;
		/* the programs took that for the application's wish: once more */
	}
	return setsockopt(fd, SOL_BPF, SOCKMETA_OPT_ENABLE, &req, sizeof(req));
}

/* Copies the record of a control message. A kernel's records may have a longer fixed
 * part than this header knows, or a shorter one.
 */
static inline int sockmeta_copy_record(const unsigned char *data, size_t len,
				       struct sockmeta_record *rec)
{
	memset(rec, 0, sizeof(*rec));
	/* version, hdr_len and area_len are where they are in every version */
	if (len < 4 || (size_t)data[1] + data[2] > len || data[2] > SOCKMETA_AREA_MAX) {
		errno = EBADMSG;
		return -1;
	}
	memcpy(rec, data, data[1] < SOCKMETA_RECORD_HDR ? data[1] : SOCKMETA_RECORD_HDR);
	memcpy(rec->area, data + data[1], data[2]);
	return 0;
}

/* The handle in a control message, or 0 where it is another message or a time. */
static inline __u64 sockmeta_handle(struct cmsghdr *c)
{
	struct timespec ts;
	__u64 handle;

	if (c->cmsg_level != SOL_SOCKET || c->cmsg_len < CMSG_LEN(3 * sizeof(ts)))
		return 0;
#ifdef SO_TIMESTAMPING_NEW
	if (c->cmsg_type != SO_TIMESTAMPING && c->cmsg_type != SO_TIMESTAMPING_NEW)
		return 0;
#else
	if (c->cmsg_type != SO_TIMESTAMPING)
		return 0;
#endif
	memcpy(&ts, CMSG_DATA(c), sizeof(ts));
	handle = (__u64)ts.tv_sec * 1000000000 + ts.tv_nsec;
	return handle & SOCKMETA_HANDLE_BIT ? handle : 0;
}

/* Asks for the record that a handle stands for. */
static inline int sockmeta_socket_slot(int fd, __u64 handle, struct sockmeta_record *rec)
{
	struct sockmeta_answer answer;
	socklen_t len = sizeof(answer);
	int opt = SOCKMETA_OPT_SLOT + (int)(handle & SOCKMETA_INDEX_MASK);

	if (getsockopt(fd, SOL_BPF, opt, &answer, &len)) {
		if (errno == ENODATA)
			errno = EOVERFLOW;
		return -1;
	}
	if (len != sizeof(answer) || answer.seq != handle) {
		errno = EOVERFLOW;
		return -1;
	}
	*rec = answer.rec;
	return 0;
}

/**
 * sockmeta_socket_record - the record of a datagram
 * @fd: a UDP socket that opted in
 * @msg: what recvmsg() returned for the datagram
 * @rec: where to
 *
 * Ask soon: records wait in a ring that newer packets use, too. A program that reads
 * times of its own finds the datagram's in rec->tstamp, as the one of SCM_TIMESTAMPING
 * is the handle.
 *
 * Return: 0, or -1 and errno: ENODATA where the datagram has no record, or
 * is a message of the error queue, EOVERFLOW
 * where newer packets took the record's place, EMSGSIZE where msg_control had no room.
 */
static inline int sockmeta_socket_record(int fd, struct msghdr *msg, struct sockmeta_record *rec)
{
	__u64 handle = 0;
	struct cmsghdr *c;

	/* no program of the socket's has seen it come */
	if (msg->msg_flags & MSG_ERRQUEUE) {
		errno = ENODATA;
		return -1;
	}
	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level == SOL_BPF && c->cmsg_type == SOCKMETA_SCM_RECORD)
			return sockmeta_copy_record(CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0), rec);
		if (!handle)
			handle = sockmeta_handle(c);
	}
	if (handle)
		return sockmeta_socket_slot(fd, handle, rec);
	errno = msg->msg_flags & MSG_CTRUNC ? EMSGSIZE : ENODATA;
	return -1;
}

/**
 * sockmeta_socket_tcp_record - a record of a TCP connection
 * @fd: a connection that opted in, or whose listener did
 * @opt: SOCKMETA_OPT_TCP_READ for the last byte that was read, SOCKMETA_OPT_TCP_OPENING
 * for the SYN, SOCKMETA_OPT_TCP_LATEST for the newest segment
 * @rec: where to
 *
 * Return: 0, or -1 and errno: ENODATA where there is none, EOVERFLOW where it was lost.
 */
static inline int sockmeta_socket_tcp_record(int fd, int opt, struct sockmeta_record *rec)
{
	socklen_t len = sizeof(*rec);

	return getsockopt(fd, SOL_BPF, opt, rec, &len);
}

/**
 * sockmeta_next_value - walk the values of a record
 * @rec: the record
 * @at: 0 at the beginning; the function counts on
 * @key: where to put the value's key
 * @len: where to put how many bytes it has
 *
 * Return: the value, in host byte order and not aligned, or NULL at the end.
 */
static inline const void *sockmeta_next_value(const struct sockmeta_record *rec, unsigned int *at,
					      unsigned int *key, unsigned int *len)
{
	while (rec->format == SOCKMETA_FORMAT_TLV && *at + 2 <= rec->area_len) {
		const __u8 *tlv = rec->area + *at;

		*key = tlv[0];
		*len = tlv[1];
		if (*at + 2 + *len > rec->area_len)
			break;
		*at += (*len + 2 + 3) & ~3U;
		/* padding, and the anchor that ends the producer's values */
		if (*key != SOCKMETA_KEY_PAD && *key != SOCKMETA_KEY_ANCHOR)
			return tlv + 2;
	}
	return NULL;
}

/**
 * sockmeta_value - a value of a record
 * @rec: the record
 * @key: 1 to 254
 * @len: where to put how many bytes the value has
 *
 * Return: the value that was put last under the key, or NULL where there is none. Look
 * at rec->flags first: SOCKMETA_F_UNANCHORED says that anybody may have put it.
 */
static inline const void *sockmeta_value(const struct sockmeta_record *rec, unsigned int key,
					 unsigned int *len)
{
	unsigned int at = 0, found;
	const void *value;

	while ((value = sockmeta_next_value(rec, &at, &found, len)))
		if (found == key)
			return value;
	return NULL;
}

/**
 * sockmeta_add_value - give a record that is to be sent one more value
 * @rec: with version, hdr_len and format set
 * @key: 1 to 254
 * @value: its bytes
 * @len: how many
 *
 * Return: 0, or -1 where there is no room.
 */
static inline int sockmeta_add_value(struct sockmeta_record *rec, unsigned int key,
				     const void *value, size_t len)
{
	size_t size = (2 + len + 3) & ~(size_t)3;

	if (len > 255 || rec->area_len + size > SOCKMETA_AREA_MAX)
		return -1;
	memset(&rec->area[rec->area_len], 0, size);
	rec->area[rec->area_len] = key;
	rec->area[rec->area_len + 1] = len;
	memcpy(&rec->area[rec->area_len + 2], value, len);
	rec->area_len += size;
	return 0;
}

/**
 * sockmeta_put_record - make a control message of a record
 * @c: a header with room for SOCKMETA_RECORD_MAX bytes behind it
 * @rec: the record
 *
 * The kernel ignores the message, unless the tracing or the native tier is attached.
 *
 * Return: what msg_controllen takes for it.
 */
static inline size_t sockmeta_put_record(struct cmsghdr *c, const struct sockmeta_record *rec)
{
	size_t len = SOCKMETA_RECORD_HDR + rec->area_len;

	c->cmsg_level = SOL_BPF;
	c->cmsg_type = SOCKMETA_SCM_RECORD;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), rec, len);
	return CMSG_SPACE(len);
}

#endif
