// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"testing"
)

func TestResolveModules(t *testing.T) {
	depends := map[string][]string{
		"vxlan":          {"udp_tunnel", "ip6_udp_tunnel"},
		"ip6_udp_tunnel": {"udp_tunnel"},
		"udp_tunnel":     nil,
		"bridge":         {"stp", "llc"},
		"stp":            {"llc"},
		"llc":            {"kernel_itself"},
		"loop1":          {"loop2"},
		"loop2":          {"loop1"},
	}
	lookUp := func(name string) ([]string, error) {
		if name == "kernel_itself" {
			return nil, errBuiltin
		}
		d, ok := depends[name]
		if !ok {
			return nil, fmt.Errorf("no %s", name)
		}
		return d, nil
	}
	for _, tt := range []struct {
		wanted, order []string
	}{
		{nil, nil},
		{[]string{"kernel_itself"}, nil},
		{[]string{"vxlan"}, []string{"udp_tunnel", "ip6_udp_tunnel", "vxlan"}},
		{[]string{"llc", "bridge", "llc"}, []string{"llc", "stp", "bridge"}},
		{[]string{"loop1"}, []string{"loop2", "loop1"}},
	} {
		if got, err := resolveModules(tt.wanted, lookUp); err != nil || !slices.Equal(got, tt.order) {
			t.Errorf("%v: %v, %v, want %v", tt.wanted, got, err, tt.order)
		}
	}
	if _, err := resolveModules([]string{"bridge", "nothing"}, lookUp); err == nil || errors.Is(err, errBuiltin) {
		t.Errorf("unknown module: %v", err)
	}
}

func TestParseDepends(t *testing.T) {
	for info, want := range map[string][]string{
		"":                                  nil,
		"license=GPL\x00depends=\x00name=x": nil,
		"alias=depends=y\x00\x00\x00depends=udp_tunnel,ip6-udp-tunnel\x00": {"udp_tunnel", "ip6_udp_tunnel"},
	} {
		if got := parseDepends([]byte(info)); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", info, got, want)
		}
	}
}
