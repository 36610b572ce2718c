// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// slotsHere returns slots of the test's own. They stay mapped, like a process's.
func slotsHere(t *testing.T) *TxSlots {
	t.Helper()
	s, err := newTxSlots()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// highestProc is the process whose numbers are the highest.
const highestProc = uint32(abi.TxProcIDs) - 1

// TestTxNumbers has no number come again before a slot has been used as often as
// the number can say, and all fit into what the programs take for a number.
func TestTxNumbers(t *testing.T) {
	s := slotsHere(t)
	var rec abi.Record
	seen := make(map[uint64]bool)
	for i := range firstWindow << abi.TxUseBits {
		index, ok := s.Take()
		if !ok {
			t.Fatalf("no slot at the %d-th time", i)
		}
		number := s.Fill(index, &abi.TxInfo{Proc: highestProc}, &rec)
		s.Release(index)
		if seen[number] {
			t.Fatalf("number %#x comes again at the %d-th time", number, i)
		}
		seen[number] = true
		if number >= 1<<32 || number>>(abi.TxIndexBits+abi.TxUseBits) != uint64(highestProc) || number&(txSlots-1) != uint64(index) {
			t.Fatalf("number %#x of slot %d, process %#x", number, index, highestProc)
		}
	}
	if window := s.window.Load(); window != firstWindow {
		t.Errorf("%d slots are in use, one at a time", window)
	}
}

// TestTxFill has a slot hold what the programs look for.
func TestTxFill(t *testing.T) {
	s := slotsHere(t)
	index, _ := s.Take()
	long := abi.Record{Version: abi.RecordVersion, AreaLen: uint8(abi.AreaMax)}
	for i := range long.Area {
		long.Area[i] = byte(i)
	}
	short := abi.Record{Version: abi.RecordVersion, AreaLen: 4, Format: abi.FormatRaw, Area: [len(long.Area)]uint8{1, 2, 3, 4}}
	fields := abi.Record{Version: abi.RecordVersion, Valid: abi.ValidMark | abi.ValidPriority | abi.ValidLaunch, Mark: 7, Priority: 8, Launch: 9}
	for _, rec := range []abi.Record{long, short, fields} {
		number := s.Fill(index, &abi.TxInfo{Socket: 99, Proc: 1}, &rec)
		slot := &s.mem[index]
		if slot.Handle != number || slot.Socket != 99 {
			t.Errorf("slot of number %#x, socket %d, want %#x, 99", slot.Handle, slot.Socket, number)
		}
		// What is behind the area's end means nothing.
		got, n := &slot.Rec, int(rec.AreaLen)
		if got.Version != rec.Version || got.Valid != rec.Valid || got.Mark != rec.Mark ||
			got.Priority != rec.Priority || got.Launch != rec.Launch ||
			got.Format != rec.Format || int(got.AreaLen) != n || string(got.Area[:n]) != string(rec.Area[:n]) {
			t.Errorf("record %+v, want %+v", got, rec)
		}
	}
	s.Release(index)
}

// TestTxExhaustion takes all there are, with the window growing on the way.
func TestTxExhaustion(t *testing.T) {
	s := slotsHere(t)
	taken := make(map[int]bool)
	for i := range txSlots {
		index, ok := s.Take()
		if !ok || taken[index] {
			t.Fatalf("the %d-th slot is %d, %v", i, index, ok)
		}
		taken[index] = true
		if window := int(s.window.Load()); window > max(firstWindow, 2*len(taken)) {
			t.Fatalf("%d slots are in use for %d", window, len(taken))
		}
	}
	if index, ok := s.Take(); ok {
		t.Fatalf("slot %d is one too many", index)
	}
	s.Release(17)
	if index, ok := s.Take(); !ok || index != 17 {
		t.Errorf("after a release: %d, %v, want 17", index, ok)
	}
}

// TestTxConcurrent has no slot with two goroutines, of which there are more than
// the first window has slots. Each holds its slot until as many do.
func TestTxConcurrent(t *testing.T) {
	const (
		holders = 2 * firstWindow
		rounds  = 20
	)
	s := slotsHere(t)
	owners := make([]atomic.Int64, txSlots)
	var numbers sync.Map
	var held atomic.Int64
	var wg sync.WaitGroup
	for holder := range int64(holders) {
		wg.Go(func() {
			var rec abi.Record
			for round := range int64(rounds) {
				index, ok := s.Take()
				if !ok {
					t.Errorf("no slot, with %d of %d taken at most", holders, txSlots)
					held.Add(1)
					continue
				}
				if other := owners[index].Swap(holder + 1); other != 0 {
					t.Errorf("slot %d is %d's and %d's", index, other-1, holder)
				}
				number := s.Fill(index, &abi.TxInfo{Proc: 1}, &rec)
				if _, again := numbers.LoadOrStore(number, holder); again {
					t.Errorf("number %#x is given out again", number)
				}
				held.Add(1)
				for held.Load() < (round+1)*holders {
					runtime.Gosched()
				}
				if s.mem[index].Handle != number {
					t.Errorf("slot %d has number %#x, want %#x", index, s.mem[index].Handle, number)
				}
				owners[index].Store(0)
				s.Release(index)
			}
		})
	}
	wg.Wait()
	if window := s.window.Load(); window < holders || window > txSlots {
		t.Errorf("%d slots are in use for %d goroutines", window, holders)
	}
}
