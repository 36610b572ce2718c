// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conn

import (
	"fmt"
	"runtime"

	"github.com/sockmeta/sockmeta-go/bpf"
)

func optIn(int, bool) (*bpf.Slots, error) { return nil, nativeMissing() }

func nativeMissing() error { return fmt.Errorf("%w on %s: needs Linux", ErrNotSupported, runtime.GOOS) }
