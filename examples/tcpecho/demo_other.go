// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"context"
	"errors"
)

func runDemo(context.Context) error { return errors.New("-demo needs Linux") }
