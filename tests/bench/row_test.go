// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"
)

func TestJudge(t *testing.T) {
	for _, test := range []struct {
		name      string
		value     float64
		unit      Unit
		target    *Target
		tolerance float64
		want      Verdict
	}{
		{"met", 0.96, Times, atLeast(0.95), 0, Met},
		{"just met", 0.95, Times, atLeast(0.95), 0, Met},
		{"missed", 0.94, Times, atLeast(0.95), 0, Missed},
		{"tolerated", 0.94, Times, atLeast(0.95), 0.05, Tolerated},
		{"missed by more", 0.89, Times, atLeast(0.95), 0.05, Missed},
		{"met with tolerance", 0.96, Times, atLeast(0.95), 0.05, Met},
		{"ceiling met", 1.4, Times, atMost(1.4), 0, Met},
		{"ceiling missed", 1.41, Times, atMost(1.4), 0, Missed},
		{"ceiling tolerated", 1.45, Times, atMost(1.4), 0.05, Tolerated},
		{"ceiling missed by more", 1.48, Times, atMost(1.4), 0.05, Missed},
		{"no number", math.NaN(), Times, atMost(1.4), 0.05, Missed},
		{"ns within", 30, Nanoseconds, atMost(30), 0, Within},
		{"ns beyond", 31, Nanoseconds, atMost(30), 0, Beyond},
		{"ns know no tolerance", 31, Nanoseconds, atMost(30), 0.5, Beyond},
		{"published", 5, Times, nil, 0, Published},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := Row{Value: Estimate{Median: test.value}, Unit: test.unit, Target: test.target}
			if got := r.judge(test.tolerance); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
		})
	}
}

// Only ratios fail a run.
func TestMisses(t *testing.T) {
	rows := []Row{
		{ID: "a", Verdict: Met}, {ID: "b", Verdict: Missed}, {ID: "c", Verdict: Tolerated},
		{ID: "d", Verdict: Beyond}, {ID: "e", Verdict: Published}, {ID: "f", Verdict: Missed},
	}
	got := misses(rows)
	if len(got) != 2 || got[0].ID != "b" || got[1].ID != "f" {
		t.Errorf("misses %v", got)
	}
}

func TestAttained(t *testing.T) {
	for _, test := range []struct {
		target *Target
		value  float64
		want   float64
	}{
		{atLeast(2), 1, 0.5}, {atLeast(2), 3, 1.5}, {atMost(2), 4, 0.5}, {atMost(2), 1, 2}, {atMost(2), 0, math.Inf(1)},
	} {
		if got := test.target.attained(test.value); got != test.want {
			t.Errorf("%+v: %v is %v of the target, want %v", *test.target, test.value, got, test.want)
		}
	}
}
