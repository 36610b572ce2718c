// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// A plan is all that is chosen for the connections of one seed. Any bytes are one
// (decodePlan), so that it can be fuzzed.
type plan struct {
	setting setting
	conns   []connection
}

// A setting is what the connections of a plan have in common.
type setting struct {
	generic  bool // XDP behind GRO
	gro      bool
	noSACK   bool
	noStamps bool
	cookies  bool // all SYNs are answered by cookies
	backlog  bool // listeners have room for one connection
}

// A mode is what kind of connection it is, and how it is opened.
type mode uint8

const (
	accepted  mode = iota // the server accepts
	dialed                // the server dials
	crossed               // both dial at once
	fastOpen              // the SYN brings data
	late                  // opts in after it has been opened
	reused                // from the same port, again and again (TIME-WAIT)
	fallback              // the client asks for Multipath TCP
	multipath             // so does the server: no metadata
	slow                  // more connections than the backlog holds
	datagrams             // UDP
	trains                // UDP, with GRO
	modes
)

var modeNames = [modes]string{
	"accepted", "dialed", "crossed", "fast open", "late", "reused", "fallback",
	"multipath", "slow", "datagrams", "trains",
}

func (m mode) String() string { return modeNames[m] }

func (m mode) isUDP() bool { return m == datagrams || m == trains }

// A connection is planned by choices, each of which is an index into a table and
// taken modulo its length.
type connection struct {
	mode      mode
	v6        bool
	segment   uint8 // segmentSizes
	write     uint8 // writeSizes
	read      uint8 // readSizes
	buffer    uint8 // bufferSizes
	group     uint8 // groupSizes
	pause     uint8 // pauses
	handshake uint8 // greeting
	acks      uint8 // how many of 256 of the server's segments are lost
	seed      uint64
	total     uint32 // bytes
	// ops are pairs: what becomes of a frame, and how. They are used in turn.
	ops []byte
	// untroubled has ops never end.
	untroubled bool
	// pace is how many bytes the client sends in a second, 0: as many as it can.
	pace int
	// hasty gives the connection up soon.
	hasty bool
}

// times is how many connections are made, one after the other or at once.
func (c *connection) times() int {
	switch c.mode {
	case reused, slow:
		return 4
	case fastOpen:
		return 2
	}
	return 1
}

// share is how many bytes each of them carries.
func (c *connection) share() int { return int(c.total) / c.times() }

// trouble is for how long frames are tampered with: no plan is to last for ever.
func (c *connection) trouble() int64 {
	if c.untroubled {
		return math.MaxInt64
	}
	if c.hasty {
		return int64(300 * time.Millisecond)
	}
	return int64(2*time.Second) + int64(c.total)*int64(2*time.Microsecond)
}

var (
	segmentSizes = [...]int{1448, 88, 536, 1448, 3000, 1200, 216, 1448}
	writeSizes   = [...]int{65536, 100, 1, 700, 5000, 30000, 100, 20}
	readSizes    = [...]int{32768, 1, 100, 1024, 4096, 65536, 10, 1024}
	// 0 is the kernel's default.
	bufferSizes = [...]int{0, 0, 0, 12000, 16384, 65536, 0, 8192}
	// How many frames that follow each other have one tag, so that GRO may merge
	// them.
	groupSizes = [...]int{1, 1, 1, 32, 4, 2, 1, 64}
	// In how many of 256 reads, and writes, there is a pause.
	pauses = [...]int{1, 0, 4, 16, 64, 1, 8, 2}
)

func choose(of []int, by uint8) int { return of[int(by)%len(of)] }

// An op is what becomes of a frame from the client.
type op uint8

const (
	opPass op = iota
	opDrop
	opDelay
	opHold // until others have passed
	opDuplicate
	opSplit
	opMerge
	opCorrupt
	opCollapse // it comes with what came before it, as a retransmission may
	opLoseAcks
	opSpoof
	opSpoofBurst
	opCount
)

// A greeting is what becomes of the handshake.
type greeting uint8

const (
	plainly greeting = iota
	synTwice
	synCorrupt  // another with a bad checksum comes first
	synAborted  // SYN, RST, SYN of the same number
	synOld      // one of another number comes first
	loseACK     // the handshake's last segment
	badACK      // another that acknowledges too much comes first
	corruptData // data with a bad checksum comes before it
	ackTwice
	greetings
)

// connectionSize is that of a connection's bytes without ops.
const connectionSize = 20

// appendPlan makes bytes of a plan, and decodePlan a plan of one connection of any
// bytes.
func (c *connection) append(b []byte) []byte {
	v6 := uint8(0)
	if c.v6 {
		v6 = 1
	}
	b = append(b, uint8(c.mode), v6, c.segment, c.write, c.read, c.buffer, c.group, c.pause, c.handshake, c.acks)
	b = binary.LittleEndian.AppendUint64(b, c.seed)
	b = binary.LittleEndian.AppendUint16(b, uint16(c.total/totalUnit))
	return append(b, c.ops...)
}

// totalUnit is what a plan's bytes count in.
const totalUnit = 16

