// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// From asm-generic/socket.h and linux/net_tstamp.h, which x/sys/unix leaves
// out.
const (
	soRcvMark   = 75
	optRxFilter = 1 << 17

	msgCtrunc = 0x8
)

// oobFill shows what nobody wrote to.
const oobFill = 0xA5

type sockOption struct {
	level, name, value int
}

// An optionSet is what an application asks of its socket: before, from a
// Control function, and after, through SyscallConn.
type optionSet struct {
	name          string
	before, after []sockOption
}

func setOptions(fd int, opts []sockOption) error {
	for _, o := range opts {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("option %d at level %d: %w", o.name, o.level, err)
		}
	}
	return nil
}

func packetOptions(k udpKind) []sockOption {
	opts := []sockOption{
		{unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1},
		{unix.SOL_SOCKET, soRcvMark, 1},
	}
	if k.network != "udp6" {
		opts = append(opts,
			sockOption{unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
			sockOption{unix.IPPROTO_IP, unix.IP_RECVTOS, 1},
			sockOption{unix.IPPROTO_IP, unix.IP_RECVTTL, 1},
		)
	}
	if k.network != "udp4" {
		opts = append(opts,
			sockOption{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
			sockOption{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1},
			sockOption{unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1},
		)
	}
	return opts
}

// timeOptions are the ways to ask for timestamps, with and without effect.
func timeOptions() map[string][]sockOption {
	option := func(name, value int) sockOption { return sockOption{unix.SOL_SOCKET, name, value} }
	const (
		report = unix.SOF_TIMESTAMPING_SOFTWARE
		take   = unix.SOF_TIMESTAMPING_RX_SOFTWARE
	)
	return map[string][]sockOption{
		"no times":                   nil,
		"TIMESTAMP":                  {option(unix.SO_TIMESTAMP, 1)},
		"TIMESTAMP_NEW":              {option(unix.SO_TIMESTAMP_NEW, 1)},
		"TIMESTAMPNS":                {option(unix.SO_TIMESTAMPNS, 1)},
		"TIMESTAMPNS_NEW":            {option(unix.SO_TIMESTAMPNS_NEW, 1)},
		"TIMESTAMPING":               {option(unix.SO_TIMESTAMPING, report|take)},
		"TIMESTAMPING_NEW":           {option(unix.SO_TIMESTAMPING_NEW, report|take)},
		"TIMESTAMPING take":          {option(unix.SO_TIMESTAMPING, take)},
		"TIMESTAMPING report":        {option(unix.SO_TIMESTAMPING, report)},
		"TIMESTAMPING filter":        {option(unix.SO_TIMESTAMPING, report|optRxFilter)},
		"TIMESTAMPING take, filter":  {option(unix.SO_TIMESTAMPING, report|take|optRxFilter)},
		"TIMESTAMPING_NEW filter":    {option(unix.SO_TIMESTAMPING_NEW, report|optRxFilter)},
		"TIMESTAMPING raw hardware":  {option(unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_RX_HARDWARE|unix.SOF_TIMESTAMPING_RAW_HARDWARE)},
		"TIMESTAMP and TIMESTAMPING": {option(unix.SO_TIMESTAMP, 1), option(unix.SO_TIMESTAMPING, report|take)},
		"TIMESTAMPNS and _NEW":       {option(unix.SO_TIMESTAMPNS, 1), option(unix.SO_TIMESTAMPING_NEW, report|take)},
		"TIMESTAMP_NEW and old":      {option(unix.SO_TIMESTAMP_NEW, 1), option(unix.SO_TIMESTAMPING, report|take)},
		"TIMESTAMPING and NS_NEW":    {option(unix.SO_TIMESTAMPING, report|take), option(unix.SO_TIMESTAMPNS_NEW, 1)},
		"TIMESTAMP, then not":        {option(unix.SO_TIMESTAMP, 1), option(unix.SO_TIMESTAMP, 0)},
		"TIMESTAMPING, then not":     {option(unix.SO_TIMESTAMPING, report|take), option(unix.SO_TIMESTAMPING, 0)},
		"TIMESTAMPING_NEW, then not": {option(unix.SO_TIMESTAMPING_NEW, report|take), option(unix.SO_TIMESTAMPING_NEW, 0)},
	}
}

func optionSets(k udpKind) []optionSet {
	var sets []optionSet
	packet := packetOptions(k)
	for name, times := range timeOptions() {
		sets = append(sets,
			optionSet{name + " before", times, nil},
			optionSet{name + " after", nil, times},
			optionSet{name + " before, packet before", append(slices.Clip(packet), times...), nil},
			optionSet{name + " after, packet after", nil, append(slices.Clip(times), packet...)},
		)
		if len(times) == 2 {
			sets = append(sets, optionSet{name + " before and after", times[:1], times[1:]})
		}
	}
	slices.SortFunc(sets, func(a, b optionSet) int { return strings.Compare(a.name, b.name) })
	return sets
}

// A twin is a socket, plain or not, and who sends to it.
type twin struct {
	udpConn
	client *net.UDPConn
}

// newTwins makes a plain socket and one with metadata that have the same
// options.
func newTwins(t *testing.T, p *netlab.Pair, k udpKind, set optionSet) (plain, meta twin) {
	t.Helper()
	lc := sockmeta.ListenConfig{ListenConfig: net.ListenConfig{
		Control: func(_, _ string, rc syscall.RawConn) (err error) {
			cerr := rc.Control(func(fd uintptr) { err = setOptions(int(fd), set.before) })
			return errors.Join(cerr, err)
		},
	}}
	local := netip.AddrPortFrom(k.listen, 0).String()
	var conns [2]net.PacketConn
	must(t, p.Server.Do(func() (err error) {
		if conns[0], err = lc.ListenConfig.ListenPacket(t.Context(), k.network, local); err != nil {
			return err
		}
		conns[1], err = lc.ListenPacket(t.Context(), k.network, local)
		return err
	}))
	var twins [2]twin
	for i, c := range conns {
		t.Cleanup(func() { _ = c.Close() })
		u := c.(udpConn)
		withFD(t, u, func(fd int) error { return setOptions(fd, set.after) })
		must(t, u.SetReadDeadline(time.Now().Add(6*udpPatience)))
		port := u.LocalAddr().(*net.UDPAddr).Port
		twins[i] = twin{u, dialUDP(t, p.Client, nil, udpAddr(k.server, port))}
	}
	must(t, twins[1].udpConn.(*sockmeta.UDPConn).Support().Err())
	return twins[0], twins[1]
}

// overflow makes the socket drop datagrams, which SO_RXQ_OVFL then tells of.
func (tw *twin) overflow(t *testing.T) {
	t.Helper()
	must(t, tw.SetReadBuffer(1))
	var m netlab.MemInfo
	for end := time.Now().Add(udpPatience); m.Drops == 0; {
		if time.Now().After(end) {
			t.Fatal("the socket drops nothing")
		}
		// They arrive in the kernel's own time.
		send(t, tw.client, strings.Repeat("x", 1000))
		withFD(t, tw, func(fd int) (err error) {
			m, err = netlab.SocketMemInfo(fd)
			return err
		})
	}
	must(t, tw.SetReadBuffer(1<<18))
}

// exchange sends a payload and returns what came with it, in a buffer of size
// bytes. It skips what overflow left.
func (tw *twin) exchange(t *testing.T, payload string, size int) (oob []byte, oobn, flags int) {
	t.Helper()
	send(t, tw.client, payload)
	b := make([]byte, 1024)
	for {
		oob = bytes.Repeat([]byte{oobFill}, size)
		n, oobn, flags, _, err := tw.ReadMsgUDPAddrPort(b, oob)
		must(t, err)
		if string(b[:n]) == payload {
			return oob, oobn, flags
		}
	}
}

// keepStamping has the host stamp packets until the test ends. What switches
// that on is deferred: it returns when a plain socket in ns sees stamps.
func keepStamping(t *testing.T, ns *netlab.Namespace) {
	t.Helper()
	var c *net.UDPConn
	must(t, ns.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", udpAddr(netip.MustParseAddr("127.0.0.1"), 0))
		return err
	}))
	t.Cleanup(func() { _ = c.Close() })
	withFD(t, c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING,
			unix.SOF_TIMESTAMPING_SOFTWARE|unix.SOF_TIMESTAMPING_RX_SOFTWARE)
	})
	must(t, c.SetReadDeadline(time.Now().Add(udpPatience)))
	b, oob := make([]byte, 16), make([]byte, 128)
	for {
		_, err := c.WriteTo([]byte("payload"), c.LocalAddr())
		must(t, err)
		_, oobn, _, _, err := c.ReadMsgUDP(b, oob)
		must(t, err)
		if _, ok := cmsg.Find(oob[:oobn], unix.SOL_SOCKET, unix.SO_TIMESTAMPING); ok {
			return
		}
	}
}

