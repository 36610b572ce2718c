// SPDX-License-Identifier: Apache-2.0

//go:build linux

package tests

import (
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

// children are the functions of child processes by name. The files with the
// tests that start them fill it in init functions.
var children = map[string]func() error{}

func TestMain(m *testing.M) { testutil.Main(m, children) }
