// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/cgroup2"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

var cleanUp []func()

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range slices.Backward(cleanUp) {
		f()
	}
	os.Exit(code)
}

// theLab is one for the whole process: fuzzing runs thousands of plans in it.
var theLab = sync.OnceValues(func() (*lab, error) {
	a, err := attach()
	if err != nil {
		return nil, err
	}
	cleanUp = append(cleanUp, a.close)
	l, err := newLab()
	if err == nil {
		cleanUp = append(cleanUp, func() { _ = l.close() })
	}
	return l, err
})

func testLab(t testing.TB) *lab {
	t.Helper()
	testutil.RequireRoot(t)
	l, err := theLab()
	if errors.Is(err, cgroup2.ErrNoCgroup2) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// want fails the test for answers that are wrong.
func want(t testing.TB, y *tally) {
	t.Helper()
	for _, v := range y.violations {
		t.Error(v)
	}
}

// TestTruthOracle runs a few seeds of what `go run ./tests/oracle` runs more of.
func TestTruthOracle(t *testing.T) {
	l := testLab(t)
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			var y tally
			if err := l.runPlan(newPlan(seed, testutil.Scale(400_000)), -1, &y, fmt.Sprintf("-seed %d", seed), false); err != nil {
				t.Fatal(err)
			}
			want(t, &y)
			if y.outcomes[ofRead][right] == 0 {
				t.Errorf("no answer was right:\n%v", &y)
			}
			for _, trouble := range y.troubles {
				t.Log(trouble)
			}
		})
	}
}

// TestTruthOracleModes has each kind of connection once, on a wire that does nothing
// to it: what is asked for is there, and right.
func TestTruthOracleModes(t *testing.T) {
	l := testLab(t)
	for m := range modes {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v,v6=%v", m, v6), func(t *testing.T) {
				var y tally
				p := &plan{conns: []connection{{mode: m, v6: v6, read: 3, write: 3, seed: 1, total: 40_000}}}
				if err := l.runPlan(p, -1, &y, m.String(), false); err != nil {
					t.Fatal(err)
				}
				want(t, &y)
				for _, trouble := range y.troubles {
					t.Error(trouble)
				}
				switch q := y.outcomes[ofRead]; {
				case m.isUDP() && y.outcomes[ofDatagram][right] == 0,
					!m.isUDP() && m != multipath && m != late && q[right] == 0,
					m == multipath && (q[right] != 0 || q[notSupported] == 0):
					t.Errorf("\n%v", &y)
				}
			})
		}
	}
}

// TestWireTells has the wire's own means tried: what a frame carries names it.
func TestWireTells(t *testing.T) {
	stream := make([]byte, 4000)
	fillContent(stream, 1, 0)
	fillContent(stream[1500:1503], 2, 1500)
	f := &flow{data: []uint32{1, 2, 3}}
	w := &wire{frames: []frame{{}, {off: 0, size: 4000, tag: 1}, {off: 1000, size: 1000, tag: 2}, {off: 1490, size: 20, tag: 3}}}
	j := newJudge(w, f, stream, setting{})
	for at, id := range map[int]uint32{0: 1, 1499: 1, 1501: 2, 1503: 1, 3999: 1} {
		for tag := range uint32(4) {
			if tag == 0 {
				continue
			}
			o, why := j.read(&answer{tag: tag, read: int32(at + 1)})
			if tag == id && o != right || tag != id && o != wrong {
				t.Errorf("byte %d of #%d, record of #%d: %v, %s", at, id, tag, o, why)
			}
		}
	}
	// Part of a word, and all of it, at every offset.
	for off := range uint32(20) {
		b := make([]byte, 30)
		fillContent(b, 7, off)
		for i := range b {
			if b[i] != contentByte(7, off+uint32(i)) {
				t.Fatalf("byte %d from %d on", i, off)
			}
		}
	}
}

// TestPlanBytes has a plan survive its bytes.
func TestPlanBytes(t *testing.T) {
	p := newPlan(5, 400_000)
	p.conns = p.conns[:1]
	p.conns[0].total = 4096
	q, err := decodePlan(p.bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(q.bytes()[1:18], p.bytes()[1:18]) || q.setting != p.setting || !bytes.Equal(q.conns[0].ops, p.conns[0].ops) {
		t.Errorf("%+v\n%+v", q, p)
	}
}

// FuzzTruthWire takes bytes for the plan of one short connection.
func FuzzTruthWire(f *testing.F) {
	l := testLab(f)
	for seed := range uint64(8) {
		p := newPlan(seed, connections*20_000)
		for i := range p.conns[:2] {
			c := p.conns[i]
			c.ops = c.ops[:min(len(c.ops), 200)]
			f.Add((&plan{setting: p.setting, conns: []connection{c}}).bytes())
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePlan(b)
		if err != nil {
			t.Skip()
		}
		c := &p.conns[0]
		c.total = min(c.total, 30_000)
		c.hasty = true
		c.fit()
		var y tally
		if err := l.runPlan(p, -1, &y, "fuzzed", false); err != nil {
			t.Fatal(err)
		}
		if len(y.violations) > 0 {
			t.Logf("%v; %v", c, p.setting)
		}
		want(t, &y)
	})
}
