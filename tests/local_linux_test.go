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
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// localLab is two hosts whose sockets are in one cgroup, with metadata that
// crosses between them and over the server's loopback.
type localLab struct {
	*netlab.Pair
	cgroup     *netlab.Cgroup
	attachment *bpf.Attachment
}

// localKey may cross, and those above it not.
const localKey = sockmeta.KeyUser

func newLocalLab(t *testing.T) *localLab {
	t.Helper()
	return newLocalLabOf(t, 0)
}

// newLocalLabOf makes one whose CPUs have so many slots for what is received.
func newLocalLabOf(t *testing.T, slots int) *localLab {
	t.Helper()
	lab := &localLab{Pair: testutil.Pair(t)}
	lab.cgroup = testutil.EnterCgroup(t)
	var err error
	lab.attachment, err = bpf.Attach(bpf.Options{Cgroup: lab.cgroup.Path(), SlotsPerCPU: slots, Policy: &bpf.Policy{
		MaxPriority: 6, LaunchTimes: true,
		LocalKeys: []uint8{uint8(localKey), uint8(sockmeta.KeyServiceID), uint8(sockmeta.KeyTraceID)},
	}})
	must(t, err)
	t.Cleanup(func() { _ = lab.attachment.Close() })
	for _, end := range []struct {
		ns    *netlab.Namespace
		iface string
	}{{lab.Client, lab.ClientIf}, {lab.Server, lab.ServerIf}, {lab.Server, "lo"}} {
		err := end.ns.Do(func() error {
			_, err := lab.attachment.AttachLocal(end.iface)
			return err
		})
		skipWithoutLocal(t, err)
		must(t, err)
	}
	return lab
}

// skipWithoutLocal skips the test where the kernel is too old, and not where it
// refuses the program for another reason.
func skipWithoutLocal(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, sockmeta.ErrNotSupported) && strings.Contains(err.Error(), "needs Linux 6.11") {
		t.Skip(err)
	}
}

func (lab *localLab) counts(t *testing.T) bpf.Counts {
	t.Helper()
	c, err := lab.attachment.Counts()
	must(t, err)
	return c
}

// receive reads a datagram, and what its sender gave it.
func receive(t *testing.T, c *sockmeta.UDPConn, want string) (md, sender sockmeta.Metadata, ok bool) {
	t.Helper()
	b := make([]byte, 1<<16)
	n, _, err := c.ReadMetadata(b, &md)
	must(t, err)
	if string(b[:n]) != want {
		t.Fatalf("received %.40q, want %.40q", b[:n], want)
	}
	ok = md.Sender(&sender)
	return md, sender, ok
}

