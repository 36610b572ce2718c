// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/internal/netlab"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

const (
	foreignPort    = 7200
	foreignService = 4711
	foreignTimeout = 20 * time.Second
)

// TestForeignClient has socat, a program that knows nothing of sockmeta, send
// to the server: payload and metadata arrive.
func TestForeignClient(t *testing.T) {
	socat, err := exec.LookPath("socat")
	if err != nil {
		testutil.Skip(t, err.Error())
	}
	testutil.Leaks(t)
	p := testutil.Pair(t)
	testutil.EnterCgroup(t)
	a, err := bpf.Attach(bpf.Options{})
	must(t, err)
	t.Cleanup(func() { _ = a.Close() })
	var producer *bpf.Producer
	must(t, p.Server.Do(func() (err error) {
		producer, err = bpf.AttachProducer(p.ServerIf, bpf.ProducerOptions{
			Services: map[uint16]uint32{foreignPort: foreignService},
		})
		return err
	}))
	t.Cleanup(func() { _ = producer.Close() })

	for _, addr := range []netip.Addr{p.ServerAddr4, p.ServerAddr6} {
		to := netip.AddrPortFrom(addr, foreignPort)
		family := "4"
		if addr.Is6() {
			family = "6"
		}
		t.Run("udp"+family, func(t *testing.T) {
			var c *sockmeta.UDPConn
			must(t, p.Server.Do(func() (err error) {
				c, err = sockmeta.ListenUDP("udp", net.UDPAddrFromAddrPort(to))
				return err
			}))
			defer c.Close()
			must(t, c.SetReadDeadline(time.Now().Add(foreignTimeout)))
			b := make([]byte, 2048)
			var md sockmeta.Metadata
			for i := range 3 {
				payload := fmt.Sprintf("datagram %d", i)
				must(t, runSocat(t.Context(), p.Client, socat, "UDP"+family+"-SENDTO:"+to.String(), payload))
				n, _, err := c.ReadMetadata(b, &md)
				must(t, err)
				if string(b[:n]) != payload {
					t.Errorf("payload is %q, want %q", b[:n], payload)
				}
				verifyService(t, &md)
			}
		})
		t.Run("tcp"+family, func(t *testing.T) {
			var l *sockmeta.TCPListener
			must(t, p.Server.Do(func() (err error) {
				l, err = sockmeta.ListenTCP("tcp", net.TCPAddrFromAddrPort(to))
				return err
			}))
			defer l.Close()
			must(t, l.SetDeadline(time.Now().Add(foreignTimeout)))

			payload := strings.Repeat("stream ", 10_000)
			sent := make(chan error, 1)
			go func() {
				sent <- runSocat(t.Context(), p.Client, socat, "TCP"+family+":"+to.String(), payload)
			}()
			got, err := readStream(t, l)
			must(t, errors.Join(err, <-sent))
			if got != payload {
				t.Errorf("received %d bytes, want %d", len(got), len(payload))
			}
		})
	}
}

// readStream accepts a connection and reads it to its end.
func readStream(t *testing.T, l *sockmeta.TCPListener) (string, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now().Add(foreignTimeout)); err != nil {
		return "", err
	}
	opening, err := c.OpeningMetadata()
	if err != nil {
		return "", err
	}
	verifyService(t, &opening)
	got, err := io.ReadAll(c)
	if err != nil {
		return "", err
	}
	// The last bytes are read last, nothing can have taken their place.
	md, err := c.Metadata()
	if err != nil {
		return "", err
	}
	verifyService(t, &md)
	return string(got), nil
}

func verifyService(t *testing.T, md *sockmeta.Metadata) {
	t.Helper()
	if id, ok := md.Uint32(sockmeta.KeyServiceID); !ok || id != foreignService {
		t.Errorf("metadata is %v, want service %d", md, foreignService)
	}
	if _, ok := md.Uint64(sockmeta.KeyPacketID); !ok {
		t.Errorf("metadata is %v, want a packet id", md)
	}
}

// runSocat sends its standard input from the namespace, which a process has
// from the thread that starts it.
func runSocat(ctx context.Context, ns *netlab.Namespace, socat, to, input string) error {
	ctx, cancel := context.WithTimeout(ctx, foreignTimeout)
	defer cancel()
	return ns.Do(func() error {
		cmd := exec.CommandContext(ctx, socat, "-u", "STDIN", to)
		cmd.Stdin = strings.NewReader(input)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("socat: %w: %s", err, out)
		}
		return nil
	})
}