// withoutTimes checks the times in control messages, and returns the messages
// without them, so that those of two datagrams can be compared. The counter of
// SO_RXQ_OVFL goes, too, if it counts.
func withoutTimes(t *testing.T, oob []byte) []byte {
	t.Helper()
	oob = slices.Clone(oob)
	it := cmsg.Parse(oob)
	for m, ok := it.Next(); ok; m, ok = it.Next() {
		if m.Level != unix.SOL_SOCKET {
			continue
		}
		switch m.Type {
		case unix.SO_RXQ_OVFL:
			if len(m.Data) == 4 && binary.NativeEndian.Uint32(m.Data) == 0 {
				t.Error("nothing has been dropped")
			}
			clear(m.Data)
		case unix.SO_TIMESTAMP, unix.SO_TIMESTAMP_NEW, unix.SO_TIMESTAMPNS, unix.SO_TIMESTAMPNS_NEW,
			unix.SO_TIMESTAMPING, unix.SO_TIMESTAMPING_NEW:
			// Of SO_TIMESTAMPING's three the first is the software's.
			first := m.Data[:min(len(m.Data), 16)]
			wantNow(t, m.Type, first)
			clear(first)
		}
	}
	must(t, it.Err())
	return oob
}

// wantNow checks the seconds of a timestamp, of which a part may be missing.
func wantNow(t *testing.T, typ int32, b []byte) {
	t.Helper()
	// In a part that short the handle's seconds do not differ for sure.
	if len(b) < 4 {
		return
	}
	now := time.Now().Unix()
	whole := binary.NativeEndian.AppendUint64(nil, uint64(now))
	copy(whole, b[:min(len(b), 8)])
	if got := int64(binary.NativeEndian.Uint64(whole)); got < now-60 || got > now {
		t.Errorf("timestamp of type %d is %x: %d, it is %d now", typ, b, got, now)
	}
	if len(b) == 16 && binary.NativeEndian.Uint64(b[8:]) >= 1e9 {
		t.Errorf("timestamp of type %d is %x", typ, b)
	}
}

