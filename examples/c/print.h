/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0 */
/* What the receivers print of a record. */
#ifndef PRINT_H
#define PRINT_H

#include <stdio.h>

#include <sockmeta_socket.h>

static inline void print_values(const struct sockmeta_record *rec)
{
	unsigned int at = 0, key, len, i;
	const unsigned char *value;

	while ((value = sockmeta_next_value(rec, &at, &key, &len))) {
		printf(" %u=", key);
		for (i = 0; i < len; i++)
			printf("%02x", value[i]);
	}
}

static inline void print_record(const struct sockmeta_record *rec)
{
	if (rec->valid & SOCKMETA_VALID_TSTAMP)
		printf(" time=%llu", (unsigned long long)rec->tstamp);
	if (rec->valid & SOCKMETA_VALID_MARK)
		printf(" mark=%#x", rec->mark);
	if (rec->valid & SOCKMETA_VALID_IFINDEX)
		printf(" ifindex=%u", rec->ifindex);
	if (rec->valid & SOCKMETA_VALID_HASH)
		printf(" hash=%#x", rec->hash);
	/* what is in doubt, see enum sockmeta_flag */
	if (rec->flags)
		printf(" flags=%#x", rec->flags);
	print_values(rec);
	printf("\n");
}

#endif
