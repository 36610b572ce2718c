// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/sockmeta/sockmeta-go/cmsg"
	"github.com/sockmeta/sockmeta-go/internal/testprog"
	"github.com/sockmeta/sockmeta-go/sockmeta"
)

// A question is what the application asked for.
type question uint8

const (
	ofRead question = iota
	ofOpening
	ofLatest
	ofDatagram
	questions
)

var questionNames = [questions]string{"Metadata", "OpeningMetadata", "LatestMetadata", "ReadMetadata"}

func (q question) String() string { return questionNames[q] }

// An outcome is what an answer is worth. All but wrong are allowed.
type outcome uint8

const (
	wrong        outcome = iota // another's, and nothing says that it may be
	right                       // and without a word of doubt
	rightInDoubt                // with a flag
	wrongInDoubt                // with a flag
	undecided                   // the bytes are too few to tell
	untagged                    // a record without an area
	overrun
	noMetadata
	notSupported
	outcomes
)

var outcomeNames = [outcomes]string{
	"WRONG", "right", "right, flagged", "wrong, flagged", "undecided", "no area", "ErrOverrun", "ErrNoMetadata",
	"ErrNotSupported",
}

func (o outcome) String() string { return outcomeNames[o] }

// plainFlags say nothing about whose record it may be. One that GRO made is of one
// of its segments, and those have one tag.
const plainFlags = cmsg.FlagUnanchored | cmsg.FlagDecapsulated | cmsg.FlagUnreadable | cmsg.FlagSynAck |
	cmsg.FlagTruncated | cmsg.FlagSenderLost | cmsg.FlagAggregate

// An answer is what the application got.
type answer struct {
	question question
	// failed is what the error is, wrong where there is a record.
	failed outcome
	flags  cmsg.Flags
	tag    uint32 // 0: none
	// read is how many bytes had been read.
	read int32
	// after is the newest frame that the wire had sent when the answer was there.
	after uint32
}

func (a *answer) doubtful() bool { return a.flags&^plainFlags != 0 }

// toAnswer returns an error that is none of those that metadata calls may return.
func toAnswer(q question, md *sockmeta.Metadata, err error) (answer, error) {
	a := answer{question: q}
	switch {
	case errors.Is(err, sockmeta.ErrOverrun):
		a.failed = overrun
	case errors.Is(err, sockmeta.ErrNoMetadata):
		a.failed = noMetadata
	case errors.Is(err, sockmeta.ErrNotSupported):
		a.failed = notSupported
	case err != nil:
		return a, err
	default:
		a.flags = md.Flags()
		a.tag, _ = md.Uint32(testprog.KeyTag)
		if a.tag == 0 {
			a.failed = untagged
		}
	}
	return a, nil
}

// weigh turns whether a record is the right one into an outcome.
func (a *answer) weigh(isRight bool) outcome {
	switch {
	case isRight && a.doubtful():
		return rightInDoubt
	case isRight:
		return right
	case a.doubtful():
		return wrongInDoubt
	}
	return wrong
}
