// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/rpc"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sockmeta/sockmeta-go/bpf"
)

// An actor has sockets and does something with them.
type actor interface {
	open() error
	// act does it: until it is done, or, for those that serve others, until
	// close.
	act(l *Ledger)
	serves() bool
	progress(l *Ledger)
	close()
}

// Worker is what a process with sockets does for the first one, by net/rpc. It
// lives as long as the soak, so that what the library does not give back shows.
type Worker struct {
	actors     []actor
	wg         sync.WaitGroup
	attachment *bpf.Attachment // of AttachLocal

	mu     sync.Mutex
	ledger *Ledger
}

// worker is the role. It ends with the connection.
func worker() error {
	c, err := fileConn(controlFD)
	if err != nil {
		return err
	}
	s := rpc.NewServer()
	if err := s.Register(new(Worker)); err != nil {
		return err
	}
	s.ServeConn(c)
	return nil
}

func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	return net.FileConn(f)
}

// Open makes the sockets of all actors; those that serve others begin.
func (w *Worker) Open(tasks []Task, _ *bool) error {
	w.ledger = new(Ledger)
	for i := range tasks {
		a := tasks[i].actor()
		if err := a.open(); err != nil {
			return fmt.Errorf("%s: %w", tasks[i].Kind, err)
		}
		w.actors = append(w.actors, a)
		if a.serves() {
			w.start(a)
		}
	}
	return nil
}

func (w *Worker) start(a actor) {
	w.wg.Go(func() {
		var l Ledger
		a.act(&l)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ledger.merge(&l)
	})
}

// Run has the others act, and returns when they are done.
func (w *Worker) Run(_ bool, _ *bool) error {
	var running sync.WaitGroup
	for _, a := range w.actors {
		if a.serves() {
			continue
		}
		running.Go(func() {
			var l Ledger
			a.act(&l)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ledger.merge(&l)
		})
	}
	running.Wait()
	return nil
}

// Progress says what has become of the datagrams by now.
func (w *Worker) Progress(_ bool, l *Ledger) error {
	for _, a := range w.actors {
		a.progress(l)
	}
	return nil
}

// Close closes the sockets and returns what was counted.
func (w *Worker) Close(_ bool, l *Ledger) error {
	for _, a := range w.actors {
		a.progress(w.ledger)
		a.close()
	}
	w.wg.Wait()
	l.merge(w.ledger)
	w.actors, w.ledger = nil, nil
	return nil
}

// Census says what the process holds.
func (w *Worker) Census(_ bool, c *Census) error { return c.take() }

// A workerProcess is the other end of a Worker.
type workerProcess struct {
	name   string
	cmd    *exec.Cmd
	client *rpc.Client
}

func startWorker(name string, at place, peer *os.File) (*workerProcess, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	defer theirs.Close()
	c, err := fileConn(fds[0])
	if err != nil {
		return nil, err
	}
	at.files = []*os.File{theirs}
	if peer != nil {
		at.files = append(at.files, peer)
	}
	cmd, done, err := command("worker", &at)
	if err == nil {
		defer done()
		err = cmd.Start()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return &workerProcess{name, cmd, rpc.NewClient(c)}, nil
}

// patience is more than any call takes.
const patience = time.Minute

func (p *workerProcess) call(method string, args, reply any) error {
	select {
	case call := <-p.client.Go("Worker."+method, args, reply, make(chan *rpc.Call, 1)).Done:
		if call.Error != nil {
			return fmt.Errorf("%s: %s: %w", p.name, method, call.Error)
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s: %s hangs", p.name, method)
	}
}

// stop ends the process, which by itself ends with the connection.
func (p *workerProcess) stop() {
	_ = p.client.Close()
	timer := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer timer.Stop()
	_ = p.cmd.Wait()
}
