// SPDX-License-Identifier: GPL-2.0
/* Control messages for those who are in recvmsg(). */
#include <linux/btf.h>
#include <linux/minmax.h>
#include <linux/pagemap.h>
#include <linux/sizes.h>
#include <linux/socket.h>
#include <linux/uaccess.h>
#include <net/compat.h>

#include "sockmeta.h"

/* With its header, as the process has it. */
static size_t cmsg_len(const struct msghdr *msg, size_t len)
{
#ifdef CONFIG_COMPAT
	if (msg->msg_flags & MSG_CMSG_COMPAT)
		return sizeof(struct compat_cmsghdr) + len;
#endif
	return CMSG_LEN(len);
}

/* Whether the message is of a process that can be given control messages. */
static bool receives(const struct msghdr *msg)
{
	return msg->msg_control_is_user;
}

__bpf_kfunc_start_defs();

/**
 * bpf_msg_put_cmsg - adds a control message to what recvmsg() returns
 * @msg: the message
 * @level: SOL_BPF. Processes trust the kernel with what comes at other levels, file
 *	descriptors (SCM_RIGHTS) and credentials among them.
 * @type: any
 * @data: what is in it
 * @data__sz: bytes of @data
 *
 * It never sleeps: a page of the buffer that is not there is not waited for, see
 * bpf_msg_fault_in().
 *
 * Returns 0, or a negative error, and then nothing was added: -EINVAL for another
 * level, -E2BIG for more than 64 kB, -EOPNOTSUPP for a sendmsg() and for users within
 * the kernel, -ENOSPC where the buffer has no room for all of it, -EFAULT where it
 * cannot be written. The last two set MSG_CTRUNC.
 */
__bpf_kfunc int bpf_msg_put_cmsg(struct msghdr *msg, int level, int type,
				 void *data, u32 data__sz)
{
	int err;

	if (level != SOL_BPF)
		return -EINVAL;
	if (data__sz > SZ_64K)
		return -E2BIG;
	if (!receives(msg))
		return -EOPNOTSUPP;
	/* put_cmsg() would cut it */
	if (!msg->msg_control_user || msg->msg_controllen < cmsg_len(msg, data__sz)) {
		msg->msg_flags |= MSG_CTRUNC;
		return -ENOSPC;
	}
	pagefault_disable();
	err = put_cmsg(msg, level, type, data__sz, data);
	pagefault_enable();
	if (err)
		msg->msg_flags |= MSG_CTRUNC;
	return err;
}

/**
 * bpf_msg_fault_in - has the buffer for control messages ready to be written
 * @msg: the message
 *
 * For programs that may sleep, in front of recvmsg(): lsm.s/socket_recvmsg. It looks
 * after the first page size of the buffer. What memory pressure takes away before the
 * datagram comes is gone again.
 *
 * Returns 0, or -EFAULT if the buffer cannot be written.
 */
__bpf_kfunc int bpf_msg_fault_in(struct msghdr *msg)
{
	size_t len = min_t(size_t, msg->msg_controllen, PAGE_SIZE);

	if (!receives(msg) || !msg->msg_control_user || !len)
		return 0;
	return fault_in_writeable(msg->msg_control_user, len) ? -EFAULT : 0;
}

__bpf_kfunc_end_defs();
