// SPDX-License-Identifier: Apache-2.0

package cmsg

import "github.com/sockmeta/sockmeta-go/internal/abi"

// AnchorLen is the length in bytes of the anchor: [KeyAnchor], 2, a magic number
// and the area's format. It ends where the packet begins, and so tells that an
// area is where it is taken to be, see bpf/include/sockmeta.h.
const AnchorLen = int(abi.AnchorSize)

const (
	anchorMagic    = byte(abi.AnchorMagic)
	anchorValueLen = byte(AnchorLen - tlvHeaderLen)
)

// AppendAnchor appends the anchor of an area with format f to dst, AnchorLen
// bytes, and returns the extended slice.
func AppendAnchor(dst []byte, f Format) []byte {
	return append(dst, byte(KeyAnchor), anchorValueLen, anchorMagic, byte(f))
}

// AnchorFormat returns the format that the anchor at the end of area states, and
// false if area does not end in an anchor. It does not look at what precedes the
// anchor.
func AnchorFormat(area []byte) (Format, bool) {
	if len(area) < AnchorLen {
		return 0, false
	}
	a := area[len(area)-AnchorLen:]
	if Key(a[0]) != KeyAnchor || a[1] != anchorValueLen || a[2] != anchorMagic {
		return 0, false
	}
	return Format(a[3]), true
}

var tlvAnchor = [AnchorLen]byte{byte(KeyAnchor), anchorValueLen, anchorMagic, byte(FormatTLV)}

// cutTLVAnchor returns area without the anchor at its end if there is one that
// states FormatTLV. Other anchors stay, as they do not belong into an area of TLVs.
func cutTLVAnchor(area []byte) []byte {
	n := len(area) - AnchorLen
	if n >= 0 && [AnchorLen]byte(area[n:]) == tlvAnchor {
		return area[:n]
	}
	return area
}
