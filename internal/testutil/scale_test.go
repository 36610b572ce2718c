// SPDX-License-Identifier: Apache-2.0

package testutil

import (
	"flag"
	"strconv"
	"testing"
)

func TestScale(t *testing.T) {
	was := testing.Short()
	set := func(short bool) {
		t.Helper()
		if err := flag.Set("test.short", strconv.FormatBool(short)); err != nil {
			t.Fatal(err)
		}
	}
	defer set(was)
	for _, tt := range []struct {
		short   bool
		n, want int
	}{
		{false, 1_000_000, 1_000_000},
		{true, 1_000_000, 50_000},
		{true, 3, 1},
	} {
		set(tt.short)
		if got := Scale(tt.n); got != tt.want {
			t.Errorf("%d of %d, short %v, want %d", got, tt.n, tt.short, tt.want)
		}
	}
}
