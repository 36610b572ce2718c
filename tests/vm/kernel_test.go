// SPDX-License-Identifier: Apache-2.0

package main

import "testing"

func TestNewestRelease(t *testing.T) {
	packages := []string{
		"linux-image-6.1.0-9-cloud-amd64",
		"linux-image-6.1.0-50-cloud-amd64",
		"linux-image-6.1.0-50-cloud-amd64-unsigned",
		"linux-image-6.1.0-60-amd64",
		"linux-image-6.12.107+deb13-cloud-amd64",
		"linux-image-6.12.94+deb13-cloud-amd64",
		"linux-image-6.12.107+deb13-cloud-amd64-dbg",
		"linux-image-7.0.13+deb13-cloud-amd64",
	}
	for series, want := range map[string]string{
		"6.1":  "6.1.0-50-cloud-amd64",
		"6.12": "6.12.107+deb13-cloud-amd64",
		"7.0":  "7.0.13+deb13-cloud-amd64",
	} {
		if got, err := newestRelease(packages, series); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", series, got, err, want)
		}
	}
	if got, err := newestRelease(packages, "7.3"); err == nil {
		t.Errorf("7.3: %s, want none", got)
	}
}
