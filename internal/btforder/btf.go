// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// Kinds of types, enum BTF_KIND_* of the kernel's include/uapi/linux/btf.h.
const (
	kindInt       = 1
	kindPtr       = 2
	kindArray     = 3
	kindStruct    = 4
	kindUnion     = 5
	kindEnum      = 6
	kindFwd       = 7
	kindTypedef   = 8
	kindVolatile  = 9
	kindConst     = 10
	kindRestrict  = 11
	kindFunc      = 12
	kindFuncProto = 13
	kindVar       = 14
	kindDatasec   = 15
	kindFloat     = 16
	kindDeclTag   = 17
	kindTypeTag   = 18
	kindEnum64    = 19
)

const (
	headerLen = 24 // struct btf_header; that of .BTF.ext without core_relo
	typeLen   = 12 // struct btf_type
)

// information is the BTF of an object: where its types are, and every word that names
// a type or a string, in the order of the file.
type information struct {
	order   binary.ByteOrder
	strings []byte
	types   [][]byte // by id less one, each from its struct btf_type
	ids     [][]byte
	names   [][]byte
}

func (b *information) kind(t []byte) uint32 { return b.order.Uint32(t[4:]) >> 24 & 0x1f }

func (b *information) name(t []byte) string {
	s, _, _ := bytes.Cut(b.strings[b.order.Uint32(t):], []byte{0})
	return string(s)
}

func parse(types, ext []byte, order binary.ByteOrder) (*information, error) {
	b := &information{order: order}
	if err := b.parseTypes(types); err != nil {
		return nil, err
	}
	if err := b.parseExt(ext); err != nil {
		return nil, err
	}
	for _, n := range b.names {
		if off := order.Uint32(n); uint64(off) >= uint64(len(b.strings)) {
			return nil, fmt.Errorf("BTF: string at %d of %d", off, len(b.strings))
		}
	}
	return b, nil
}

func (b *information) parseTypes(data []byte) error {
	header, body, err := b.header(data)
	if err != nil {
		return err
	}
	types, err := part(body, header[8:], b.order)
	if err != nil {
		return err
	}
	if b.strings, err = part(body, header[16:], b.order); err != nil {
		return err
	}
	for len(types) > 0 {
		if len(types) < typeLen {
			return errShort
		}
		n, err := b.parseType(types)
		if err != nil {
			return err
		}
		types = types[n:]
	}
	return nil
}

// parseType notes the type that data begins with, and returns its length.
func (b *information) parseType(data []byte) (int, error) {
	vlen := int(b.order.Uint32(data[4:]) & 0xffff)
	once, onceIDs := 0, []int(nil) // the size of what follows, and where in the type ids are
	member := 0                    // the size of what follows that, vlen times
	var names, ids []int           // where in it they are
	switch kind := b.kind(data); kind {
	case kindFwd, kindFloat:
	case kindInt:
		once = 4
	case kindPtr, kindTypedef, kindVolatile, kindConst, kindRestrict, kindFunc, kindTypeTag:
		onceIDs = []int{8}
	case kindVar, kindDeclTag:
		once, onceIDs = 4, []int{8}
	case kindArray:
		once, onceIDs = 12, []int{typeLen, typeLen + 4}
	case kindStruct, kindUnion:
		member, names, ids = 12, []int{0}, []int{4}
	case kindEnum:
		member, names = 8, []int{0}
	case kindEnum64:
		member, names = 12, []int{0}
	case kindFuncProto:
		onceIDs = []int{8}
		member, names, ids = 8, []int{0}, []int{4}
	case kindDatasec:
		member, ids = 12, []int{0}
	default:
		return 0, fmt.Errorf("BTF: type %d is of kind %d, which is not known here", len(b.types)+1, kind)
	}
	if member == 0 {
		vlen = 0 // FUNC keeps its linkage there
	}
	size := typeLen + once + vlen*member
	if len(data) < size {
		return 0, errShort
	}
	b.types = append(b.types, data[:size])
	b.note(data, []int{0}, onceIDs)
	for m := data[size-vlen*member : size]; len(m) > 0; m = m[member:] {
		b.note(m, names, ids)
	}
	return size, nil
}

// note notes the words of a record that name strings and types.
func (b *information) note(record []byte, names, ids []int) {
	for _, at := range names {
		b.names = append(b.names, record[at:at+4])
	}
	for _, at := range ids {
		b.ids = append(b.ids, record[at:at+4])
	}
}

