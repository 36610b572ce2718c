// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0
/*
 * What crosses the border between the programs and user space. No kernel loads this:
 * internal/abi/gen writes the Go types and constants from its BTF, where a type is
 * found only if a variable has it.
 */
#include "bounds.h"
#include "maps.h"
#include "../include/sockmeta.h"

#define EXPORT(kind, name) const kind sockmeta_##name *the_##name __attribute__((unused))

EXPORT(struct, answer);
EXPORT(struct, bounds);
EXPORT(struct, counts);
EXPORT(struct, enable);
EXPORT(struct, host);
EXPORT(struct, info);
EXPORT(struct, instance);
EXPORT(struct, local_dev);
EXPORT(struct, policy);
EXPORT(struct, record);
EXPORT(struct, room);
EXPORT(struct, slot);
EXPORT(struct, tx_info);
EXPORT(struct, tx_slot);
EXPORT(struct, tx_slots);

EXPORT(enum, anchor);
EXPORT(enum, const);
EXPORT(enum, enable_flag);
EXPORT(enum, feature);
EXPORT(enum, flag);
EXPORT(enum, format);
EXPORT(enum, key);
EXPORT(enum, opt);
EXPORT(enum, valid);
