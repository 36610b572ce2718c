// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestTranscript(t *testing.T) {
	var tr transcript
	for line := range strings.SplitAfterSeq("firmware\n"+
		"\n\x01vm boot 7.3.4\n"+
		"\n\x01vm error module x: no such file\n"+
		"\n\x01vm begin p/a\n"+
		"one\nnot in front: \x01vm end\ntwo without an end"+
		"\n\x01vm end exit status 1\n"+
		"between\n"+
		"\n\x01vm begin p/b\nthree\n", "\n") {
		tr.add(line)
	}
	if tr.release != "7.3.4" || tr.done || !slices.Equal(tr.errors, []string{"module x: no such file"}) {
		t.Errorf("got %+v", tr)
	}
	if len(tr.sections) != 2 {
		t.Fatalf("%d sections, want 2", len(tr.sections))
	}
	a, b := tr.sections[0], tr.sections[1]
	if a.pkg != "p/a" || a.ended != "exit status 1" || a.output.String() != "one\nnot in front: \x01vm end\ntwo without an end\n" {
		t.Errorf("first: %s, %q, %q", a.pkg, a.ended, a.output.String())
	}
	if b.pkg != "p/b" || b.ended != "" || b.output.String() != "three\n" {
		t.Errorf("second: %s, %q, %q", b.pkg, b.ended, b.output.String())
	}
	tr.add("\x01vm end exit status 0\n")
	tr.add("\x01vm done \n")
	if b.ended != exitedOK || !tr.done {
		t.Errorf("at the end: %q, %v", b.ended, tr.done)
	}
}
