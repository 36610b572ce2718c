// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() {
	children["isolationLocalNumbers"] = isolationLocalNumbers
}

// A forger sends datagrams with times of his choice to a receiver in the same
// namespace. The kernel clears such times on the way through devices; not in the
// copy of a multicast that goes back to the host (dev_loopback_xmit). By
// CLOCK_REALTIME it takes the root of a network namespace, which that of a
// container is; before Linux 6.11 CLOCK_MONOTONIC does, too.
type forger struct {
	fd int
	to unix.SockaddrInet4
}

var forgedGroup = netip.MustParseAddr("239.1.2.3")

// newForger makes both sockets on the pair's client.
func newForger(p *netlab.Pair) (_ *forger, _ *sockmeta.UDPConn, err error) {
	f := &forger{to: unix.SockaddrInet4{Port: 5353, Addr: forgedGroup.As4()}}
	var c *sockmeta.UDPConn
	err = p.Client.Do(func() error {
		ifi, err := net.InterfaceByName(p.ClientIf)
		if err != nil {
			return err
		}
		c, err = sockmeta.ListenMulticastUDP("udp4", ifi, udpAddr(forgedGroup, f.to.Port))
		if err != nil {
			return err
		}
		if f.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		mreq := &unix.IPMreqn{Ifindex: int32(ifi.Index)}
		if err := unix.SetsockoptIPMreqn(f.fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, mreq); err != nil {
			return err
		}
		return setTxTime(f.fd, txTime{clock: unix.CLOCK_REALTIME})
	})
	if err != nil {
		return nil, nil, err
	}
	return f, c, c.SetReadDeadline(time.Now().Add(udpPatience))
}

func (f *forger) Close() error { return unix.Close(f.fd) }

func (f *forger) send(payload string, time uint64) error {
	oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, time))
	return unix.Sendmsg(f.fd, []byte(payload), oob, &f.to, 0)
}

// TestForgedHandle has a datagram come with the handle of another socket's record.
// It has a record of its own all the same, also where the reader could see both.
func TestForgedHandle(t *testing.T) {
	testutil.Leaks(t)
	lab := newIsolationLab(t, isolationSlots)
	handle := lab.fill(t, lab.victim, victimMagic, 1)[0]
	elsewhere := testutil.Pair(t)
	f, c, err := newForger(elsewhere)
	must(t, err)
	defer f.Close()
	defer c.Close()
	must(t, checkSupport(c, true))
	index, err := netlab.Index(elsewhere.Client, elsewhere.ClientIf)
	must(t, err)
	for _, forged := range []uint64{
		handle,
		handle + 1<<24, // of the next one that comes there
		abi.HandleBit,
		abi.HandleBit | 1<<24 - 1,
		1<<62 - 1,
		1<<63 | handle,
	} {
		must(t, f.send("forged", forged))
		var md sockmeta.Metadata
		if _, _, err := c.ReadMetadata(make([]byte, 10), &md); err != nil {
			t.Errorf("%#x: %v", forged, err)
			continue
		}
		if got, _ := md.IfIndex(); got != index || len(md.Raw()) != 0 {
			t.Errorf("%#x: %v, want one of interface %d", forged, &md, index)
		}
		// Newer kernels make such times present ones (SCM_TXTIME in net/core/sock.c).
		if ts, ok := md.Timestamp(); ok && forged&(3<<61) == 1<<62 && uint64(ts.UnixNano()) == forged {
			t.Errorf("%#x is taken for the time %v", forged, ts)
		}
	}
}

// TestForgedLocalNumbers has a container look for what senders gave receivers on
// this host, by datagrams to itself with all numbers that theirs may have had.
func TestForgedLocalNumbers(t *testing.T) {
	testutil.Leaks(t)
	lab := newLocalLab(t)
	testutil.RequireContainers(t)
	server := listenUDP(t, lab.Server, "udp4", udpAddr(lab.ServerAddr4, 9000))
	client := listenUDP(t, lab.Client, "udp4", udpAddr(lab.ClientAddr4, 0))
	var md sockmeta.Metadata
	must(t, md.SetUint64(localKey, victimMagic))
	for range 8 {
		must1(t)(client.WriteMetadata([]byte("with"), &md, netip.AddrPortFrom(lab.ServerAddr4, 9000)))
		if _, _, ok := receive(t, server, "with"); !ok {
			t.Fatal("metadata did not cross")
		}
		// This one never comes to a socket.
		must1(t)(client.WriteMetadata([]byte("nowhere"), &md, netip.AddrPortFrom(lab.ServerAddr4, 9001)))
	}
	out, err := testutil.RunChild(t, "isolationLocalNumbers", testutil.ChildOptions{Container: true, NoNewPrivs: true})
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func isolationLocalNumbers() error {
	p, err := netlab.NewPair()
	if err != nil {
		return err
	}
	defer p.Close()
	f, c, err := newForger(p)
	if err != nil {
		return err
	}
	defer f.Close()
	defer c.Close()
	if err := c.Support().Err(); err != nil {
		return err
	}
	for number := range uint64(64) {
		if err := f.send("forged", 3<<61|number); err != nil {
			return err
		}
		var md, sender sockmeta.Metadata
		if _, _, err := c.ReadMetadata(make([]byte, 10), &md); err != nil {
			return err
		}
		if md.Sender(&sender) {
			return fmt.Errorf("number %d: %v", number, sender)
		}
	}
	return nil
}

// TestForgedElsewhere has a datagram with another's number cross an interface of
// the same name and addresses in another namespace.
func TestForgedElsewhere(t *testing.T) {
	testutil.Leaks(t)
	lab := newLocalLab(t)
	must(t, lab.Client.Do(func() error {
		_, err := lab.attachment.AttachLocal("lo")
		return err
	}))
	local := netip.MustParseAddr("127.0.0.1")
	to := netip.AddrPortFrom(local, 9000)
	theirs := listenUDP(t, lab.Server, "udp4", udpAddr(local, 9000))
	own := listenUDP(t, lab.Client, "udp4", udpAddr(local, 9000))
	sender := listenUDP(t, lab.Server, "udp4", udpAddr(local, 9001))
	var forger *net.UDPConn
	must(t, lab.Client.Do(func() (err error) {
		forger, err = net.ListenUDP("udp4", udpAddr(local, 9001))
		return err
	}))
	defer forger.Close()
	must(t, onSocket(forger, sendByTime))
	for number := range uint64(16) {
		var md sockmeta.Metadata
		must(t, md.SetUint64(localKey, victimMagic))
		must1(t)(sender.WriteMetadata([]byte("with"), &md, to))
		if _, _, ok := receive(t, theirs, "with"); !ok {
			t.Fatal("metadata did not cross")
		}
		oob := cmsg.Append(nil, unix.SOL_SOCKET, unix.SCM_TXTIME, binary.NativeEndian.AppendUint64(nil, number))
		if _, _, err := forger.WriteMsgUDPAddrPort([]byte("forged"), oob, to); err != nil {
			t.Fatal(err)
		}
		if got, _, ok := receive(t, own, "forged"); ok {
			t.Errorf("number %d: %v", number, &got)
		}
	}
}
