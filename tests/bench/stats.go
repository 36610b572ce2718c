// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math"
	"slices"
)

// An Estimate is the median of what the rounds say, with the quartiles around it.
type Estimate struct {
	Median, Q1, Q3 float64
	// Rounds is how many there were.
	Rounds int
}

// estimate returns the median and the quartiles of values, which are not empty.
func estimate(values []float64) Estimate {
	sorted := slices.Sorted(slices.Values(values))
	return Estimate{
		Median: quantile(sorted, 0.5),
		Q1:     quantile(sorted, 0.25),
		Q3:     quantile(sorted, 0.75),
		Rounds: len(sorted),
	}
}

// quantile interpolates between the two nearest of the sorted values.
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	below := math.Floor(at)
	i := int(below)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-below)*(sorted[i+1]-sorted[i])
}

// samples are the times of the contenders of one comparison: ns an operation, by
// name and round.
type samples map[string][]float64

// per is the estimate of what f makes of each round's times.
func (s samples) per(f func(ns func(name string) float64) float64) Estimate {
	var values []float64
	for round := range s.rounds() {
		values = append(values, f(func(name string) float64 { return s[name][round] }))
	}
	return estimate(values)
}

func (s samples) rounds() int {
	for _, times := range s {
		return len(times)
	}
	return 0
}

// time is the estimate of a contender's time.
func (s samples) time(name string) Estimate {
	return s.per(func(ns func(string) float64) float64 { return ns(name) })
}

// over is the estimate of how many times the time of one is that of the other.
func (s samples) over(one, other string) Estimate {
	return s.per(func(ns func(string) float64) float64 { return ns(one) / ns(other) })
}

// growth is the growth of one thing by that of another.
func (s samples) growth(large, small, otherLarge, otherSmall string) Estimate {
	return s.per(func(ns func(string) float64) float64 {
		return ns(large) / ns(small) / (ns(otherLarge) / ns(otherSmall))
	})
}
