// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// TestNativeLocal has what a sender on this host gives arrive in records.
func TestNativeLocal(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	local := newLocalLab(t)
	if err := local.attachment.Native(); err != nil {
		t.Skip(err)
	}
	lab := &nativeLab{Pair: local.Pair, t: t, a: local.attachment}
	fd := lab.openPort(9000)
	must(t, bpf.EnableSocketCmsg(fd, 0))
	for name, to := range map[string]netip.Addr{
		"loopback IPv4": netip.MustParseAddr("127.0.0.1"), "loopback IPv6": netip.IPv6Loopback(), "own address": local.ServerAddr4,
	} {
		client := listenUDP(t, local.Server, "udp", &net.UDPAddr{})
		for n := range uint64(5) {
			var md, got, sender sockmeta.Metadata
			must(t, md.SetUint64(localKey, n))
			must1(t)(client.WriteMetadata([]byte("with"), &md, netip.AddrPortFrom(to, 9000)))
			r, err := receiveFrom(fd, true, 0)
			must(t, err)
			ok, err := cmsg.FindMetadata(r.oob, &got)
			must(t, err)
			if v, has := uint64(0), got.Sender(&sender); !ok || !has {
				t.Errorf("%s: record %v, sender's %v: %v", name, ok, has, got.Flags())
			} else if v, _ = sender.Uint64(localKey); v != n {
				t.Errorf("%s: the sender gave %d, want %d", name, v, n)
			}
			must1(t)(client.WriteToUDPAddrPort([]byte("without"), netip.AddrPortFrom(to, 9000)))
			r, err = receiveFrom(fd, true, 0)
			must(t, err)
			ok, err = cmsg.FindMetadata(r.oob, &got)
			must(t, err)
			if !ok || got.Sender(&sender) || got.Flags() != 0 {
				t.Errorf("%s: record %v, flags %v, without anything of the sender's", name, ok, got.Flags())
			}
		}
	}
}

// TestNativeLapped has datagrams wait while newer ones take the slots with what they do
// not tell by themselves: the area is gone, and nothing else.
func TestNativeLapped(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	p := testutil.Pair(t)
	const slots, datagrams = 64, 200
	a := attachNative(t, bpf.Options{SlotsPerCPU: slots})
	area := []byte{16, 2, 1, 2}
	attachArea(t, p.Server, p.ServerIf, area)
	lab := &nativeLab{Pair: p, t: t, a: a}
	k := udpKinds(p)[0]
	fd, client := lab.open(k), k.dial(t, p)
	for range datagrams {
		send(t, client, "payload")
	}
	arrived(t, p, k)
	whole := 0
	for i := range datagrams {
		r, err := receiveFrom(fd, true, 0)
		must(t, err)
		var md cmsg.Metadata
		ok, err := cmsg.FindMetadata(r.oob, &md)
		must(t, err)
		if _, has := md.IfIndex(); !ok || !has {
			t.Fatalf("datagram %d: record %v", i, ok)
		}
		switch md.Flags() {
		case cmsg.FlagUnanchored:
			whole++
			if !bytes.Equal(md.Raw(), area) {
				t.Errorf("area is %x", md.Raw())
			}
		case cmsg.FlagUnreadable:
			if md.Raw() != nil {
				t.Errorf("area is %x", md.Raw())
			}
			if at, has := md.Timestamp(); has {
				t.Errorf("its slot's handle is taken for a time: %v", at)
			}
		default:
			t.Errorf("datagram %d: flags %v", i, md.Flags())
		}
	}
	// As many CPUs may have received them.
	if whole < slots/2 || whole > 2*slots {
		t.Errorf("%d of %d areas are left, of %d slots", whole, datagrams, slots)
	}
}

// TestNativeLocalLapped does the same with what a sender on this host gave: it is gone, and
// nothing else.
func TestNativeLocalLapped(t *testing.T) {
	testutil.RequireRoot(t)
	testutil.Leaks(t)
	const slots, datagrams = 64, 200
	local := newLocalLabOf(t, slots)
	if err := local.attachment.Native(); err != nil {
		t.Skip(err)
	}
	lab := &nativeLab{Pair: local.Pair, t: t, a: local.attachment}
	fd := lab.openPort(9000)
	must(t, bpf.EnableSocketCmsg(fd, 0))
	client := listenUDP(t, local.Server, "udp", &net.UDPAddr{})
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), 9000)
	for n := range uint64(datagrams) {
		var md sockmeta.Metadata
		must(t, md.SetUint64(localKey, n))
		must1(t)(client.WriteMetadata([]byte("with"), &md, to))
	}
	whole := 0
	for n := range uint64(datagrams) {
		r, err := receiveFrom(fd, true, 0)
		must(t, err)
		var md, sender cmsg.Metadata
		ok, err := cmsg.FindMetadata(r.oob, &md)
		must(t, err)
		if _, has := md.IfIndex(); !ok || !has {
			t.Fatalf("datagram %d: record %v", n, ok)
		}
		has := md.Sender(&sender)
		switch md.Flags() {
		case 0:
			whole++
			if v, ok := sender.Uint64(localKey); !has || !ok || v != n {
				t.Errorf("datagram %d: the sender gave %d, %v", n, v, has)
			}
		case cmsg.FlagSenderLost:
			if has {
				t.Errorf("datagram %d: %v of the sender, which is lost", n, &sender)
			}
			if at, has := md.Timestamp(); has {
				t.Errorf("datagram %d: its slot's handle is taken for a time: %v", n, at)
			}
		default:
			t.Errorf("datagram %d: flags %v", n, md.Flags())
		}
	}
	// As many CPUs may have received them.
	if whole < slots/2 || whole > 2*slots {
		t.Errorf("%d of %d are whole, of %d slots", whole, datagrams, slots)
	}
}
