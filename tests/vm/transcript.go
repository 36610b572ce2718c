// SPDX-License-Identifier: Apache-2.0

package main

import "strings"

// transcript is what a virtual machine has reported.
type transcript struct {
	// release is the kernel's, or empty if it hasn't got as far as that.
	release  string
	sections []*section
	errors   []string
	done     bool
}

// section is what a package's test binary has printed.
type section struct {
	pkg    string
	output strings.Builder
	// ended is how the binary has, or empty if it hasn't.
	ended string
}

// add takes the next line, with its end.
func (t *transcript) add(line string) {
	rest, marked := strings.CutPrefix(line, reportMark)
	if !marked {
		if s := t.open(); s != nil {
			s.output.WriteString(line)
		}
		return
	}
	word, what, _ := strings.Cut(strings.TrimSpace(rest), " ")
	switch word {
	case reportBoot:
		t.release = what
	case reportBegin:
		t.sections = append(t.sections, &section{pkg: what})
	case reportEnd:
		if s := t.open(); s != nil {
			s.ended = what
		}
	case reportError:
		t.errors = append(t.errors, what)
	case reportDone:
		t.done = true
	}
}

// open returns the section that hasn't ended, if any.
func (t *transcript) open() *section {
	if n := len(t.sections); n != 0 && t.sections[n-1].ended == "" {
		return t.sections[n-1]
	}
	return nil
}
