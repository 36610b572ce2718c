// SPDX-License-Identifier: Apache-2.0

// Command btforder gives the BTF of objects one order, so that a compiler makes the
// same bytes of a source each time.
//
// LLVM emits a forward declaration for each struct that only pointers in other structs
// name. Up to version 19, it visits these by the addresses of its own nodes (llvm
// lib/Target/BPF/BTFDebug.cpp, FixupDerivedTypes), and so their order, and that of
// their names, differs between machines. Here neighbours among them are ordered by name,
// and strings by their first use. The layout is that of the kernel's
// Documentation/bpf/btf.rst.
package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"strings"
)

func main() {
	for _, name := range os.Args[1:] {
		if err := rewrite(name); err != nil {
			fmt.Fprintf(os.Stderr, "btforder: %s: %v\n", name, err)
			os.Exit(1)
		}
	}
}

func rewrite(name string) error {
	object, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := order(object, strings.Compare); err != nil {
		return err
	}
	return os.WriteFile(name, object, 0o644)
}

// order orders the BTF of an object in place: nothing changes its size.
func order(object []byte, compare func(a, b string) int) error {
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		return err
	}
	section := func(name string) ([]byte, error) {
		s := file.Section(name)
		if s == nil {
			return nil, fmt.Errorf("no section %s", name)
		}
		if s.Type == elf.SHT_NOBITS || s.Offset+s.FileSize > uint64(len(object)) {
			return nil, fmt.Errorf("section %s: not in the file", name)
		}
		return object[s.Offset : s.Offset+s.FileSize], nil
	}
	types, err := section(".BTF")
	if err != nil {
		return err
	}
	lines, err := section(".BTF.ext")
	if err != nil {
		return err
	}
	b, err := parse(types, lines, file.ByteOrder)
	if err != nil {
		return err
	}
	b.orderForwards(compare)
	return b.orderStrings()
}

var errShort = errors.New("BTF: shorter than its header says")
