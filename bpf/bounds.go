// SPDX-License-Identifier: Apache-2.0

package bpf

// Sockets are the sockets of an attachment that have metadata.
type Sockets struct {
	// Now is how many there are, Max how many there may be.
	Now, Max int
	// Closed is how many more count, because they were closed a moment ago: the kernel
	// may still have what it kept at them. That takes two seconds at most, or 17 if
	// they had packets on their way.
	Closed int
	// Users has how many there are of each user, of whom MaxPerUser are allowed.
	// Others is how many there are of users whom no place is left for: these share
	// one part.
	Users      map[uint32]int
	Others     int
	MaxPerUser int
}
