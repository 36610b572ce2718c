// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"testing"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/abi"
)

func TestRefusedError(t *testing.T) {
	for _, tt := range []struct {
		fields uint16
		want   string
	}{
		{abi.ValidMark, "mark refused by the policy"},
		{abi.ValidPriority, "priority refused by the policy"},
		{abi.ValidLaunch, "launch time refused by the policy"},
		{abi.ValidMark | abi.ValidLaunch, "mark and launch time refused by the policy"},
		{abi.ValidMark | abi.ValidPriority | abi.ValidLaunch, "mark and priority and launch time refused by the policy"},
	} {
		var err error = &net.OpError{Op: "metadata", Net: "udp", Err: &refusedError{tt.fields}}
		if got := errors.Unwrap(err).Error(); got != tt.want {
			t.Errorf("%#x: %q, want %q", tt.fields, got, tt.want)
		}
		if !errors.Is(err, ErrRefused) || !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%v: not ErrRefused or not fs.ErrPermission", err)
		}
		if errors.Is(err, ErrNotSupported) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v is another error, too", err)
		}
	}
}

func TestIsMetadataError(t *testing.T) {
	for _, err := range []error{
		ErrNotSupported, ErrNoMetadata, ErrOverrun, ErrTruncated, ErrRefused,
		cmsg.ErrMalformed, cmsg.ErrVersion, errDetached, &refusedError{abi.ValidMark},
	} {
		for _, err := range []error{err, fmt.Errorf("more: %w", err), &net.OpError{Op: "metadata", Err: err}} {
			if !IsMetadataError(err) {
				t.Errorf("%v is none", err)
			}
		}
	}
	for _, err := range []error{
		nil, io.EOF, net.ErrClosed, errors.ErrUnsupported, fs.ErrPermission,
		&net.OpError{Op: "write", Err: io.ErrShortWrite},
	} {
		if IsMetadataError(err) {
			t.Errorf("%v is one", err)
		}
	}
}
