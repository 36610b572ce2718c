// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"testing"
)

func TestEstimate(t *testing.T) {
	for _, test := range []struct {
		name   string
		values []float64
		want   Estimate
	}{
		{"one", []float64{7}, Estimate{7, 7, 7, 1}},
		{"two", []float64{4, 2}, Estimate{3, 2.5, 3.5, 2}},
		{"odd", []float64{5, 1, 4, 2, 3}, Estimate{3, 2, 4, 5}},
		{"even", []float64{4, 1, 3, 2}, Estimate{2.5, 1.75, 3.25, 4}},
		{"outlier", []float64{1, 1, 1, 1, 1000}, Estimate{1, 1, 1, 5}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := estimate(test.values); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

func TestEstimateLeavesValues(t *testing.T) {
	values := []float64{3, 1, 2}
	estimate(values)
	if values[0] != 3 || values[1] != 1 || values[2] != 2 {
		t.Errorf("the values are %v", values)
	}
}

// A round in which the machine is slow says the same of both sides.
func TestRatioIsOfRounds(t *testing.T) {
	s := samples{"one": {10, 1000, 20}, "other": {20, 2000, 40}}
	if got, want := s.over("one", "other"), (Estimate{0.5, 0.5, 0.5, 3}); got != want {
		t.Errorf("one over other is %+v, want %+v", got, want)
	}
	if got, want := s.faster("", "", "", nil, "one", "other").Value.Median, 2.0; got != want {
		t.Errorf("one does %v times as much, want %v", got, want)
	}
	row := s.slower("", "", "", nil, "one", "other")
	if row.Value.Median != 0.5 || row.Nanos != 20 || row.AgainstNanos != 40 {
		t.Errorf("one takes %v times as long, %v and %v ns", row.Value.Median, row.Nanos, row.AgainstNanos)
	}
}

func TestGrowth(t *testing.T) {
	s := samples{"large": {30}, "small": {10}, "plain large": {20}, "plain small": {10}}
	if got := s.growth("large", "small", "plain large", "plain small").Median; math.Abs(got-1.5) > 1e-9 {
		t.Errorf("growth %v, want 1.5", got)
	}
}
