// SPDX-License-Identifier: Apache-2.0

package main

import "math"

// A Unit is what a row's value is in.
type Unit string

const (
	// Times is a ratio, and the only unit that is judged.
	Times Unit = "×"
	// Nanoseconds and Bytes depend on the machine.
	Nanoseconds Unit = "ns"
	Bytes       Unit = "B"
)

// A Target is what a row's value should be.
type Target struct {
	Value float64
	// Ceiling: the value should not be more. Else it should not be less.
	Ceiling bool
}

func atLeast(v float64) *Target { return &Target{Value: v} }
func atMost(v float64) *Target  { return &Target{Value: v, Ceiling: true} }

// A Row is one line of the table.
type Row struct {
	// ID is the case, a slash, and what distinguishes the row.
	ID string
	// What was measured, and what it was compared with, empty for what stands for
	// itself.
	What, Against string
	Value         Estimate
	Unit          Unit
	// Target is nil for what is measured and published.
	Target *Target `json:",omitempty"`
	// Nanos and AgainstNanos are the medians of the two sides, by operation, 0
	// where there are none.
	Nanos, AgainstNanos float64 `json:",omitempty"`
	Verdict             Verdict
}

// A Verdict is how a row's value compares with its target.
type Verdict string

const (
	Met Verdict = "met"
	// Tolerated: missed, by less than the tolerance.
	Tolerated Verdict = "tolerated"
	Missed    Verdict = "missed"
	// Within and Beyond are about targets that depend on the machine.
	Within Verdict = "within (informative)"
	Beyond Verdict = "beyond (informative)"
	// Published: there is no target.
	Published Verdict = "–"
)

// judge returns the verdict on a row. A ratio may be worse than its target by a
// factor of 1+tolerance.
func (r *Row) judge(tolerance float64) Verdict {
	if r.Target == nil {
		return Published
	}
	met := r.Target.reached(r.Value.Median, 0)
	switch {
	case r.Unit != Times && met:
		return Within
	case r.Unit != Times:
		return Beyond
	case met:
		return Met
	case r.Target.reached(r.Value.Median, tolerance):
		return Tolerated
	}
	return Missed
}

// reached reports whether a value is as the target wants it. What is no number
// never is.
func (t *Target) reached(value, tolerance float64) bool {
	if t.Ceiling {
		return value <= t.Value*(1+tolerance)
	}
	return value*(1+tolerance) >= t.Value
}

// attained is how far a value has come, 1 being the target and more being better.
func (t *Target) attained(value float64) float64 {
	if t.Ceiling {
		value, t = t.Value, &Target{Value: value}
	}
	if t.Value == 0 {
		return math.Inf(1)
	}
	return value / t.Value
}

// misses returns the rows that fail the run.
func misses(rows []Row) (missed []Row) {
	for _, r := range rows {
		if r.Verdict == Missed {
			missed = append(missed, r)
		}
	}
	return missed
}

// ratio is a row of two contenders of a comparison.
func (s samples) ratio(id, what, against string, value Estimate, target *Target, one, other string) Row {
	return Row{
		ID: id, What: what, Against: against, Value: value, Unit: Times, Target: target,
		Nanos: s.time(one).Median, AgainstNanos: s.time(other).Median,
	}
}

// faster is a row of how many times as much one does in the time of the other.
func (s samples) faster(id, what, against string, target *Target, one, other string) Row {
	return s.ratio(id, what, against, s.over(other, one), target, one, other)
}

// slower is a row of how many times as long one takes as the other.
func (s samples) slower(id, what, against string, target *Target, one, other string) Row {
	return s.ratio(id, what, against, s.over(one, other), target, one, other)
}

// nanos is a row of a contender's time.
func (s samples) nanos(id, what string, target *Target, one string) Row {
	v := s.time(one)
	return Row{ID: id, What: what, Value: v, Unit: Nanoseconds, Target: target, Nanos: v.Median}
}