// optionBytes returns what getsockopt says of the options for timestamps.
func optionBytes(t *testing.T, c syscall.Conn) (values [6][]byte) {
	t.Helper()
	for i, opt := range []int{
		unix.SO_TIMESTAMP, unix.SO_TIMESTAMP_NEW, unix.SO_TIMESTAMPNS, unix.SO_TIMESTAMPNS_NEW,
		unix.SO_TIMESTAMPING, unix.SO_TIMESTAMPING_NEW,
	} {
		withFD(t, c, func(fd int) error {
			b := make([]byte, 16)
			size := uint32(len(b))
			_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, uintptr(opt),
				uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
			values[i] = b[:size]
			if errno != 0 {
				return errno
			}
			return nil
		})
	}
	return values
}

// requireRxFilter skips the test where the kernel does not know a flag.
func requireRxFilter(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING, optRxFilter)
	if err == unix.EINVAL {
		t.Skip("the kernel has no SOF_TIMESTAMPING_OPT_RX_FILTER")
	}
	must(t, err)
}

// TestUDPControlMessages compares what ReadMsgUDPAddrPort gives, for buffers
// of every size, with what it gives on a plain socket.
func TestUDPControlMessages(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	keepStamping(t, p.Server)
	step := 1
	if testing.Short() {
		step = 7
	}
	for _, k := range udpKinds(p)[:4] {
		t.Run(k.name, func(t *testing.T) {
			for _, set := range optionSets(k) {
				t.Run(set.name, func(t *testing.T) {
					if strings.Contains(set.name, "filter") {
						requireRxFilter(t)
					}
					plain, meta := newTwins(t, p, k, set)
					if got, want := fmt.Sprint(optionBytes(t, meta)), fmt.Sprint(optionBytes(t, plain)); got != want {
						t.Errorf("\noptions %s\nplain   %s", got, want)
					}
					plain.overflow(t)
					meta.overflow(t)
					for size := 0; size <= 300 && !t.Failed(); size += step {
						payload := fmt.Sprint("payload ", size)
						want, wantn, wantFlags := plain.exchange(t, payload, size)
						got, gotn, gotFlags := meta.exchange(t, payload, size)
						if gotn != wantn || gotFlags != wantFlags {
							t.Fatalf("with %d bytes: oobn %d, flags %#x, plain %d, %#x", size, gotn, gotFlags, wantn, wantFlags)
						}
						wantTail, gotTail := want[wantn:], got[gotn:]
						want, got = withoutTimes(t, want[:wantn]), withoutTimes(t, got[:gotn])
						if !bytes.Equal(got, want) || !bytes.Equal(gotTail, wantTail) {
							t.Fatalf("with %d bytes:\n      %x %x\nplain %x %x", size, got, gotTail, want, wantTail)
						}
					}
				})
			}
		})
	}
}

