// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"nonsense"}, {"attach", "extra"}, {"attach", "-service", "1=2"}} {
		if err := run(t.Context(), args, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want the usage", args, err)
		}
	}
	if err := run(t.Context(), []string{"attach", "-producer", "lo", "-service", "x"}, io.Discard); err == nil {
		t.Error("-service x is no error")
	}
}

func TestStatus(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"status"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"udp: ", "tcp: "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status is %q, want %q in it", out.String(), want)
		}
	}
}

// lines sends what is written to a channel.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

func TestAttach(t *testing.T) {
	testutil.RequireRoot(t)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	out := make(lines, 1)
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"attach"}, out) }()
	select {
	case err := <-done:
		t.Fatal(err)
	case line := <-out:
		if !strings.HasPrefix(line, "attached to ") {
			t.Errorf("says %q", line)
		}
	}
	u, err := sockmeta.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.Support().Err(); err != nil {
		t.Error(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
