// SPDX-License-Identifier: Apache-2.0

package conn_test

import (
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

func TestMain(m *testing.M) { testutil.MainInCgroup(m, "conn") }
