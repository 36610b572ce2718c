// SPDX-License-Identifier: GPL-2.0
/* What recvmsg() received, for programs that look at it. */
#include <linux/btf.h>
#include <linux/minmax.h>
#include <linux/skbuff.h>
#include <linux/string.h>

#include "sockmeta.h"

__bpf_kfunc_start_defs();

/**
 * bpf_msg_skb_acquire - the packet that recvmsg() took from the queue
 * @msg: the message of the call
 *
 * The program may read its fields, those of UDP's queue: skb->dev is none. It has to
 * give it back by bpf_msg_skb_release(). A reference is held until then, as kernels
 * with queueing disciplines in BPF let programs keep packets in maps.
 *
 * Returns the packet, NULL where there is none.
 */
__bpf_kfunc struct sk_buff *bpf_msg_skb_acquire(struct msghdr *msg)
{
	struct sockmeta_call *call = sockmeta_call_by_msg(msg);

	return call && call->skb ? skb_get(call->skb) : NULL;
}

/**
 * bpf_msg_skb_release - gives back what bpf_msg_skb_acquire() returned
 * @skb: the packet
 */
__bpf_kfunc void bpf_msg_skb_release(struct sk_buff *skb)
{
	consume_skb(skb);
}

/**
 * bpf_skb_meta_read - copies the packet's metadata (bpf_xdp_adjust_meta)
 * @skb: the packet
 * @buf: where it goes
 * @buf__sz: bytes of @buf
 *
 * The metadata lies in front of the mac header. Who moved that, as decapsulation
 * does, makes other bytes of it.
 *
 * Returns how many bytes of metadata there are, 0 for none, or -E2BIG if @buf is too
 * short for them.
 */
__bpf_kfunc int bpf_skb_meta_read(struct sk_buff *skb, void *buf, u32 buf__sz)
{
	u32 len = skb_metadata_len(skb);

	if (!len || !skb_mac_header_was_set(skb) ||
	    skb_mac_header(skb) - skb->head < len)
		return 0;
	if (len > buf__sz)
		return -E2BIG;
	memcpy(buf, skb_mac_header(skb) - len, len);
	return len;
}

__bpf_kfunc_end_defs();
