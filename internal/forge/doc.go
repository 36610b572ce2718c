// SPDX-License-Identifier: Apache-2.0

// Package forge makes the packets of somebody who wants a receiver to believe in
// metadata that no producer gave, and says whether a receiver did. It is for tests.
//
// A forger may choose every byte of a packet, but not what the receiver's kernel does
// with it: so a [Carrier] knows which bytes of its headers come to lie just in front
// of the inner packet once the kernel has taken the headers off. There the forger puts
// a [Text], an area as a producer would have written it. A [Truth] says what a record
// may hold.
package forge
