// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"fmt"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

const (
	// AreaMax is how many bytes an area can have, anchor included: what
	// xdp_metalen_invalid() in include/net/xdp.h allows.
	AreaMax = int(abi.AreaMax)

	// ValueMax is how many bytes a TLV's value can have: an area with this
	// one TLV and its anchor is full.
	ValueMax = AreaMax - AnchorLen - tlvHeaderLen

	tlvHeaderLen = 2
	tlvAlign     = 4
)

func tlvSize(n int) int { return (tlvHeaderLen + n + tlvAlign - 1) &^ (tlvAlign - 1) }

// tlvEnd returns where the TLV at i ends, padding included, or -1 if area does
// not have all of it.
func tlvEnd(area []byte, i int) int {
	if len(area)-i < tlvAlign {
		return -1
	}
	end := i + tlvSize(int(area[i+1]))
	if end > len(area) {
		return -1
	}
	return end
}

// findTLV returns place and length of the first value of k, at 0 if there is
// none. It goes through the whole area all the same: bad is where it found the
// first malformed TLV, -1 if all are good. KeyAnchor is a key that is never found.
func findTLV(area []byte, k Key) (at, n, bad int) {
	area = cutTLVAnchor(area)
	for i := 0; i < len(area); {
		end := tlvEnd(area, i)
		if end < 0 || Key(area[i]) == KeyAnchor {
			return 0, 0, i
		}
		if Key(area[i]) == k && at == 0 {
			at, n = i+tlvHeaderLen, int(area[i+1])
		}
		i = end
	}
	return at, n, -1
}

func tlvError(bad int) error {
	return fmt.Errorf("%w: TLV at byte %d of the area", ErrMalformed, bad)
}

// CheckTLVs returns nil if area is a row of TLVs, and an error that is
// [ErrMalformed] and says where if it is not: when a TLV, padding included, goes
// past the end or into the anchor, or when key [KeyAnchor] is in it other than as
// the anchor for [FormatTLV] at the end. An area may have no anchor, and may be
// empty. What padding consists of does not matter.
func CheckTLVs(area []byte) error {
	if _, _, bad := findTLV(area, KeyAnchor); bad >= 0 {
		return tlvError(bad)
	}
	return nil
}

// AppendTLV appends k, the length of v, v and zeros up to a multiple of 4 bytes
// to dst, and returns the extended slice. It allocates only when dst's capacity
// is too small. It returns dst as it was with [ErrKeyReserved] for [KeyPad] and
// [KeyAnchor], and with [ErrTooLarge] if v is longer than [ValueMax]. v must not
// overlap the spare capacity of dst.
//
// Areas end in an anchor: append that last, with [AppendAnchor].
func AppendTLV(dst []byte, k Key, v []byte) ([]byte, error) {
	if err := checkTLV(k, v); err != nil {
		return dst, err
	}
	return appendTLV(dst, k, v), nil
}

// PrependTLV puts a TLV in front of area, where the first occurrence of a key
// wins, and returns the extended slice. It allocates only when area's capacity
// is too small; otherwise it moves the bytes that area has. It returns area as
// it was with [ErrKeyReserved] for [KeyPad] and [KeyAnchor], and with
// [ErrTooLarge] if v is longer than [ValueMax] or the area would be longer than
// [AreaMax]. It adds no anchor. v must not overlap area or its spare capacity.
func PrependTLV(area []byte, k Key, v []byte) ([]byte, error) {
	if err := checkTLV(k, v); err != nil {
		return area, err
	}
	n := len(area)
	size := tlvSize(len(v))
	if n+size > AreaMax {
		return area, ErrTooLarge
	}
	area = appendTLV(area, k, v) // for its length
	copy(area[size:], area[:n])
	appendTLV(area[:0], k, v)
	return area, nil
}

func checkTLV(k Key, v []byte) error {
	if k.reserved() {
		return ErrKeyReserved
	}
	if len(v) > ValueMax {
		return ErrTooLarge
	}
	return nil
}

func appendTLV(dst []byte, k Key, v []byte) []byte {
	var zeros [tlvAlign]byte
	dst = append(dst, byte(k), byte(len(v)))
	dst = append(dst, v...)
	return append(dst, zeros[:tlvSize(len(v))-tlvHeaderLen-len(v)]...)
}

// A TLVIterator walks over the TLVs of an area. It is a value: a copy goes on
// from where the original was, independently. It must not be used by several
// goroutines at once.
type TLVIterator struct {
	area []byte
	off  int
	bad  bool
}

// TLVs returns an iterator over the TLVs in area, from its first byte on. It
// finds out that an area is malformed when it comes to that place: use
// [CheckTLVs] first where no value of such an area may be used.
func TLVs(area []byte) TLVIterator { return TLVIterator{area: cutTLVAnchor(area)} }

// Next returns key and value of the next TLV, padding and anchor left out, and
// false after the last one and at a malformed one, which [TLVIterator.Err] tells
// apart. The value aliases the area, and its capacity ends where it ends.
func (it *TLVIterator) Next() (Key, []byte, bool) {
	for it.off < len(it.area) {
		i := it.off
		end := tlvEnd(it.area, i)
		k := Key(it.area[i])
		if end < 0 || k == KeyAnchor {
			it.bad = true
			break
		}
		it.off = end
		if k != KeyPad {
			v := i + tlvHeaderLen
			n := v + int(it.area[i+1])
			return k, it.area[v:n:n], true
		}
	}
	return 0, nil, false
}

// Err returns nil, or an error that is [ErrMalformed] and says where if Next
// ended at a malformed TLV, see [CheckTLVs].
func (it *TLVIterator) Err() error {
	if !it.bad {
		return nil
	}
	return tlvError(it.off)
}
