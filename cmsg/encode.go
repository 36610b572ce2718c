// SPDX-License-Identifier: Apache-2.0

package cmsg

// Append appends a control message to dst, [Space](len(data)) bytes with zeros
// for padding, and returns the extended slice. It allocates only when dst's
// capacity is too small. The length of dst must be a multiple of the pointer
// size, as it is after other Appends. level and typ are cut to 32 bits. data
// must not overlap the spare capacity of dst.
func Append(dst []byte, level, typ int, data []byte) []byte {
	dst = appendHeader(dst, level, typ, len(data))
	dst = append(dst, data...)
	return appendPadding(dst, len(data))
}

// Put writes a control message to the start of buf, padding included, and
// returns how many bytes that took: the next one goes to buf[n:]. When buf has
// fewer than [Space](len(data)) bytes it writes nothing and returns 0 and
// [ErrTooLarge]. data must not overlap buf.
func Put(buf []byte, level, typ int, data []byte) (n int, err error) {
	n = Space(len(data))
	if len(buf) < n {
		return 0, ErrTooLarge
	}
	putHeader(buf, Len(len(data)), level, typ)
	copy(buf[headerLen:], data)
	clear(buf[headerLen+len(data) : n])
	return n, nil
}

func appendHeader(dst []byte, level, typ, n int) []byte {
	var h [headerLen]byte
	putHeader(h[:], Len(n), level, typ)
	return append(dst, h[:]...)
}

func appendPadding(dst []byte, n int) []byte {
	var zeros [align]byte
	return append(dst, zeros[:alignUp(n)-n]...)
}
