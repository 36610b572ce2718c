// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// Each contender is timed once a round, and has every place in it as often as the
// others.
func TestInterleave(t *testing.T) {
	var order []string
	side := func(name string) contender {
		prepared := false
		return contender{name: name, ops: 1, prepare: func() error {
			prepared = true
			return nil
		}, batch: func() error {
			if !prepared {
				t.Errorf("%s is not prepared", name)
			}
			prepared = false
			order = append(order, name)
			return nil
		}}
	}
	const rounds = 30
	s, err := interleave(t.Context(), rounds, side("a"), side("b"), side("c"))
	if err != nil {
		t.Fatal(err)
	}
	first := make(map[string]int)
	for i := 0; i < len(order); i += 3 {
		first[order[i]]++
		round := slices.Sorted(slices.Values(order[i : i+3]))
		if !slices.Equal(round, []string{"a", "b", "c"}) {
			t.Errorf("a round of %v", order[i:i+3])
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if len(s[name]) != rounds {
			t.Errorf("%s counts %d times, want %d", name, len(s[name]), rounds)
		}
		if n := len(order) / 3; first[name] < n/3-1 || first[name] > n/3+1 {
			t.Errorf("%s is first in %d of %d rounds", name, first[name], n)
		}
	}
	failing := contender{name: "fails", batch: func() error { return io.ErrUnexpectedEOF }}
	_, err = interleave(t.Context(), 1, failing)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "fails") {
		t.Errorf("a batch's error is %v", err)
	}
	// A batch that lost a packet is timed again, and not for ever.
	for _, test := range []struct {
		losses int
		want   error
	}{{mayLose, nil}, {mayLose + 1, os.ErrDeadlineExceeded}} {
		calls, lost := 0, 0
		losing := contender{name: "loses", batch: func() error {
			if calls++; calls%2 == 1 && lost < test.losses {
				lost++
				return os.ErrDeadlineExceeded
			}
			return nil
		}}
		if _, err := interleave(t.Context(), 20, losing); !errors.Is(err, test.want) {
			t.Errorf("%d losses: %v, want %v", test.losses, err, test.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := interleave(ctx, 1, side("a")); !errors.Is(err, context.Canceled) {
		t.Errorf("after an interrupt: %v", err)
	}
}
