// SPDX-License-Identifier: Apache-2.0

package clients

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docImports are the packages that the documentation uses, by their names there.
var docImports = map[string]string{
	"context":     "context",
	"credentials": "google.golang.org/grpc/credentials",
	"device":      "golang.zx2c4.com/wireguard/device",
	"dns":         "github.com/miekg/dns",
	"fmt":         "fmt",
	"grpc":        "google.golang.org/grpc",
	"http":        "net/http",
	"http3":       "github.com/quic-go/quic-go/http3",
	"ice":         "github.com/pion/ice/v4",
	"log":         "log",
	"net":         "net",
	"netip":       "net/netip",
	"quic":        "github.com/quic-go/quic-go",
	"sockmeta":    "github.com/sockmeta/sockmeta-go/sockmeta",
	"stats":       "google.golang.org/grpc/stats",
	"tls":         "crypto/tls",
	"tun":         "golang.zx2c4.com/wireguard/tun",
	"wgbind":      "github.com/sockmeta/sockmeta-go/tests/clients/wgbind",
}

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// TestDocs compiles each block of Go in docs/clients.md, as a package of its
// own that is in this module by go's -overlay alone.
func TestDocs(t *testing.T) {
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip(err)
	}
	const doc = "../../docs/clients.md"
	text, err := os.ReadFile(doc)
	must(t, err)
	blocks := goBlock.FindAllStringSubmatchIndex(string(text), -1)
	if len(blocks) < 8 {
		t.Errorf("%d blocks of Go in %s", len(blocks), doc)
	}
	here, err := os.Getwd()
	must(t, err)
	dir := t.TempDir()
	overlay := make(map[string]string)
	var packages []string
	for i, at := range blocks {
		block := string(text[at[2]:at[3]])
		line := 1 + strings.Count(string(text[:at[2]]), "\n")
		var b strings.Builder
		b.WriteString("package doc\n\n")
		for _, name := range packagesOf(t, block) {
			fmt.Fprintf(&b, "import %s %q\n", name, docImports[name])
		}
		fmt.Fprintf(&b, "\n//line %s:%d\n%s", filepath.Base(doc), line, block)
		file := filepath.Join(dir, fmt.Sprintf("%d.go", i))
		must(t, os.WriteFile(file, []byte(b.String()), 0o644))
		name := fmt.Sprintf("doc%d", i)
		overlay[filepath.Join(here, name, "doc.go")] = file
		packages = append(packages, "./"+name)
	}
	config, err := json.Marshal(map[string]any{"Replace": overlay})
	must(t, err)
	configFile := filepath.Join(dir, "overlay.json")
	must(t, os.WriteFile(configFile, config, 0o644))
	args := append([]string{"build", "-overlay", configFile}, packages...)
	if out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput(); err != nil {
		t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// packagesOf returns the packages that a block uses. One that is not among the test's
// the compiler will call undefined.
func packagesOf(t *testing.T, block string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "block.go", "package doc\n"+block, 0)
	must(t, err)
	var names []string
	ast.Inspect(f, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if id, ok := selector.X.(*ast.Ident); ok && docImports[id.Name] != "" && !slices.Contains(names, id.Name) {
			names = append(names, id.Name)
		}
		return true
	})
	return names
}