// TestLocalUDP has what one socket gives arrive at the other, over a veth pair and
// loopback, if the policy lets it.
func TestLocalUDP(t *testing.T) {
	testutil.Leaks(t)
	lab := newLocalLab(t)
	for _, tt := range []struct {
		name, network string
		from          *netlab.Namespace
		to            netip.Addr
	}{
		{"veth IPv4", "udp4", lab.Client, lab.ServerAddr4},
		{"veth IPv6", "udp6", lab.Client, lab.ServerAddr6},
		{"veth dual", "udp", lab.Client, lab.ServerAddr4},
		{"loopback IPv4", "udp4", lab.Server, netip.MustParseAddr("127.0.0.1")},
		{"loopback IPv6", "udp6", lab.Server, netip.IPv6Loopback()},
		{"own address", "udp6", lab.Server, lab.ServerAddr6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := listenUDP(t, lab.Server, tt.network, &net.UDPAddr{Port: 9000})
			client := listenUDP(t, tt.from, tt.network, &net.UDPAddr{})
			to := netip.AddrPortFrom(tt.to, 9000)
			before := lab.counts(t)
			var md sockmeta.Metadata
			must(t, md.SetUint64(localKey, 42))
			must(t, md.SetUint32(localKey+1, 43))
			must(t, md.SetUint32(sockmeta.KeyServiceID, 44))
			must1(t)(client.WriteMetadata([]byte("with"), &md, to))
			got, sender, ok := receive(t, server, "with")
			if !ok || got.Flags().Has(cmsg.FlagSenderLost) {
				t.Fatalf("no sender in %v", got)
			}
			var keys []sockmeta.Key
			for k := range sender.All() {
				keys = append(keys, k)
			}
			if want := []sockmeta.Key{sockmeta.KeyServiceID, localKey}; !slices.Equal(keys, want) {
				t.Errorf("keys %v, want %v", keys, want)
			}
			if v, _ := sender.Uint64(localKey); v != 42 {
				t.Errorf("value %d", v)
			}
			// The sender is not who says which service it is.
			if v, ok := got.Uint32(sockmeta.KeyServiceID); ok {
				t.Errorf("service id %d", v)
			}
			after := lab.counts(t)
			if after.Local != before.Local+1 || after.LocalKeys != before.LocalKeys+1 {
				t.Errorf("%+v, before %+v", after, before)
			}

			must1(t)(client.WriteToUDPAddrPort([]byte("without"), to))
			if got, _, ok := receive(t, server, "without"); ok || got.Flags() != 0 {
				t.Errorf("without metadata: %v", got)
			}
			// Only keys that may not cross, and no keys at all.
			var other, raw sockmeta.Metadata
			must(t, other.SetUint32(localKey+1, 1))
			must(t, raw.SetRaw(make([]byte, 8), cmsg.FormatRaw))
			for _, md := range []*sockmeta.Metadata{&other, &raw} {
				must1(t)(client.WriteMetadata([]byte("nothing"), md, to))
				if got, _, ok := receive(t, server, "nothing"); ok || got.Flags() != 0 {
					t.Errorf("nothing to cross: %v", got)
				}
			}
		})
	}
}

// TestLocalProducer has both: what the packet's way said and what its sender said.
func TestLocalProducer(t *testing.T) {
	lab := newLocalLab(t)
	must(t, lab.Server.Do(func() error {
		p, err := bpf.AttachProducer(lab.ServerIf, bpf.ProducerOptions{Services: map[uint16]uint32{9000: 7}})
		if err == nil {
			t.Cleanup(func() { _ = p.Close() })
		}
		return err
	}))
	server := listenUDP(t, lab.Server, "udp", &net.UDPAddr{Port: 9000})
	client := listenUDP(t, lab.Client, "udp4", &net.UDPAddr{})
	for size := 0; size <= cmsg.ValueMax; size++ {
		var md sockmeta.Metadata
		value := bytes.Repeat([]byte{byte(size)}, size)
		must(t, md.SetBytes(localKey, value))
		must1(t)(client.WriteMetadata([]byte("both"), &md, netip.AddrPortFrom(lab.ServerAddr4, 9000)))
		got, sender, ok := receive(t, server, "both")
		if v, _ := got.Uint32(sockmeta.KeyServiceID); v != 7 || got.Err() != nil {
			t.Fatalf("%d bytes: %v, %v", size, got, got.Err())
		}
		if _, known := got.Uint64(sockmeta.KeyPacketID); !known {
			t.Fatalf("%d bytes: %v", size, got)
		}
		// 124 bytes of the sender's, a TLV of its own in front of the value
		if fits := (size+2+3)/4*4 <= 124; ok != fits || got.Flags().Has(cmsg.FlagSenderLost) == (fits || (size+2+3)/4*4 > 244) {
			t.Fatalf("%d bytes: %v, %v", size, ok, got)
		}
		if v, _ := sender.Bytes(localKey); ok && !bytes.Equal(v, value) {
			t.Fatalf("%d bytes: % x", size, v)
		}
	}
}

