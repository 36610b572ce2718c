// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"strconv"
	"strings"
	"testing"
)

// drawn is what a test has to know of a picture.
type drawn struct {
	bars  map[string][]float64 // widths by class
	texts []string
	right float64 // of everything
}

func parsePicture(t *testing.T, data []byte) drawn {
	t.Helper()
	d := drawn{bars: make(map[string][]float64)}
	in := ""
	for dec := xml.NewDecoder(bytes.NewReader(data)); ; {
		token, err := dec.Token()
		if err == io.EOF {
			return d
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, data)
		}
		switch e := token.(type) {
		case xml.StartElement:
			in = e.Name.Local
			attr := make(map[string]string)
			for _, a := range e.Attr {
				attr[a.Name.Local] = a.Value
			}
			if in == "rect" {
				width, err := strconv.ParseFloat(attr["width"], 64)
				if err != nil {
					t.Fatal(err)
				}
				x, _ := strconv.ParseFloat(attr["x"], 64)
				d.bars[attr["class"]] = append(d.bars[attr["class"]], width)
				d.right = max(d.right, x+width)
			}
		case xml.EndElement:
			in = ""
		case xml.CharData:
			if in == "text" {
				d.texts = append(d.texts, string(e))
			}
		}
	}
}

func TestPicture(t *testing.T) {
	d := parsePicture(t, picture(someRows()))
	// The bars are as long as parts of the target: 0.961/0.95, and 20 times clipped.
	met, missed := d.bars["met"], d.bars["missed"]
	if len(met) != 2 || len(missed) != 2 {
		t.Fatalf("bars %v, want one for each of four ratios with a target", d.bars)
	}
	for _, bar := range []struct {
		name        string
		width, want float64
	}{
		{"met", met[0], 0.961 / 0.95}, {"clipped", met[1], svgScale},
		{"missed", missed[0], 0.8 / 0.97}, {"ceiling", missed[1], 1.4 / 2.5},
	} {
		if got := bar.width / svgPerUnit; got < bar.want-0.01 || got > bar.want+0.01 {
			t.Errorf("%s: the bar is %.3f of the target, want %.3f", bar.name, got, bar.want)
		}
	}
	if d.right > svgWidth {
		t.Errorf("a bar ends at %v of %v", d.right, svgWidth)
	}
	all := strings.Join(d.texts, "\n")
	for _, want := range []string{
		`accept <&> "1 | 2"`, "0.961 × (≥ 0.950)", "… 87.2 × (≥ 20.0)", "2.50 × (≤ 1.400)", "compared with lookup",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	if strings.Contains(all, "socket") {
		t.Error("what is no ratio is drawn")
	}
}

func TestEmptyPicture(t *testing.T) {
	if d := parsePicture(t, picture(nil)); len(d.bars) != 0 {
		t.Errorf("bars %v", d.bars)
	}
}
