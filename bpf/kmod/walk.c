// SPDX-License-Identifier: GPL-2.0
/*
 * Control messages of those who are in sendmsg(): bpf_for_each(cmsghdr, cmsg, msg).
 * They have been copied into the kernel, those of 32-bit processes in the kernel's
 * own layout, and no other task can change them (net/socket.c, ____sys_sendmsg).
 */
#include <linux/btf.h>
#include <linux/minmax.h>
#include <linux/socket.h>
#include <linux/string.h>

#include "sockmeta.h"

struct walk {
	struct msghdr *msg;	/* NULL: it is over */
	struct cmsghdr *at;	/* NULL: in front of the first */
};

__bpf_kfunc_start_defs();

/**
 * bpf_iter_cmsghdr_new - begins a walk through control messages
 * @it: the iterator
 * @msg: the message. That of a recvmsg() has none to walk through.
 *
 * Returns 0, or -EINVAL for a message that has none, and then the walk is over.
 */
__bpf_kfunc int bpf_iter_cmsghdr_new(struct bpf_iter_cmsghdr *it, struct msghdr *msg)
{
	struct walk *w = (struct walk *)it;

	BUILD_BUG_ON(sizeof(*w) != sizeof(*it));
	BUILD_BUG_ON(__alignof__(*w) != __alignof__(*it));
	w->msg = msg->msg_control_is_user ? NULL : msg;
	w->at = NULL;
	return w->msg ? 0 : -EINVAL;
}

/**
 * bpf_iter_cmsghdr_next - goes on to the next control message
 * @it: the iterator
 *
 * Returns the control message, all of which lies within the message's buffer; NULL
 * behind the last, and at one whose length cannot be, where sendmsg() fails.
 */
__bpf_kfunc struct cmsghdr *bpf_iter_cmsghdr_next(struct bpf_iter_cmsghdr *it)
{
	struct walk *w = (struct walk *)it;

	if (!w->msg)
		return NULL;
	w->at = w->at ? CMSG_NXTHDR(w->msg, w->at) : CMSG_FIRSTHDR(w->msg);
	if (!w->at || !CMSG_OK(w->msg, w->at)) {
		w->msg = NULL;
		return NULL;
	}
	return w->at;
}

/**
 * bpf_iter_cmsghdr_destroy - ends a walk
 * @it: the iterator
 */
__bpf_kfunc void bpf_iter_cmsghdr_destroy(struct bpf_iter_cmsghdr *it)
{
}

/**
 * bpf_cmsg_data - the bytes of a control message, in place
 * @cmsg: the control message
 * @rdonly_buf_size: how many of them, a constant
 *
 * Returns the bytes, to be read only, or NULL if there are fewer.
 */
__bpf_kfunc u8 *bpf_cmsg_data(struct cmsghdr *cmsg, const int rdonly_buf_size)
{
	if (rdonly_buf_size < 0 || cmsg->cmsg_len < CMSG_LEN(rdonly_buf_size))
		return NULL;
	return CMSG_DATA(cmsg);
}

/**
 * bpf_cmsg_data_read - copies bytes of a control message
 * @cmsg: the control message
 * @off: how many bytes to leave out
 * @buf: where they go
 * @buf__sz: how many at most
 *
 * Returns how many there were, fewer than @buf__sz at the end, or -E2BIG where @off
 * lies behind it.
 */
__bpf_kfunc int bpf_cmsg_data_read(struct cmsghdr *cmsg, u32 off, void *buf, u32 buf__sz)
{
	size_t len = cmsg->cmsg_len - CMSG_LEN(0);

	if (off > len)
		return -E2BIG;
	len = min_t(size_t, len - off, buf__sz);
	memcpy(buf, (u8 *)CMSG_DATA(cmsg) + off, len);
	return len;
}

__bpf_kfunc_end_defs();
