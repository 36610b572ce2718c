// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conn

import (
	"fmt"
	"runtime"

	"github.com/sockmeta/sockmeta-go/bpf"
)

func optIn(int, bool) (*bpf.Slots, bool, error) { return nil, false, nativeMissing() }

func nativeMissing() error { return fmt.Errorf("%w on %s: needs Linux", ErrNotSupported, runtime.GOOS) }