// putCmsg is put_cmsg of net/core/scm.c.
func putCmsg(oob []byte, level, typ int32, data []byte) (n int, truncated bool) {
	if len(oob) < cmsg.HeaderLen {
		return 0, true
	}
	whole := cmsg.Append(nil, int(level), int(typ), data)
	length := cmsg.Len(len(data))
	if len(oob) < length {
		length, truncated = len(oob), true
		if unsafe.Sizeof(uintptr(0)) == 8 {
			binary.NativeEndian.PutUint64(whole, uint64(length))
		} else {
			binary.NativeEndian.PutUint32(whole, uint32(length))
		}
	}
	// Padding is not written.
	copy(oob[:length], whole)
	return min(cmsg.Space(len(data)), len(oob)), truncated
}

// TestUDPMetadataMessage has the record as control message, behind the others
// and cut as the kernel cuts.
func TestUDPMetadataMessage(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	attachProducer(t, p, bpf.ProducerOptions{})
	keepStamping(t, p.Server)
	for _, k := range udpKinds(p)[:4] {
		for _, set := range []optionSet{
			{name: "alone"},
			{name: "packet", before: packetOptions(k)},
			{name: "times", after: timeOptions()["TIMESTAMP and TIMESTAMPING"]},
			{name: "all", before: append(packetOptions(k), timeOptions()["TIMESTAMPNS and _NEW"]...)},
		} {
			t.Run(k.name+" "+set.name, func(t *testing.T) {
				plain, meta := newTwins(t, p, k, set)
				plain.overflow(t)
				meta.overflow(t)
				c := meta.udpConn.(*sockmeta.UDPConn)
				must(t, c.SetMetadataMessage(true))
				for size := 0; size <= 600 && !t.Failed(); size++ {
					payload := fmt.Sprint("payload ", size)
					got, gotn, gotFlags := meta.exchange(t, payload, size)
					md, err := c.Metadata()
					must(t, err)

					app, appn, _ := plain.exchange(t, payload, 1024)
					want := bytes.Repeat([]byte{oobFill}, size)
					wantn, wantFlags := 0, 0
					put := func(m cmsg.Message) {
						n, truncated := putCmsg(want[wantn:], m.Level, m.Type, m.Data)
						wantn += n
						if truncated {
							wantFlags = msgCtrunc
						}
					}
					for m := range cmsg.All(app[:appn]) {
						put(m)
					}
					record, err := md.MarshalBinary()
					must(t, err)
					put(cmsg.Message{Level: cmsg.SOL_BPF, Type: cmsg.SCM_RECORD, Data: record})

					if gotn != wantn || gotFlags != wantFlags {
						t.Fatalf("with %d bytes: oobn %d, flags %#x, want %d, %#x", size, gotn, gotFlags, wantn, wantFlags)
					}
					if got, want := withoutTimes(t, got[:gotn]), withoutTimes(t, want[:wantn]); !bytes.Equal(got, want) {
						t.Fatalf("with %d bytes:\n     %x\nwant %x", size, got, want)
					}
					if !bytes.Equal(got[gotn:], want[wantn:]) {
						t.Fatalf("with %d bytes: wrote %x behind the end", size, got[gotn:])
					}
					if wantFlags == 0 {
						var found sockmeta.Metadata
						if ok, err := cmsg.FindMetadata(got[:gotn], &found); !ok || err != nil || found != md {
							t.Fatalf("with %d bytes: message has %v, %v, %v, want %v", size, found, ok, err, md)
						}
					}
				}
				must(t, c.SetMetadataMessage(false))
				got, gotn, _ := meta.exchange(t, "off", 1024)
				if _, ok := cmsg.Find(got[:gotn], cmsg.SOL_BPF, cmsg.SCM_RECORD); ok {
					t.Error("there is a message when it's off")
				}
			})
		}
	}
}

