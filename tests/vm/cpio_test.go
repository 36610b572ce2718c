// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// TestCPIO reads an archive back as the format's description says, each field
// where it belongs.
func TestCPIO(t *testing.T) {
	var b bytes.Buffer
	c := newCPIOWriter(&b)
	c.bytes("init", 0o755, []byte("five!"))
	c.bytes("a/b/empty", 0o644, nil)
	c.dir("a/b", 0o700)
	c.bytes("a/b/x", 0o600, []byte("four"))
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"100755 init five!",
		"40755 a ",
		"40755 a/b ",
		"100644 a/b/empty ",
		"100600 a/b/x four",
		"0 TRAILER!!! ",
	}
	if got := readCPIO(t, b.Bytes()); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func readCPIO(t *testing.T, data []byte) (entries []string) {
	t.Helper()
	off := 0
	take := func(n int) []byte {
		if off+n > len(data) {
			t.Fatalf("%d bytes wanted at %d of %d", n, off, len(data))
		}
		off += n
		return data[off-n : off]
	}
	align := func() { take(-off & 3) }
	for off < len(data) {
		if magic := take(6); string(magic) != "070701" {
			t.Fatalf("magic %q at %d", magic, off)
		}
		var fields [13]int
		for i := range fields {
			n, err := strconv.ParseUint(string(take(8)), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			fields[i] = int(n)
		}
		mode, size, nameSize := fields[1], fields[6], fields[11]
		name := strings.TrimSuffix(string(take(nameSize)), "\x00")
		align()
		entries = append(entries, fmt.Sprintf("%o %s %s", mode, name, take(size)))
		align()
	}
	return entries
}

func TestCPIOErrors(t *testing.T) {
	c := newCPIOWriter(new(bytes.Buffer))
	c.copy("x", 0o644, "does-not-exist")
	if err := c.close(); err == nil {
		t.Error("no error for a file that isn't there")
	}
}