// TestLocalTCP has the metadata of connections arrive with their segments.
func TestLocalTCP(t *testing.T) {
	testutil.Leaks(t)
	lab := newLocalLab(t)
	for name, addr := range map[string]netip.Addr{
		"veth IPv4": lab.ServerAddr4, "veth IPv6": lab.ServerAddr6, "loopback": netip.MustParseAddr("127.0.0.1"),
	} {
		t.Run(name, func(t *testing.T) {
			from := lab.Client
			if addr.IsLoopback() {
				from = lab.Server
			}
			var l *sockmeta.TCPListener
			must(t, lab.Server.Do(func() (err error) {
				l, err = sockmeta.ListenTCP("tcp", &net.TCPAddr{})
				return err
			}))
			defer l.Close()
			var md sockmeta.Metadata
			must(t, md.SetUint64(localKey, 1))
			var client *sockmeta.TCPConn
			must(t, from.Do(func() error {
				d := sockmeta.Dialer{Metadata: &md, Require: true}
				c, err := d.Dial("tcp", netip.AddrPortFrom(addr, uint16(l.Addr().(*net.TCPAddr).Port)).String())
				if err == nil {
					client = c.(*sockmeta.TCPConn)
				}
				return err
			}))
			defer client.Close()
			server, err := l.AcceptTCP()
			must(t, err)
			defer server.Close()
			must(t, errors.Join(client.SetDeadline(time.Now().Add(time.Minute)), server.SetDeadline(time.Now().Add(time.Minute))))
			wants := func(what string, md sockmeta.Metadata, err error, want uint64) {
				t.Helper()
				var s sockmeta.Metadata
				if err != nil || !md.Sender(&s) {
					t.Fatalf("%s: %v, %v", what, md, err)
				}
				if v, _ := s.Uint64(localKey); v != want {
					t.Errorf("%s: %d, want %d", what, v, want)
				}
			}
			opening, err := server.OpeningMetadata()
			wants("opening", opening, err, 1)
			for i := uint64(2); i < 10; i++ {
				must(t, md.SetUint64(localKey, i))
				must(t, client.SetMetadata(&md))
				must1(t)(client.Write([]byte("hello")))
				read(t, server, "hello")
				got, err := server.Metadata()
				wants("read", got, err, i)

				// And back.
				must(t, md.SetUint64(localKey, 100+i))
				must(t, server.SetMetadata(&md))
				must1(t)(server.Write([]byte("back")))
				read(t, client, "back")
				got, err = client.Metadata()
				wants("back", got, err, 100+i)
			}
			must(t, client.SetMetadata(nil))
			must1(t)(client.Write([]byte("without")))
			read(t, server, "without")
			if got, err := server.Metadata(); err != nil || got.Flags().Has(cmsg.FlagSenderLost) {
				t.Errorf("without: %v, %v", got, err)
			} else if _, ok := got.Bytes(sockmeta.KeySender); ok {
				t.Errorf("without: %v", got)
			}
		})
	}
}

