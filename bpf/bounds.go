// SPDX-License-Identifier: Apache-2.0

package bpf

// Sockets are the sockets of an attachment that have metadata.
type Sockets struct {
	// Now is how many there are, Max how many there may be.
	Now, Max int
	// Users has how many there are of each user, of whom MaxPerUser are allowed.
	Users      map[uint32]int
	MaxPerUser int
}
