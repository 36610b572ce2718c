/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* The record in a control message, {SOL_BPF, SOCKMETA_SCM_RECORD}, and its values. */
#ifndef RECORD_H
#define RECORD_H

#include <linux/types.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "../../bpf/include/sockmeta_abi.h"

/* What a record without values takes, and the most that one takes with them. */
#define RECORD_HDR offsetof(struct sockmeta_record, area)
#define RECORD_MAX (RECORD_HDR + SOCKMETA_AREA_MAX)

/* Finds the record among what recvmsg() returned and copies it. Returns 0, or -1 where
 * there is none. A kernel's records may have a longer fixed part than this program
 * knows, or a shorter one.
 */
static inline int record_find(struct msghdr *msg, struct sockmeta_record *rec)
{
	struct cmsghdr *c;
	size_t len;

	for (c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		const unsigned char *data = CMSG_DATA(c);

		if (c->cmsg_level != SOL_BPF || c->cmsg_type != SOCKMETA_SCM_RECORD)
			continue;
		len = c->cmsg_len - CMSG_LEN(0);
		memset(rec, 0, sizeof(*rec));
		/* version, hdr_len and area_len are where they are in every version */
		if (len < 4 || (size_t)data[1] + data[2] > len || data[2] > SOCKMETA_AREA_MAX)
			return -1;
		memcpy(rec, data, data[1] < RECORD_HDR ? data[1] : RECORD_HDR);
		memcpy(rec->area, data + data[1], data[2]);
		return 0;
	}
	return -1;
}

/* Adds a value. Returns 0, or -1 where there is no room. */
static inline int record_add(struct sockmeta_record *rec, int key, const void *value, size_t len)
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

/* Makes a control message of the record, where there is room for RECORD_MAX bytes. */
static inline void record_put(struct cmsghdr *c, const struct sockmeta_record *rec)
{
	size_t len = RECORD_HDR + rec->area_len;

	c->cmsg_level = SOL_BPF;
	c->cmsg_type = SOCKMETA_SCM_RECORD;
	c->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(c), rec, len);
}

#endif
