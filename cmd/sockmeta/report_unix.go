// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyReport has c told when counts are wanted.
func notifyReport(c chan<- os.Signal) { signal.Notify(c, syscall.SIGUSR1) }
