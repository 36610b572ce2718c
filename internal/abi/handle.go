// SPDX-License-Identifier: Apache-2.0

package abi

// HandleBit tells a handle from a timestamp: it is set in every handle, and in
// no time in nanoseconds since 1970 before the year 2116.
const HandleBit = uint64(1) << 62

// IndexMask has the bits of a handle that are its slot's index. The others are the time
// at which it was given, enciphered.
const IndexMask = uint64(1)<<IndexBits - 1