// TestUDPMessageOfNothing asks for the control message where the record was
// lost, or there is none.
func TestUDPMessageOfNothing(t *testing.T) {
	testutil.RequireRoot(t)
	handleTier(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	keepStamping(t, p.Server)
	a, err := bpf.Attach(bpf.Options{SlotsPerCPU: 1})
	must(t, err)
	defer a.Close()
	k := udpKinds(p)[0]
	_, meta := newTwins(t, p, k, optionSet{after: timeOptions()["TIMESTAMP and TIMESTAMPING"]})
	c := meta.udpConn.(*sockmeta.UDPConn)
	must(t, c.SetMetadataMessage(true))
	lost := int(a.Info().Slots) + 1
	for range lost + 1 {
		send(t, meta.client, "payload")
	}
	arrived(t, p, k)
	b, oob := make([]byte, 64), make([]byte, 1024)
	n, oobn, flags, _, err := c.ReadMsgUDPAddrPort(b, oob)
	must(t, err)
	if string(b[:n]) != "payload" || oobn != 0 || flags != 0 {
		t.Errorf("%q, control messages %x, flags %#x", b[:n], oob[:oobn], flags)
	}
	if _, err := c.Metadata(); !errors.Is(err, sockmeta.ErrOverrun) {
		t.Errorf("error is %v", err)
	}
}

// TestUDPAfterDetach goes on when the programs are gone: times are the
// kernel's own then.
func TestUDPAfterDetach(t *testing.T) {
	testutil.RequireRoot(t)
	p := testutil.Pair(t)
	cg := testutil.EnterCgroup(t)
	keepStamping(t, p.Server)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	defer a.Close()
	for _, k := range udpKinds(p)[:4] {
		t.Run(k.name, func(t *testing.T) {
			plain, meta := newTwins(t, p, k, optionSet{after: timeOptions()["TIMESTAMP and TIMESTAMPING"]})
			must(t, a.Close())
			want, wantn, _ := plain.exchange(t, "payload", 512)
			got, gotn, flags := meta.exchange(t, "payload", 512)
			if flags != 0 || !bytes.Equal(withoutTimes(t, got[:gotn]), withoutTimes(t, want[:wantn])) {
				t.Errorf("%x, flags %#x, plain %x", got[:gotn], flags, want[:wantn])
			}
			c := meta.udpConn.(*sockmeta.UDPConn)
			// Those who do not call it find out in a while.
			for end := time.Now().Add(udpPatience); ; {
				send(t, meta.client, "again")
				_, _, err := c.ReadMetadata(make([]byte, 64), new(sockmeta.Metadata))
				if !errors.Is(err, sockmeta.ErrNoMetadata) {
					t.Fatalf("ReadMetadata: %v", err)
				}
				if errors.Is(err, sockmeta.ErrNotSupported) {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("ReadMetadata says %v, and not that the programs have gone", err)
				}
			}
			if _, err := c.Metadata(); !errors.Is(err, sockmeta.ErrNoMetadata) || !errors.Is(err, sockmeta.ErrNotSupported) {
				t.Errorf("error is %v", err)
			}
			if s := c.Support(); s.Tier != sockmeta.TierNone || !errors.Is(s.Err(), sockmeta.ErrNotSupported) {
				t.Errorf("support is %v", s)
			}
			a, err = bpf.Attach(bpf.Options{Cgroup: cg.Path()})
			must(t, err)
		})
	}
}
