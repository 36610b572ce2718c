// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sockmeta/sockmeta-go/bpf"
)

// attached is what an attacher says of its attachment: with it in hand, others
// need not join.
type attached struct {
	Shared bool
	Maps   map[string]ebpf.MapID // of Attachment.Maps
	Counts bpf.Counts
}

// attacher is the role: it attaches by options that it reads, says so, and holds
// the attachment until its input ends.
func attacher() error {
	var opts bpf.Options
	in := json.NewDecoder(os.Stdin)
	if err := in.Decode(&opts); err != nil {
		return err
	}
	a, err := bpf.Attach(opts)
	if err != nil {
		return err
	}
	defer a.Close()
	says := attached{Shared: a.Shared(), Maps: make(map[string]ebpf.MapID)}
	maps, err := a.Maps()
	if err != nil {
		return err
	}
	for name, m := range maps {
		info, err := m.Info()
		if err != nil {
			return err
		}
		says.Maps[name], _ = info.ID()
	}
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(says); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	if says.Counts, err = a.Counts(); err != nil {
		return err
	}
	if err := a.Close(); err != nil {
		return err
	}
	return out.Encode(says)
}

// An attachment is a process in the role of an attacher.
type attachment struct {
	attached
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func (s *soaking) attach(opts bpf.Options) (*attachment, error) {
	cmd, _, err := command("attacher", nil)
	if err != nil {
		return nil, err
	}
	a := &attachment{cmd: cmd}
	if a.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	a.out = json.NewDecoder(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// Should it hang.
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	opts.Cgroup = s.outer.Path()
	err = json.NewEncoder(a.in).Encode(opts)
	if err == nil {
		err = a.out.Decode(&a.attached)
	}
	if err == nil {
		err = s.ids.add(cmd.Process.Pid)
	}
	if err != nil {
		a.kill()
		return nil, fmt.Errorf("attacher: %w", err)
	}
	return a, nil
}

// kill has the process end without any cleaning up.
func (a *attachment) kill() {
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}

// detach ends the process, and counts what became of the records that were sent.
func (a *attachment) detach(l *Ledger) error {
	timer := time.AfterFunc(patience, func() { _ = a.cmd.Process.Kill() })
	defer timer.Stop()
	err := a.in.Close()
	var last attached
	if derr := a.out.Decode(&last); derr != nil {
		err = errors.Join(err, fmt.Errorf("attacher: %w", derr))
	}
	if err := errors.Join(err, a.cmd.Wait()); err != nil {
		return err
	}
	if a.Shared {
		return nil // the one that attached first says so, or was killed
	}
	l.add("records left, by attachments' counts", int(last.Counts.Sent))
	l.add("records stale", int(last.Counts.Stale))
	l.add("records foreign", int(last.Counts.Foreign))
	l.add("records malformed", int(last.Counts.Malformed))
	l.add("records busy", int(last.Counts.Busy))
	return nil
}
