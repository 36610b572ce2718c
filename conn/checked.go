// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"sync/atomic"
	"time"
)

// checkEvery is for how long a sender takes it for granted that the programs are
// there, and that SO_TXTIME has the clock that it had: nothing tells him, and asking
// for each datagram would cost a tenth of it. Readers do so, too.
const checkEvery = 100 * time.Millisecond

var processStart = time.Now()

// checked is when something was last asked, as a time since the process began.
type checked struct{ atomic.Int64 }

// isDue says whether it is time to ask again, to one of those who call it.
func (c *checked) isDue() bool {
	now, last := int64(time.Since(processStart)), c.Load()
	return now-last > int64(checkEvery) && c.CompareAndSwap(last, now)
}