// parseExt notes the words of func_info, line_info and core_relo.
func (b *information) parseExt(data []byte) error {
	header, body, err := b.header(data)
	if err != nil {
		return err
	}
	for i, words := range []struct{ names, ids []int }{
		{ids: []int{4}},                  // struct bpf_func_info
		{names: []int{4, 8}},             // struct bpf_line_info
		{names: []int{8}, ids: []int{4}}, // struct bpf_core_relo
	} {
		if len(header) < 16+8*i {
			break // from before core_relo
		}
		records, err := part(body, header[8+8*i:], b.order)
		if err != nil {
			return err
		}
		if err := b.parseRecords(records, words.names, words.ids); err != nil {
			return err
		}
	}
	return nil
}

func (b *information) parseRecords(data []byte, names, ids []int) error {
	if len(data) < 4 {
		return nil
	}
	size := int(b.order.Uint32(data))
	for data = data[4:]; len(data) > 0; {
		if len(data) < 8 {
			return errShort
		}
		b.names = append(b.names, data[:4]) // of the section
		n := int(b.order.Uint32(data[4:]))
		data = data[8:]
		if size < slices.Max(slices.Concat(names, ids))+4 || n > len(data)/size {
			return errShort
		}
		for ; n > 0; n, data = n-1, data[size:] {
			b.note(data, names, ids)
		}
	}
	return nil
}

// header returns the header of a section, and what is behind it.
func (b *information) header(data []byte) (header, body []byte, err error) {
	if len(data) < headerLen || b.order.Uint16(data) != 0xeb9f {
		return nil, nil, errShort
	}
	n := int(b.order.Uint32(data[4:]))
	if n < headerLen || n > len(data) {
		return nil, nil, errShort
	}
	return data[:n], data[n:], nil
}

// part returns the bytes that an offset and a length name.
func part(body, words []byte, order binary.ByteOrder) ([]byte, error) {
	off, n := uint64(order.Uint32(words)), uint64(order.Uint32(words[4:]))
	if off+n > uint64(len(body)) {
		return nil, errShort
	}
	return body[off : off+n], nil
}

// orderForwards orders each run of forward declarations by name.
func (b *information) orderForwards(compare func(a, b string) int) {
	moved := make(map[uint32]uint32)
	for at := 0; at < len(b.types); {
		end := at
		for end < len(b.types) && b.kind(b.types[end]) == kindFwd {
			end++
		}
		if end == at {
			at++
			continue
		}
		type forward struct {
			name  string
			id    int
			bytes []byte
		}
		var run []forward
		for i := at; i < end; i++ {
			run = append(run, forward{b.name(b.types[i]), i + 1, bytes.Clone(b.types[i])})
		}
		slices.SortStableFunc(run, func(x, y forward) int { return compare(x.name, y.name) })
		for i, f := range run {
			copy(b.types[at+i], f.bytes)
			moved[uint32(f.id)] = uint32(at + i + 1)
		}
		at = end
	}
	for _, word := range b.ids {
		if to, ok := moved[b.order.Uint32(word)]; ok {
			b.order.PutUint32(word, to)
		}
	}
}

// orderStrings lays out the strings in the order of their first use. Those that nothing
// uses stay behind them, in the order that they had.
func (b *information) orderStrings() error {
	old := bytes.Clone(b.strings)
	moved := map[uint32]uint32{0: 0}
	to := uint32(1) // behind the empty string
	place := func(off uint32) error {
		if _, ok := moved[off]; ok {
			return nil
		}
		if old[off-1] != 0 {
			return fmt.Errorf("BTF: string at %d is the end of another", off)
		}
		n := bytes.IndexByte(old[off:], 0) + 1
		if n == 0 {
			return errShort
		}
		copy(b.strings[to:], old[off:off+uint32(n)])
		moved[off] = to
		to += uint32(n)
		return nil
	}
	for _, word := range b.names {
		if err := place(b.order.Uint32(word)); err != nil {
			return err
		}
	}
	for off := uint32(1); off < uint32(len(old)); off += uint32(bytes.IndexByte(old[off:], 0) + 1) {
		if err := place(off); err != nil {
			return err
		}
	}
	for _, word := range b.names {
		b.order.PutUint32(word, moved[b.order.Uint32(word)])
	}
	return nil
}
