/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* The pages of struct sockmeta_spills, for their writer and their reader. */
#ifndef SOCKMETA_TCP_PAGES_H
#define SOCKMETA_TCP_PAGES_H

#include "tcp_log.h"

static __always_inline struct sockmeta_page *page_of(__u64 number)
{
	__u32 index = number & (SOCKMETA_PAGES - 1);

	return bpf_map_lookup_elem(&sockmeta_pages, &index);
}

/* The n-th page of a connection. */
static __always_inline struct sockmeta_page_ref *page_ref(struct sockmeta_spills *sp, __u64 n)
{
	return &sp->pages[n & (SOCKMETA_PAGE_REFS - 1)];
}

#endif