// TestLocalIntegrity has no datagram arrive with what another's sender gave.
func TestLocalIntegrity(t *testing.T) {
	testutil.Leaks(t)
	lab := newLocalLab(t)
	const senders = 8
	count := min(100_000, integrityDatagrams(t)) / senders
	server := listenUDP(t, lab.Server, "udp", &net.UDPAddr{Port: 9000})
	must(t, server.SetReadBuffer(4<<20))
	var wg sync.WaitGroup
	for i := range senders {
		ns, to := lab.Client, lab.ServerAddr4
		switch i % 4 {
		case 1:
			to = lab.ServerAddr6
		case 2:
			ns, to = lab.Server, netip.MustParseAddr("127.0.0.1")
		case 3:
			ns, to = lab.Server, netip.IPv6Loopback()
		}
		client := listenUDP(t, ns, "udp", &net.UDPAddr{})
		wg.Go(func() {
			var md sockmeta.Metadata
			var b [8]byte
			for n := range count {
				id := uint64(i)<<32 | uint64(n)
				with := &md
				if n%4 == 0 {
					with, id = nil, id|noMetadata
				} else if err := md.SetUint64(localKey, id); err != nil {
					t.Error(err)
					return
				}
				binary.NativeEndian.PutUint64(b[:], id)
				if _, err := client.WriteMetadata(b[:], with, netip.AddrPortFrom(to, 9000)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	var received, matched, lost, overrun int
	go func() {
		defer close(done)
		var md, s sockmeta.Metadata
		b := make([]byte, 64)
		for {
			n, _, err := server.ReadMetadata(b, &md)
			if err != nil && !sockmeta.IsMetadataError(err) {
				return
			}
			received++
			if err != nil {
				overrun++
				continue
			}
			want := binary.NativeEndian.Uint64(b[:n])
			ok := md.Sender(&s)
			got, _ := s.Uint64(localKey)
			switch {
			case want&noMetadata != 0:
				if ok || md.Flags().Has(cmsg.FlagSenderLost) {
					t.Errorf("%#x was sent without, and has %v", want, md)
					return
				}
			case ok && got == want:
				matched++
			case ok:
				t.Errorf("%#x has %#x", want, got)
				return
			case md.Flags().Has(cmsg.FlagSenderLost):
				lost++
			default:
				t.Errorf("%#x has nothing of what the sender gave, and does not say so: %v", want, md)
				return
			}
		}
	}()
	wg.Wait()
	time.Sleep(100 * time.Millisecond)
	must(t, server.Close())
	<-done
	t.Logf("%d received, %d with what the sender gave, %d without what it gave, %d overrun; %+v", received, matched, lost, overrun, lab.counts(t))
	// What newer packets took the place of is an overrun only in the handle tier.
	if matched == 0 || lost > received/100 && !native() {
		t.Errorf("%d of %d matched, %d lost", matched, received, lost)
	}
}

// TestLocalStrangers has sockets that did not opt in notice nothing, and numbers
// that somebody made up lead to nothing.
func TestLocalStrangers(t *testing.T) {
	lab := newLocalLab(t)
	client := listenUDP(t, lab.Client, "udp4", &net.UDPAddr{})
	var md sockmeta.Metadata
	must(t, md.SetUint64(localKey, 1))

	// A plain server sees the time at which the datagram came, or none, but no
	// number of ours.
	var plain *net.UDPConn
	must(t, lab.Server.Do(func() (err error) {
		plain, err = net.ListenUDP("udp4", &net.UDPAddr{Port: 9001})
		return err
	}))
	defer plain.Close()
	must(t, plain.SetReadDeadline(time.Now().Add(udpPatience)))
	must(t, onSocket(plain, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}))
	start := time.Now().Add(-time.Minute)
	for range 3 {
		must1(t)(client.WriteMetadata([]byte("plain"), &md, netip.AddrPortFrom(lab.ServerAddr4, 9001)))
		oob := make([]byte, 64)
		_, n, _, _, err := plain.ReadMsgUDP(make([]byte, 64), oob)
		must(t, err)
		data, ok := cmsg.Find(oob[:n], unix.SOL_SOCKET, unix.SO_TIMESTAMPNS)
		if !ok {
			t.Fatal("no time")
		}
		at := time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:])))
		if at.Before(start) || at.After(time.Now().Add(time.Minute)) {
			t.Errorf("time %v", at)
		}
	}

	// A plain sender makes up numbers, among them all that are in use.
	server := listenUDP(t, lab.Server, "udp4", &net.UDPAddr{Port: 9000})
	to := netip.AddrPortFrom(lab.ServerAddr4, 9000)
	must1(t)(client.WriteMetadata([]byte("own"), &md, to))
	if _, _, ok := receive(t, server, "own"); !ok {
		t.Fatal("no metadata")
	}
	var forger *net.UDPConn
	must(t, lab.Client.Do(func() (err error) {
		forger, err = net.ListenUDP("udp4", nil)
		return err
	}))
	defer forger.Close()
	must(t, onSocket(forger, sendByTime))
	for number := range uint64(64) {
		oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, number))
		_, _, err := forger.WriteMsgUDPAddrPort([]byte("forged"), oob, to)
		must(t, err)
		if got, _, ok := receive(t, server, "forged"); ok || got.Flags() != 0 {
			t.Errorf("number %d: %v", number, got)
		}
	}
}

// TestLocalFragments arrive whole, and without.
func TestLocalFragments(t *testing.T) {
	lab := newLocalLab(t)
	server := listenUDP(t, lab.Server, "udp", &net.UDPAddr{Port: 9000})
	client := listenUDP(t, lab.Client, "udp", &net.UDPAddr{})
	var md sockmeta.Metadata
	must(t, md.SetUint64(localKey, 1))
	for _, to := range []netip.Addr{lab.ServerAddr4, lab.ServerAddr6} {
		payload := strings.Repeat("fragments ", 1000)
		must1(t)(client.WriteMetadata([]byte(payload), &md, netip.AddrPortFrom(to, 9000)))
		if got, _, ok := receive(t, server, payload); ok {
			t.Errorf("%v", got)
		}
	}
}

