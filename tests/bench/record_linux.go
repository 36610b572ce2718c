// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// record compares the ways to a datagram's record once it has been received: by
// its handle in the mapping, by its handle from the kernel, and by its addresses in
// a hash map, which is what applications do whose metadata does not come with the
// datagram. Each batch is of datagrams that another CPU has just delivered.
func record(m *meter) ([]Row, error) {
	l, err := m.produced()
	if err != nil {
		return nil, err
	}
	mapped, err := l.records("mapped")
	if err != nil {
		return nil, err
	}
	slots := l.attachment.Slots()
	mapped.batch = func() error {
		return mapped.all(func(handle uint64) error {
			_, err := slots.Read(handle, mapped.owner, &mapped.rec)
			return err
		})
	}
	// The same once more, when the CPU has the slots in its caches.
	again := contender{name: "again", prepare: mapped.batch, batch: mapped.batch}

	asked, err := l.records("getsockopt")
	if err != nil {
		return nil, err
	}
	asked.batch = func() error {
		return control(asked.conn, func(fd int) error {
			return asked.all(func(handle uint64) error {
				_, err := bpf.SocketSlot(fd, handle, &asked.rec)
				return err
			})
		})
	}
	lookup, err := l.lookups()
	if err != nil {
		return nil, err
	}
	s, err := m.compare(1, mapped.contender, again, asked.contender, lookup)
	if err != nil {
		return nil, err
	}
	const what = "record from its handle"
	return []Row{
		s.nanos("record/ns", what+", just written by another CPU", atMost(30), "mapped"),
		s.nanos("record/cached", what+", in the CPU's caches", atMost(30), "again"),
		s.faster("record/getsockopt", what, "getsockopt, a packet", atLeast(20), "mapped", "getsockopt"),
		s.faster("record/lookup", what, "lookup in a hash map by addresses, a packet", atLeast(20), "mapped", "lookup"),
	}, nil
}

// records are those of a batch of datagrams.
type records struct {
	contender
	conn    *sockmeta.UDPConn
	handles []uint64
	owner   uint64
	rec     abi.Record
}

// all calls f for the handles of a batch.
func (r *records) all(f func(handle uint64) error) error {
	for _, h := range r.handles {
		if err := f(h); err != nil {
			return err
		}
	}
	return nil
}

// records returns a contender whose preparation receives a batch and its handles.
func (l *lab) records(name string) (*records, error) {
	c, err := l.udp()
	if err != nil {
		return nil, err
	}
	r := &records{conn: c}
	err = control(c, func(fd int) (err error) {
		r.owner, err = bpf.SocketID(fd, l.attachment.Info())
		return err
	})
	if err != nil {
		return nil, err
	}
	plain := c.NetConn().(*net.UDPConn)
	var buf, oob [128]byte
	receive := func() error {
		r.handles = r.handles[:0]
		for range batchSize {
			_, n, _, _, err := plain.ReadMsgUDPAddrPort(buf[:], oob[:])
			if err != nil {
				return err
			}
			data, ok := cmsg.Find(oob[:n], unix.SOL_SOCKET, unix.SO_TIMESTAMPING)
			if !ok || len(data) < 16 {
				return errNoHandle
			}
			sec, nsec := binary.NativeEndian.Uint64(data), binary.NativeEndian.Uint64(data[8:])
			r.handles = append(r.handles, sec*uint64(time.Second)+nsec)
		}
		return nil
	}
	r.contender, err = l.waiting(name, c, receive)
	fill := r.prepare
	r.prepare = func() error {
		if err := fill(); err != nil {
			return err
		}
		return receive()
	}
	return r, err
}

// flow is a key of the hash map: what is known of a datagram without metadata.
type flow struct {
	Src, Dst         [4]byte
	SrcPort, DstPort uint16
	Proto            uint32
}

// flows is how many a hash map holds.
const flows = 65536

// lookups returns a contender that looks a record up by a datagram's addresses.
func (l *lab) lookups() (contender, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "flows", Type: ebpf.Hash, KeySize: uint32(binary.Size(flow{})),
		ValueSize: uint32(unsafe.Sizeof(abi.Record{})), MaxEntries: flows,
	})
	if err != nil {
		return contender{}, err
	}
	l.m.atEnd(m.Close)
	var rec abi.Record
	key := func(i uint16) flow {
		return flow{
			Src: l.ClientAddr4.As4(), Dst: l.ServerAddr4.As4(), SrcPort: i, DstPort: servicePort, Proto: unix.IPPROTO_UDP,
		}
	}
	for i := range flows / 2 {
		if err := m.Put(key(uint16(i)), &rec); err != nil {
			return contender{}, err
		}
	}
	next := uint16(0)
	return contender{name: "lookup", batch: each(func() error {
		next = (next + 101) % (flows / 2)
		k := key(next)
		return m.Lookup(&k, &rec)
	})}, nil
}
