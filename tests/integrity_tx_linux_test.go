// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func init() { children["integritySenders"] = integritySenders }

const (
	txProcesses  = 4
	txGoroutines = 16
	txGroupPort  = 9000
	txSinkPort   = 9100

	txProcessEnv = "SOCKMETA_TEST_PROCESS"
	txCountEnv   = "SOCKMETA_TEST_COUNT"
)

// txSent is what a process has sent.
type txSent struct{ With, Without int }

// TestIntegritySend is the proof that no packet leaves with another's record: 4
// processes without privileges, of 16 goroutines each, send on sockets that they
// share (one that was passed to all of them, and a SO_REUSEPORT group) and on one
// of their own, each datagram with its id in the payload and in the metadata, or
// without metadata. Programs at TC egress and at the cgroup compare the two for
// every packet.
func TestIntegritySend(t *testing.T) {
	testutil.Leaks(t)
	count := integrityDatagrams(t)
	p := testutil.Pair(t)
	cg := testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{Cgroup: cg.Path()})
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	w := watchWire(t, a, p.Client, p.ClientIf, false, nil)
	sink(t, p)

	var passed *os.File
	must(t, p.Client.Do(func() error {
		c, err := net.ListenUDP("udp", &net.UDPAddr{})
		if err != nil {
			return err
		}
		defer c.Close()
		passed, err = c.File()
		return err
	}))
	defer passed.Close()

	var mu sync.Mutex
	var sent txSent
	t.Run("processes", func(t *testing.T) {
		for i := range txProcesses {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				ours, theirs := socketPair(t)
				must(t, unix.Sendmsg(int(ours.Fd()), []byte{0}, unix.UnixRights(int(passed.Fd())), nil, 0))
				out, err := testutil.RunChild(t, "integritySenders", testutil.ChildOptions{
					UID: 65534, GID: 65534, NoNewPrivs: true,
					Cgroup: cg.Path(), Netns: p.Client,
					Files: []*os.File{theirs},
					Env: []string{
						fmt.Sprintf("%s=%d", txProcessEnv, i),
						fmt.Sprintf("%s=%d", txCountEnv, count/txProcesses),
					},
				})
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				var s txSent
				if err := json.Unmarshal(out, &s); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				mu.Lock()
				defer mu.Unlock()
				sent.With += s.With
				sent.Without += s.Without
			})
		}
	})

	onTC, onCgroup := w.counts(t)
	got, err := a.Counts()
	must(t, err)
	t.Logf("sent %+v\nTC     %+v\ncgroup %+v\ncounts %+v", sent, onTC, onCgroup, got)
	if sent.With+sent.Without < count-txProcesses*txGoroutines || sent.With == 0 || sent.Without == 0 {
		t.Errorf("sent only %+v of %d", sent, count)
	}
	for where, c := range map[string]testprog.WireWireCounts{"TC": onTC, "cgroup": onCgroup} {
		if c.Mismatched != 0 || c.Unexpected != 0 {
			t.Errorf("%s: %d packets with another's record, %d with one that was not sent; the last %#x with %#x",
				where, c.Mismatched, c.Unexpected, c.BadId, c.BadRecord)
		}
		if c.Absent != uint64(sent.Without) || c.Matched+c.Lost != uint64(sent.With) {
			t.Errorf("%s: %d packets had no record and %d had theirs, %d sent", where, c.Absent, c.Matched, sent)
		}
		if c.Tstamp != 0 {
			t.Errorf("%s: %d packets with a time that nobody asked for", where, c.Tstamp)
		}
	}
	if got.Sent != uint64(sent.With) {
		t.Errorf("%d records left of %d", got.Sent, sent.With)
	}
	// More tasks may send on the socket that all share than it has places for.
	if onTC.Lost > uint64(sent.With)/10_000 || onCgroup.Lost > onTC.Lost {
		t.Errorf("%d records did not reach the cgroup's program, %d TC's", onCgroup.Lost, onTC.Lost)
	}
	if n := got.Stale + got.Foreign + got.Malformed + got.Busy; n != 0 {
		t.Errorf("counts are %+v", got)
	}
}

