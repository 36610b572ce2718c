// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/sockmeta/sockmeta-go/bpf"
	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/forge"
	"github.com/sockmeta/sockmeta-go/internal/testutil"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// A forgerProducer is what gives the packets of the link metadata, before the kernel
// has them.
type forgerProducer struct {
	name string
	// attach returns the length of the areas, as far as it is known, and what may be
	// in records that are not in doubt.
	attach func(t *testing.T, lab *forgerLab) (size int, values map[cmsg.Key][]byte)
}

const forgerService = 4711

func forgerProducers(t testing.TB) []forgerProducer {
	most, err := areaMax()
	must(t, err)
	all := []forgerProducer{
		{"none", func(*testing.T, *forgerLab) (int, map[cmsg.Key][]byte) { return 36, nil }},
		{"ours", func(t *testing.T, lab *forgerLab) (int, map[cmsg.Key][]byte) {
			services := make(map[uint16]uint32)
			for _, port := range []uint16{9001, 9002, 9003, 9004, forge.VXLANPort, forge.VXLANMD, forge.GenevePort, forge.GeneveMD} {
				services[port] = forgerService
			}
			attachProducer(t, lab.Pair, bpf.ProducerOptions{Services: services})
			return 36, map[cmsg.Key][]byte{
				cmsg.KeyPacketID: nil, cmsg.KeyKtime: nil,
				cmsg.KeyServiceID: binary.NativeEndian.AppendUint32(nil, forgerService),
			}
		}},
	}
	// Producers written with an older header, and ones that know nothing of sockmeta,
	// whose areas say where a forger has to put his.
	for _, size := range []int{4, 8, 12, 16, 28, 36, 40, 64, 128, 216} {
		if size > most {
			continue
		}
		all = append(all,
			forgerProducer{fmt.Sprint("public anchor, ", size), func(t *testing.T, lab *forgerLab) (int, map[cmsg.Key][]byte) {
				area, values := producerArea(size - cmsg.AnchorLen)
				attachBytes(t, lab.Server, lab.ServerIf, append(area, 255, 2, 0x5B, 0))
				return size, values
			}},
			forgerProducer{fmt.Sprint("no anchor, ", size), func(t *testing.T, lab *forgerLab) (int, map[cmsg.Key][]byte) {
				area, values := producerArea(size)
				attachBytes(t, lab.Server, lab.ServerIf, area)
				return size, values
			}},
		)
		// Producers with the host's secret, whose areas are found behind the headers, too.
		if seal := cmsg.AnchorLen + sealSize(t); size > seal {
			all = append(all, forgerProducer{fmt.Sprint("sealed, ", size), func(t *testing.T, lab *forgerLab) (int, map[cmsg.Key][]byte) {
				area, values := producerArea(size - seal)
				attachArea(t, lab.Server, lab.ServerIf, anchored(cmsg.FormatTLV, area...))
				return size, values
			}})
		}
	}
	return all
}

// producerArea fills an area with TLVs of no value.
func producerArea(size int) (area []byte, values map[cmsg.Key][]byte) {
	for len(area) < size {
		area, _ = cmsg.AppendTLV(area, cmsg.KeyUser+9, nil)
	}
	return area, map[cmsg.Key][]byte{cmsg.KeyUser + 9: {}}
}

// TestTruthForgerWire has another host send datagrams through all tunnels that the
// receiver has, with areas of its own making where the receiver's kernel finds one when
// the headers are off.
func TestTruthForgerWire(t *testing.T) {
	testutil.Leaks(t)
	lab := newForgerLab(t)
	testutil.EnterCgroup(t)
	victims := lab.victims(t)
	for _, p := range forgerProducers(t) {
		t.Run(p.name, func(t *testing.T) {
			size, values := p.attach(t, lab)
			for i := range forge.Carriers {
				c := &forge.Carriers[i]
				t.Run(c.Name, func(t *testing.T) {
					if err := lab.reaches(c); err != nil {
						t.Skip(err)
					}
					truth := lab.truth()
					truth.Values = values
					for _, v := range victims {
						lab.forge(t, c, v, size, &truth)
					}
				})
			}
		})
	}
}

// forge sends all texts of a size to a socket, and looks at what it reads.
func (lab *forgerLab) forge(t *testing.T, c *forge.Carrier, v *forgerVictim, size int, truth *forge.Truth) {
	t.Helper()
	texts := make(map[string]string)
	send := func(f forge.Fields, text forge.Text) []byte {
		b, err := lab.datagram(c, f, v.port, text.Bytes)
		must(t, err)
		texts[string(b)] = fmt.Sprintf("%s, %+v", text.Name, f)
		return b
	}
	for _, text := range forge.Texts(size) {
		for _, f := range forgedFields {
			send(f, text)
		}
	}
	last := send(forge.Usual, forge.Text{Name: "honest"})
	var believed int
	read, err := v.until(last, func(b []byte, md *cmsg.Metadata) {
		l := truth.Check(md)
		if l == nil {
			return
		}
		if believed++; believed == 1 {
			t.Errorf("%s: %s: %v\n%v, flags %v", v.name, texts[string(b)], l, md, md.Flags())
		}
	})
	if believed > 1 {
		t.Errorf("%s: %d of %d records are not true", v.name, believed, read)
	}
	if err != nil {
		t.Fatalf("%s: %d of %d datagrams arrived, and not the last: %v", v.name, read, len(texts), err)
	}
	if read < len(texts)/2 {
		t.Errorf("%s: %d of %d datagrams arrived", v.name, read, len(texts))
	}
}

// forgedFields make TLVs of the headers in front of a text: with an IPv4 packet's
// identification begins one of 4 bytes, key 3 for a service or 16 for an application's.
var forgedFields = []forge.Fields{
	forge.Usual,
	{TTL: 0xCA, TOS: 0x0F, ID: 0x0304, SrcPort: 0x0304},
	{TTL: 0x4A, TOS: 0x1C, ID: 0x1004, SrcPort: 0x1004},
}

// TestTruthForgerProducer shows that what the forger says would be seen: a producer that
// says it is believed.
func TestTruthForgerProducer(t *testing.T) {
	testutil.Leaks(t)
	lab := newForgerLab(t)
	testutil.EnterCgroup(t)
	attachForged(t, lab)
	truth := lab.truth()
	for _, v := range lab.victims(t) {
		found := false
		last, err := lab.datagram(&forge.Carriers[0], forge.Usual, v.port, nil)
		must(t, err)
		_, err = v.until(last, func(_ []byte, md *cmsg.Metadata) {
			service, _ := md.Uint32(sockmeta.KeyServiceID)
			found = truth.Check(md) != nil && service == forge.Service
		})
		must(t, err)
		if !found {
			t.Errorf("%s: a producer's word is not there, or not found", v.name)
		}
	}
}
