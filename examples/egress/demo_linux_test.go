// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

func TestDemo(t *testing.T) {
	testutil.RequireRoot(t)
	if err := runDemo(); err != nil {
		t.Fatal(err)
	}
}
