// SPDX-License-Identifier: Apache-2.0

package xdpmeta

import (
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

func TestFits(t *testing.T) {
	testutil.RequireRoot(t)
	for _, tt := range []struct {
		size int
		want bool
	}{
		{4, true},
		{32, true}, // since there has been any
		{30, false},
		{256, false},
	} {
		if got, err := Fits(tt.size); got != tt.want || err != nil {
			t.Errorf("%d bytes: %v, %v, want %v", tt.size, got, err, tt.want)
		}
	}
	if most, err := Most(); err != nil || most < 32 || most > 252 {
		t.Errorf("at most %d bytes, %v", most, err)
	}
}
