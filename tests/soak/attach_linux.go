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
	says, err := describe(a)
	if err != nil {
		return err
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

func describe(a *bpf.Attachment) (attached, error) {
	says := attached{Shared: a.Shared(), Maps: make(map[string]ebpf.MapID)}
	maps, err := a.Maps()
	if err != nil {
		return says, err
	}
	for name, m := range maps {
		info, err := m.Info()
		if err != nil {
			return says, err
		}
		says.Maps[name], _ = info.ID()
	}
	return says, nil
}

// An attachment is a process in the role of an attacher, or this one's: what
// attaching does not give back shows in a process that goes on.
type attachment struct {
	attached
	own *bpf.Attachment
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func (s *soaking) attach(opts bpf.Options, own bool) (*attachment, error) {
	opts.Cgroup = s.outer.Path()
	if own {
		return s.attachOwn(opts)
	}
	return s.startAttacher(opts)
}

func (s *soaking) attachOwn(opts bpf.Options) (_ *attachment, err error) {
	a := new(attachment)
	s.ids.without(func() { a.own, err = bpf.Attach(opts) })
	if err != nil {
		return nil, err
	}
	if a.attached, err = describe(a.own); err == nil {
		err = s.ids.addOwn()
	}
	if err != nil {
		a.kill()
		return nil, err
	}
	return a, nil
}

func (s *soaking) startAttacher(opts bpf.Options) (*attachment, error) {
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

// kill has the process end without any cleaning up, if it is another. It does
// nothing after detach.
func (a *attachment) kill() {
	if a.cmd == nil {
		_, _ = a.closeOwn()
		return
	}
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}

// detach gives it up, and counts what became of the records that were sent.
func (a *attachment) detach(l *Ledger) error {
	counts, err := a.close()
	if err != nil || a.Shared {
		return err // the one that attached first says so, or was killed
	}
	l.add("records left, by attachments' counts", int(counts.Sent))
	l.add("records stale", int(counts.Stale))
	l.add("records foreign", int(counts.Foreign))
	l.add("records malformed", int(counts.Malformed))
	l.add("records busy", int(counts.Busy))
	return nil
}

func (a *attachment) close() (bpf.Counts, error) {
	if a.cmd == nil {
		return a.closeOwn()
	}
	timer := time.AfterFunc(patience, func() { _ = a.cmd.Process.Kill() })
	defer timer.Stop()
	err := a.in.Close()
	var last attached
	if derr := a.out.Decode(&last); derr != nil {
		err = errors.Join(err, fmt.Errorf("attacher: %w", derr))
	}
	return last.Counts, errors.Join(err, a.cmd.Wait())
}

// closeOwn lets go of the attachment: it keeps the receive map, which stays mapped
// until the collector finds it.
func (a *attachment) closeOwn() (counts bpf.Counts, err error) {
	if a.own == nil {
		return counts, nil
	}
	counts, err = a.own.Counts()
	err = errors.Join(err, a.own.Close())
	a.own = nil
	return counts, err
}
