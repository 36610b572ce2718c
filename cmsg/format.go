// SPDX-License-Identifier: Apache-2.0

package cmsg

import (
	"strconv"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// A Format says what an area's bytes are: enum sockmeta_format.
type Format uint8

// The formats of an area.
const (
	FormatTLV    = Format(abi.FormatTLV)    // TLVs, what sockmeta_put() writes
	FormatStruct = Format(abi.FormatStruct) // a struct that producer and reader agree on
	FormatRaw    = Format(abi.FormatRaw)    // bytes that nothing is known about
)

// String returns tlv, struct or raw, and format(n) for others.
func (f Format) String() string {
	switch f {
	case FormatTLV:
		return "tlv"
	case FormatStruct:
		return "struct"
	case FormatRaw:
		return "raw"
	}
	return "format(" + strconv.Itoa(int(f)) + ")"
}
