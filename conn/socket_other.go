// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conn

import (
	"fmt"
	"runtime"
)

func (*socket) optIn(int, bool, string) error { return nativeMissing() }

func nativeMissing() error { return fmt.Errorf("%w on %s: needs Linux", ErrNotSupported, runtime.GOOS) }
