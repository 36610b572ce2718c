/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/*
 * sockmeta_cmsg.h: walks the control messages of a sendmsg from tracing
 * programs, in the shape that the talk has for it, bpf_for_each(cmsghdr, …):
 *
 *	struct sockmeta_cmsg_iter it;
 *	struct sockmeta_cmsg *c;
 *
 *	sockmeta_for_each_cmsg(c, &it, control, len)
 *		if (c->level == SOL_BPF && c->type == SOCKMETA_SCM_RECORD)
 *			…
 *
 * control and len are msg_control and msg_controllen of a struct msghdr once
 * the kernel has copied it in (net/socket.c, ____sys_sendmsg): kernel memory.
 * The walk is that of CMSG_FIRSTHDR and CMSG_NXTHDR, and ends at a header with
 * a length that cannot be, where the kernel fails the call, or after
 * SOCKMETA_CMSG_MAX messages, so that the verifier sees it end.
 */
#ifndef SOCKMETA_CMSG_H
#define SOCKMETA_CMSG_H

#define SOCKMETA_CMSG_MAX 32

/* struct cmsghdr in include/linux/socket.h */
struct sockmeta_cmsg {
	__u64 len;		/* with this header */
	__s32 level;
	__s32 type;
};

struct sockmeta_cmsg_iter {
	const void *control;
	__u64 size;
	__u64 next;		/* offset of the next header */
	__u64 n;		/* this wide for the verifier to follow it on the stack */
	const void *data;	/* of the current message */
	__u64 data_len;
	struct sockmeta_cmsg hdr;
};

static __always_inline void sockmeta_cmsg_iter_new(struct sockmeta_cmsg_iter *it,
						   const void *control, __u64 size)
{
	it->control = control;
	it->size = size;
	it->next = 0;
	it->n = 0;
}

static __always_inline struct sockmeta_cmsg *sockmeta_cmsg_iter_next(struct sockmeta_cmsg_iter *it)
{
	__u64 rest = it->size - it->next;

	if (it->n++ >= SOCKMETA_CMSG_MAX || it->next > it->size || rest < sizeof(it->hdr) ||
	    bpf_probe_read_kernel(&it->hdr, sizeof(it->hdr), it->control + it->next) ||
	    it->hdr.len < sizeof(it->hdr) || it->hdr.len > rest)
		return 0;
	it->data = it->control + it->next + sizeof(it->hdr);
	it->data_len = it->hdr.len - sizeof(it->hdr);
	it->next += (it->hdr.len + sizeof(long) - 1) & ~(sizeof(long) - 1);
	return &it->hdr;
}

#define sockmeta_for_each_cmsg(cmsg, it, control, size)			\
	for (sockmeta_cmsg_iter_new(it, control, size);			\
	     ((cmsg) = sockmeta_cmsg_iter_next(it));)

#endif