func (s setting) byte() (b byte) {
	for i, on := range [...]bool{s.generic, s.gro, s.noSACK, s.noStamps, s.cookies, s.backlog} {
		if on {
			b |= 1 << i
		}
	}
	return b
}

func settingOf(b byte) setting {
	on := func(i int) bool { return b>>i&1 != 0 }
	return setting{generic: on(0), gro: on(1), noSACK: on(2), noStamps: on(3), cookies: on(4), backlog: on(5)}
}

func (p *plan) bytes() []byte { return p.conns[0].append([]byte{p.setting.byte()}) }

func decodePlan(b []byte) (*plan, error) {
	if len(b) < 1+connectionSize {
		return nil, fmt.Errorf("a plan has %d bytes at least, not %d", 1+connectionSize, len(b))
	}
	s, b := settingOf(b[0]), b[1:]
	c := connection{
		mode: mode(b[0]) % modes, v6: b[1]&1 != 0,
		segment: b[2], write: b[3], read: b[4], buffer: b[5], group: b[6], pause: b[7], handshake: b[8], acks: b[9],
		seed:  binary.LittleEndian.Uint64(b[10:]),
		total: (uint32(binary.LittleEndian.Uint16(b[18:])) + 1) * totalUnit,
		ops:   b[connectionSize:],
	}
	return &plan{setting: s, conns: []connection{c}}, nil
}

// String says what the plan's connection is like.
func (c *connection) String() string {
	family := "IPv4"
	if c.v6 {
		family = "IPv6"
	}
	return fmt.Sprintf("%v, %s, %d bytes, segments of %d, written by %d, read by %d, buffer %d, tags for %d, greeting %d",
		c.mode, family, c.total, choose(segmentSizes[:], c.segment), choose(writeSizes[:], c.write),
		choose(readSizes[:], c.read), choose(bufferSizes[:], c.buffer), choose(groupSizes[:], c.group),
		greeting(c.handshake)%greetings)
}

func (s setting) String() string {
	xdp, gro := "native", "off"
	if s.generic {
		xdp = "generic"
	}
	if s.gro {
		gro = "on"
	}
	return fmt.Sprintf("XDP %s, GRO %s, SACK %v, timestamps %v, cookies %v, small backlog %v", xdp, gro, !s.noSACK,
		!s.noStamps, s.cookies, s.backlog)
}

// connections is how many a seed has.
const connections = 12

// newPlan draws a plan with so many bytes in all.
func newPlan(seed uint64, bytes int) *plan {
	rng := rand.New(rand.NewPCG(seed, 0))
	p := &plan{setting: settingOf(byte(rng.Uint32()))}
	// These slow everything down, or leave less to look at.
	p.setting.cookies = p.setting.cookies && rng.IntN(2) == 0
	p.setting.backlog = p.setting.backlog && rng.IntN(2) == 0
	p.setting.noStamps = p.setting.noStamps && rng.IntN(2) == 0
	for i := range connections {
		c := connection{
			mode: mode(rng.IntN(int(modes))), v6: rng.IntN(2) == 0,
			segment: uint8(rng.Uint32()), write: uint8(rng.Uint32()), read: uint8(rng.Uint32()),
			buffer: uint8(rng.Uint32()), group: uint8(rng.Uint32()), pause: uint8(rng.Uint32()),
			seed: rng.Uint64(),
		}
		if rng.IntN(3) == 0 {
			c.mode = accepted
		}
		if rng.IntN(2) == 0 {
			c.handshake = uint8(rng.IntN(int(greetings)))
		}
		if rng.IntN(3) == 0 {
			c.acks = uint8(rng.IntN(100))
		}
		c.ops = newOps(rng)
		share := bytes / connections
		if i == connections-1 {
			share = bytes - share*(connections-1)
		}
		c.total = uint32(max(share, totalUnit))
		c.fit()
		p.conns = append(p.conns, c)
	}
	return p
}

// fit keeps a connection that handles single bytes from taking for ever: what is
// left over goes to nobody.
func (c *connection) fit() {
	if choose(writeSizes[:], c.write) < 20 {
		c.write++
	}
	if choose(readSizes[:], c.read) < 100 && c.total > 200_000 {
		c.read = 3
	}
}

// newOps draws what becomes of frames: mostly nothing, or TCP would do little but
// wait.
func newOps(rng *rand.Rand) []byte {
	b := make([]byte, 2*(64+rng.IntN(2000)))
	bad := rng.IntN(30)
	for i := 0; i < len(b); i += 2 {
		if rng.IntN(100) < bad {
			b[i] = byte(opDrop) + byte(rng.IntN(int(opCount-opDrop)))
		}
		b[i+1] = byte(rng.Uint32())
	}
	return b
}

// honestOps lose, reorder and duplicate one frame of a hundred each.
func honestOps(seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 2*10_000)
	for i := 0; i < len(b); i += 2 {
		switch n := rng.IntN(100); n {
		case 0:
			b[i] = byte(opDrop)
		case 1:
			b[i] = byte(opHold)
		case 2:
			b[i] = byte(opDuplicate)
		}
		b[i+1] = byte(rng.IntN(8))
	}
	return b
}
