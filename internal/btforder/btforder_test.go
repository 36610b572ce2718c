// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

// committed returns the files of the committed objects. Machines that tests are carried
// to have no sources.
func committed(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat("../../bpf"); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no objects to put in order")
	}
	var all []string
	for _, dir := range []string{"../../bpf", "../testprog"} {
		objects, err := filepath.Glob(filepath.Join(dir, "*_bpfe[lb].o"))
		if err != nil || len(objects) == 0 {
			t.Fatalf("objects in %s: %d, %v", dir, len(objects), err)
		}
		all = append(all, objects...)
	}
	return all
}

// TestOrder holds that the committed objects are in order, that another order of forward
// declarations comes back to the same bytes, and that a loader reads both.
func TestOrder(t *testing.T) {
	moved := 0
	for _, name := range committed(t) {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got := bytes.Clone(want)
		if err := order(got, func(a, b string) int { return strings.Compare(b, a) }); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(got, want) {
			moved++
		}
		if _, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(got)); err != nil {
			t.Errorf("%s in another order: %v", name, err)
		}
		if err := order(got, strings.Compare); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: its order is not that of btforder; go generate ./...", name)
		}
	}
	if moved == 0 {
		t.Error("no object has two forward declarations next to each other")
	}
}

// TestOrderShort holds that cut sections are errors.
func TestOrderShort(t *testing.T) {
	object, err := os.ReadFile(committed(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	types, err := file.Section(".BTF").Data()
	if err != nil {
		t.Fatal(err)
	}
	ext, err := file.Section(".BTF.ext").Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parse(types, ext, file.ByteOrder); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 23, 24, 100, len(types) - 1} {
		if _, err := parse(types[:n], ext, file.ByteOrder); err == nil {
			t.Errorf("%d bytes of .BTF: no error", n)
		}
	}
	for _, n := range []int{0, 23, 24, 100, len(ext) - 1} {
		if _, err := parse(types, ext[:n], file.ByteOrder); err == nil {
			t.Errorf("%d bytes of .BTF.ext: no error", n)
		}
	}
}
