// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

// ErrRefused: what was sent left without a mark, priority or launch time that its
// metadata asked for, because the policy of whoever attached the programs
// (bpf.Policy) does not allow it. It is an fs.ErrPermission, too.
var ErrRefused = errors.New("refused by the policy")

// refused returns the bits of the fields that the policy refuses.
func refused(info *abi.TxInfo, md *cmsg.Metadata, datagram bool) uint16 {
	return info.Refuses(md.Record(), datagram)
}

// refusedError says which fields.
type refusedError struct{ fields uint16 }

func (e *refusedError) Error() string {
	var names []string
	for _, f := range []struct {
		bit  uint16
		name string
	}{
		{abi.ValidMark, "mark"},
		{abi.ValidPriority, "priority"},
		{abi.ValidLaunch, "launch time"},
	} {
		if e.fields&f.bit != 0 {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, " and ") + " " + ErrRefused.Error()
}

func (e *refusedError) Is(target error) bool {
	return target == ErrRefused || target == fs.ErrPermission
}
