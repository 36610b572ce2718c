// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"net"
	"strconv"
	"sync"
	"time"
)

// zoneLife is how long the name of an interface is taken to be right.
const zoneLife = time.Minute

// zones are the names of IPv6 zones. They are looked up as package net does, so
// that what one hands out the other understands.
var zones zoneNames

type zoneNames struct {
	mu      sync.RWMutex
	read    time.Time
	indices map[string]int
	names   map[int]string
}

// name returns the name of a zone, its number where it has none.
func (z *zoneNames) name(index int) string {
	if name, ok := lookUp(z, &z.names, index); ok {
		return name
	}
	return strconv.Itoa(index)
}

// index returns the number of a zone, 0 where there is none.
func (z *zoneNames) index(name string) int {
	if index, ok := lookUp(z, &z.indices, name); ok {
		return index
	}
	index, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0
	}
	return int(index)
}

// lookUp finds k in one of the maps, which it reads anew where they are old or lack
// it.
func lookUp[K comparable, V any](z *zoneNames, m *map[K]V, k K) (V, bool) {
	z.mu.RLock()
	v, ok := (*m)[k]
	fresh := time.Since(z.read) < zoneLife
	z.mu.RUnlock()
	if ok && fresh {
		return v, true
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if interfaces, err := net.Interfaces(); err == nil {
		z.read, z.indices, z.names = time.Now(), make(map[string]int), make(map[int]string)
		for _, i := range interfaces {
			z.indices[i.Name], z.names[i.Index] = i.Index, i.Name
		}
	}
	v, ok = (*m)[k]
	return v, ok
}
