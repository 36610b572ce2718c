// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"fmt"
	"strings"
)

// The picture's measures, in its own units.
const (
	svgWidth   = 1000
	svgLabels  = 410 // the bars' left end
	svgValues  = 170 // room to the right of the longest bar
	svgTop     = 46
	svgRow     = 38
	svgBar     = 16
	svgScale   = 1.5 // of the target, at the longest bar's right end
	svgPerUnit = (svgWidth - svgLabels - svgValues) / svgScale
)

// Colours that can be told apart in both schemes, also by those who do not see red
// and green.
const svgStyle = `
text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }
.head { font-weight: 600 }
.small { font-size: 11px; fill: #59636e }
.met { fill: #2a7fb8 }
.missed { fill: #d9661f }
.target { stroke: #1f2328; stroke-width: 1.5; stroke-dasharray: 4 3 }
.spread { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.small { fill: #9198a1 }
.met { fill: #4aa3df }
.missed { fill: #f0883e }
.target, .spread { stroke: #e6edf3 }
}
`

// picture draws the rows that are judged, as parts of their targets.
func picture(rows []Row) []byte {
	var judged []*Row
	for i := range rows {
		if rows[i].Unit == Times && rows[i].Target != nil {
			judged = append(judged, &rows[i])
		}
	}
	bottom := svgTop + len(judged)*svgRow
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n",
		svgWidth, bottom+10, svgWidth, bottom+10)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", "Ratios as parts of their targets", svgStyle)
	target := svgLabels + svgPerUnit
	svgText(&b, "head", 8, 20, "start", "Ratio, as a part of its target")
	svgText(&b, "small", 8, 36, "start", "longer is better; the thin line is from quartile to quartile")
	svgText(&b, "head", target, 20, "middle", "target")
	fmt.Fprintf(&b, `<line class="target" x1="%.1f" y1="26" x2="%.1f" y2="%d"/>`+"\n", target, target, bottom)
	for i, r := range judged {
		r.draw(&b, svgTop+i*svgRow)
	}
	b.WriteString("</svg>\n")
	return []byte(b.String())
}

// draw draws a row whose upper end is at y.
func (r *Row) draw(b *strings.Builder, y int) {
	x := func(value float64) float64 {
		return svgLabels + svgPerUnit*max(0, min(r.Target.attained(value), svgScale))
	}
	class := "met"
	if r.Verdict == Missed {
		class = "missed"
	}
	svgText(b, "", 8, float64(y+14), "start", r.What)
	svgText(b, "small", 8, float64(y+28), "start", "compared with "+r.Against)
	end := x(r.Value.Median)
	middle := float64(y) + 6 + svgBar/2
	fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/>`+"\n",
		class, svgLabels, y+6, end-svgLabels, svgBar)
	low, high := x(r.Value.Q1), x(r.Value.Q3)
	fmt.Fprintf(b, `<line class="spread" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", low, middle, high, middle)
	value := fmt.Sprintf("%s × (%s)", number(r.Value.Median), strings.TrimSuffix(r.target(), " ×"))
	if r.Target.attained(r.Value.Median) > svgScale {
		value = "… " + value
	}
	svgText(b, "", svgWidth-8, middle+4, "end", value)
}

func svgText(b *strings.Builder, class string, x, y float64, anchor, text string) {
	fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%.1f" text-anchor="%s">`, class, x, y, anchor)
	// A strings.Builder takes everything.
	_ = xml.EscapeText(b, []byte(text))
	b.WriteString("</text>\n")
}