// sink takes what the client sends, and drops most of it.
func sink(t *testing.T, p *netlab.Pair) {
	t.Helper()
	must(t, p.Server.Do(func() error {
		c, err := net.ListenUDP("udp", &net.UDPAddr{Port: txSinkPort})
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
			err = c.SetReadBuffer(1)
		}
		return err
	}))
	// A datagram that waits for a neighbour's address may be dropped where nobody
	// sees it.
	must(t, p.Introduce())
}

// socketPair returns the ends of a Unix socket.
func socketPair(t *testing.T) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	a, b = os.NewFile(uintptr(fds[0]), "pair"), os.NewFile(uintptr(fds[1]), "pair")
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// receiveSocket returns the socket that comes through a Unix socket.
func receiveSocket(f *os.File) (*sockmeta.UDPConn, error) {
	oob := make([]byte, 64)
	_, n, _, _, err := unix.Recvmsg(int(f.Fd()), make([]byte, 1), oob, 0)
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return nil, fmt.Errorf("%d messages, %v", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fds[0]), "socket")
	defer file.Close()
	c, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	return sockmeta.WrapUDP(c.(*net.UDPConn)), nil
}

// integritySenders is one process of TestIntegritySend.
func integritySenders() error {
	process, err := strconv.Atoi(os.Getenv(txProcessEnv))
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(os.Getenv(txCountEnv))
	if err != nil {
		return err
	}
	passed, err := receiveSocket(testutil.ChildFile(0))
	if err != nil {
		return err
	}
	group := sockmeta.ListenConfig{ListenConfig: net.ListenConfig{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		return errors.Join(cerr, err)
	}}}
	pc, err := group.ListenPacket(context.Background(), "udp4", fmt.Sprintf(":%d", txGroupPort))
	if err != nil {
		return err
	}
	own, err := sockmeta.DialUDP("udp6", nil, &net.UDPAddr{IP: pairServer6.AsSlice(), Port: txSinkPort})
	if err != nil {
		return err
	}
	to4, to6 := netip.AddrPortFrom(pairServer4, txSinkPort), netip.AddrPortFrom(pairServer6, txSinkPort)
	ways := []struct {
		c  *sockmeta.UDPConn
		to netip.AddrPort
	}{{passed, to4}, {passed, to6}, {pc.(*sockmeta.UDPConn), to4}, {own, netip.AddrPort{}}}

	var mu sync.Mutex
	var wg sync.WaitGroup
	var sent txSent
	var errs []error
	for g := range txGoroutines {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(process), uint64(g)))
			id := uint64(process)<<48 | uint64(g)<<40
			var s txSent
			var md sockmeta.Metadata
			var b [64]byte
			var err error
			for range count / txGoroutines {
				id++
				way := ways[rng.IntN(len(ways))]
				with := &md
				binary.NativeEndian.PutUint64(b[:], id)
				if err = md.SetUint64(testprog.KeyID, id); err != nil {
					break
				}
				if rng.IntN(8) == 0 {
					with = nil
					binary.NativeEndian.PutUint64(b[:], id|noMetadata)
				}
				if _, err = way.c.WriteMetadata(b[:8+rng.IntN(len(b)-7)], with, way.to); err != nil {
					break
				}
				if with == nil {
					s.Without++
				} else {
					s.With++
				}
			}
			mu.Lock()
			defer mu.Unlock()
			sent.With += s.With
			sent.Without += s.Without
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(sent)
}

// The addresses of a Pair's server, for processes that have no Pair.
var (
	pairServer4 = netip.MustParseAddr("192.0.2.2")
	pairServer6 = netip.MustParseAddr("2001:db8::2")
)
