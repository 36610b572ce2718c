// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

// TestNativeC has C programs receive and send metadata, which know nothing but
// recvmsg, sendmsg and control messages.
func TestNativeC(t *testing.T) {
	recvmeta, sendmeta, rawsend := cProgram(t, "recvmeta"), cProgram(t, "sendmeta"), cProgram(t, "rawsend")
	lab := newNativeLab(t)
	attachEchoUDP(t, lab.Pair)
	const count = 10
	cmd := exec.CommandContext(t.Context(), recvmeta, strconv.Itoa(serverPort), strconv.Itoa(2*count+1))
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, lab.Server.Do(cmd.Start))
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		t.Fatalf("recvmeta said %q, %v", lines.Text(), lines.Err())
	}
	before, err := lab.a.Counts()
	must(t, err)
	for i, server := range []netip.Addr{lab.ServerAddr4, lab.ServerAddr6} {
		first := uint64(1000 * (i + 1))
		runRawsend(t, lab.Client, rawsend, netip.AddrPortFrom(server, serverPort), first, count)
		// A sender that moves to another CPU may overtake itself.
		seen := make(map[uint64]bool)
		for range count {
			if !lines.Scan() {
				t.Fatal("recvmeta ended", lines.Err())
			}
			line := lines.Text()
			var id uint64
			if _, err := fmt.Sscanf(line, "8 bytes of %d:", &id); err != nil || id < first || id >= first+count || seen[id] {
				t.Errorf("recvmeta said %q", line)
				continue
			}
			seen[id] = true
			value := " 16=" + hex.EncodeToString(binary.NativeEndian.AppendUint64(nil, id))
			if !strings.Contains(line+" ", value+" ") || !strings.Contains(line, fmt.Sprintf(" ifindex=%d ", lab.ifindex)) {
				t.Errorf("recvmeta said %q, want%s", line, value)
			}
		}
	}
	must(t, lab.Client.Do(func() error {
		out, err := exec.CommandContext(t.Context(), sendmeta, lab.ServerAddr4.String(), strconv.Itoa(serverPort), "some text", "16=7", "17=0x100").CombinedOutput()
		if err != nil {
			return fmt.Errorf("sendmeta: %w: %s", err, out)
		}
		return nil
	}))
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "9 bytes of ") {
		t.Errorf("recvmeta said %q, %v", lines.Text(), lines.Err())
	}
	must(t, cmd.Wait())
	after, err := lab.a.Counts()
	must(t, err)
	if sent := after.Sent - before.Sent; sent != 2*count+1 || after.Malformed != 0 {
		t.Errorf("%d datagrams left with metadata, want %d; %d malformed", sent, 2*count+1, after.Malformed)
	}
}
