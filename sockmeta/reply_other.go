// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package sockmeta

import (
	"fmt"
	"runtime"

	"github.com/sockmeta/sockmeta-go/cmsg"
)

const packetInfoSpace = 0

func receivePacketInfo(*UDPConn) error {
	return fmt.Errorf("%w on %s: needs Linux", ErrNotSupported, runtime.GOOS)
}

func (*question) sentTo(cmsg.Message) {}

func (*question) appendSource(oob []byte) []byte { return oob }