// TestLocalElsewhere asks for a device whose packets come from other hosts.
func TestLocalElsewhere(t *testing.T) {
	p := testutil.Pair(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: testutil.EnterCgroup(t).Path(), Policy: &bpf.Policy{MaxPriority: 6, LaunchTimes: true, LocalKeys: []uint8{uint8(localKey)}}})
	must(t, err)
	defer a.Close()
	must(t, netlab.AddVXLAN(p.Server, "vx0", 7, p.ServerAddr4, p.ClientAddr4, 4789, p.ServerIf))
	for dev, there := range map[string]bool{"lo": true, p.ServerIf: true, "vx0": false} {
		var l *bpf.Local
		err := p.Server.Do(func() (err error) {
			l, err = a.AttachLocal(dev)
			return err
		})
		skipWithoutLocal(t, err)
		if (err == nil) != there {
			t.Errorf("%s: %v", dev, err)
		}
		if err == nil {
			must(t, l.Close())
		}
	}
}

// TestLocalClose ends it, by itself and with the attachment.
func TestLocalClose(t *testing.T) {
	testutil.Leaks(t)
	p := testutil.Pair(t)
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path(), Policy: &bpf.Policy{MaxPriority: 6, LaunchTimes: true, LocalKeys: []uint8{uint8(localKey)}}})
	must(t, err)
	attach := func() (l *bpf.Local, err error) {
		err = p.Server.Do(func() error {
			l, err = a.AttachLocal("lo")
			return err
		})
		return l, err
	}
	l, err := attach()
	skipWithoutLocal(t, err)
	must(t, err)
	c := listenUDP(t, p.Server, "udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9000})
	crosses := func() (ok bool) {
		t.Helper()
		var md sockmeta.Metadata
		must(t, md.SetUint64(localKey, 1))
		must1(t)(c.WriteMetadata([]byte("self"), &md, netip.MustParseAddrPort("127.0.0.1:9000")))
		_, _, ok = receive(t, c, "self")
		return ok
	}
	if !crosses() {
		t.Error("does not cross")
	}
	must(t, l.Close())
	must(t, l.Close())
	if crosses() {
		t.Error("crosses after Close")
	}
	_, err = attach()
	must(t, err)
	if !crosses() {
		t.Error("does not cross again")
	}
	must(t, p.Server.Do(func() error {
		if _, err := a.AttachLocal("nowhere"); err == nil {
			return fmt.Errorf("attached to an interface that is not there")
		}
		return nil
	}))
	must(t, a.Close())
	if _, err := attach(); err == nil {
		t.Error("attached to a closed attachment")
	}
}

// TestLocalSegments has what was given to a train of segments on each of them, or
// on the aggregate where the receiver takes it as one.
func TestLocalSegments(t *testing.T) {
	lab := newLocalLab(t)
	server := listenUDP(t, lab.Server, "udp4", &net.UDPAddr{Port: 9000})
	client := listenUDP(t, lab.Client, "udp4", &net.UDPAddr{})
	to := netip.AddrPortFrom(lab.ServerAddr4, 9000)
	var md sockmeta.Metadata
	must(t, md.SetUint64(localKey, 5))
	const segment, segments = 100, 7
	payload := strings.Repeat("0123456789", segment*segments/10)
	oob := md.AppendCmsg(cmsg.Append(nil, unix.SOL_UDP, unix.UDP_SEGMENT, binary.NativeEndian.AppendUint16(nil, segment)))
	send := func() {
		t.Helper()
		_, _, err := client.WriteMsgUDPAddrPort([]byte(payload), oob, to)
		must(t, err)
	}
	wants := func(payload string) {
		t.Helper()
		got, sender, ok := receive(t, server, payload)
		if v, _ := sender.Uint64(localKey); !ok || v != 5 {
			t.Errorf("%v", got)
		}
	}
	send()
	for i := range segments {
		wants(payload[i*segment : (i+1)*segment])
	}
	must(t, onSocket(server, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) }))
	send()
	wants(payload)
	if got := lab.counts(t); got.Local != 2 {
		t.Errorf("%+v", got)
	}
}
