// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// txSlots is how many transmit slots a process has.
const txSlots = 1 << abi.TxIndexBits

// TxSlots are the transmit slots of this process: memory that the programs read
// while the process is in sendmsg. A slot is taken, filled, sent and released;
// what it held stays readable until it is taken again, which comes as late as
// can be, because a corked datagram leaves later.
//
// All methods may be called concurrently.
type TxSlots struct {
	mem []abi.TxSlot
	// taken says of each slot whether it is, uses how often it has been.
	taken []atomic.Bool
	uses  []uint32

	// epoch counts how often the numbers of any slot began anew, and began says
	// of each slot at which count its own did last.
	//
	// A number says the slot's use modulo 1<<abi.TxUseBits, so it comes again, and a
	// corked datagram leaves long after its call. Nothing goes wrong as long as no
	// datagram of the socket has the number any more:
	//
	//   - A slot's numbers begin anew when it is taken. Whoever sent by the earlier
	//     ones has returned from sendmsg: their datagrams have left, or are corked.
	//   - Only then epoch is counted up. A socket sends by the new numbers once it was
	//     registered at that epoch or later (Began), so after that.
	//   - Registering fails with EBUSY while the socket has a corked datagram. Where
	//     it did not, there was none with an earlier number, nor will there be.
	epoch atomic.Uint64
	began []uint64

	cursor atomic.Uint32
	// window is how many of the slots are in use: few as long as they suffice,
	// so that they stay in the CPU's caches.
	window atomic.Uint32
}

// firstWindow is more than the goroutines that are in sendmsg at a time, unless
// they wait for room in their sockets' buffers. With more pages than these slots
// take, each send would pay for one that the CPU does not know any more.
const firstWindow = 32

var processTxSlots = sync.OnceValues(newTxSlots)

// ProcessTxSlots returns the slots of this process, which live as long as it
// does.
func ProcessTxSlots() (*TxSlots, error) { return processTxSlots() }

func newTxSlots() (*TxSlots, error) {
	size := txSlots * int(unsafe.Sizeof(abi.TxSlot{}))
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("transmit slots: %w", os.NewSyscallError("mmap", err))
	}
	// The programs cannot wait for a page. One that was written a moment ago is
	// there, but for what these two turn off where the process may.
	_ = unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
	_, _, _ = unix.Syscall(unix.SYS_MLOCK2, uintptr(unsafe.Pointer(&mem[0])), uintptr(size), unix.MLOCK_ONFAULT)
	// A child that is forked has no business with them.
	_ = unix.Madvise(mem, unix.MADV_DONTFORK)

	s := &TxSlots{
		mem:   unsafe.Slice((*abi.TxSlot)(unsafe.Pointer(&mem[0])), txSlots),
		taken: make([]atomic.Bool, txSlots),
		uses:  make([]uint32, txSlots),
		began: make([]uint64, txSlots),
	}
	s.window.Store(firstWindow)
	return s, nil
}

// Take takes a slot. It returns false where all are taken, or there are none
// (ProcessTxSlots makes them).
func (s *TxSlots) Take() (index int, ok bool) {
	if s == nil || s.mem == nil {
		return 0, false
	}
	for {
		window := s.window.Load()
		for range window {
			i := s.cursor.Add(1) & (window - 1)
			if !s.taken[i].Load() && s.taken[i].CompareAndSwap(false, true) {
				if (s.uses[i]+1)&(1<<abi.TxUseBits-1) == 0 {
					s.began[i] = s.epoch.Add(1)
				}
				return int(i), true
			}
		}
		if window == txSlots {
			return 0, false
		}
		s.window.CompareAndSwap(window, 2*window)
	}
}

// Epoch returns how often the numbers of any slot began anew so far.
func (s *TxSlots) Epoch() uint64 {
	if s == nil {
		return 0
	}
	return s.epoch.Load()
}

// Began returns the epoch that has to have come before a socket is registered
// that is to send by the slot, which was taken.
func (s *TxSlots) Began(index int) uint64 {
	if s == nil || index >= len(s.began) {
		return 0
	}
	return s.began[index]
}

// Fill puts a record into a slot that was taken, for a datagram of the
// socket that info is of, and returns the number that SCM_TXTIME carries. A slot is
// filled once each time that it is taken.
func (s *TxSlots) Fill(index int, info *abi.TxInfo, rec *abi.Record) (number uint64) {
	if s == nil || s.mem == nil {
		return 0
	}
	slot := &s.mem[index]
	use := s.uses[index] + 1
	s.uses[index] = use
	// A program may be reading what the slot had, for a datagram that was
	// corked then: it looks at the number once more when it has.
	atomic.SwapUint64(&slot.Handle, 0)
	slot.Rec.Set(rec)
	slot.Socket = info.Socket
	number = abi.TxNumber(info.Proc, use, index)
	atomic.StoreUint64(&slot.Handle, number)
	return number
}

// Release gives a slot back.
func (s *TxSlots) Release(index int) {
	if s != nil && s.taken != nil {
		s.taken[index].Store(false)
	}
}

// Register tells the programs where the slots are that this process sends by on
// the socket, and returns what they say to that. Any number of processes may send
// on one socket; the programs know the last SOCKMETA_TX_PROCS that registered. The
// error is EBUSY while the socket has a corked datagram.
func (s *TxSlots) Register(fd int) (abi.TxInfo, error) {
	if s == nil || s.mem == nil {
		return abi.TxInfo{}, unix.EINVAL
	}
	req := abi.TxSlots{ABI: abi.ABI, Count: txSlots, Addr: uint64(uintptr(unsafe.Pointer(&s.mem[0])))}
	if err := setsockopt(fd, abi.SOL_BPF, abi.OptTxSlots, unsafe.Pointer(&req), unsafe.Sizeof(req)); err != nil {
		return abi.TxInfo{}, err
	}
	return SocketTxInfo(fd)
}
