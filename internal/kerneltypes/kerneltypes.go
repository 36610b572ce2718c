// SPDX-License-Identifier: Apache-2.0

// Package kerneltypes reads the kernel's types (BTF), which takes longer than all
// else that attaching does in user space, and megabytes of memory.
package kerneltypes

import (
	"sync/atomic"

	"github.com/cilium/ebpf/btf"
)

var kept atomic.Pointer[btf.Cache]

// Keep makes Cache return the same from now on: for processes that attach again and
// again, as tests do, while the kernel loads no module that they want to see.
func Keep() { kept.CompareAndSwap(nil, btf.NewCache()) }

// Cache returns what is kept, or an empty one. It is safe for concurrent use.
func Cache() *btf.Cache {
	if c := kept.Load(); c != nil {
		return c
	}
	return btf.NewCache()
}
