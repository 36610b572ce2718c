// SPDX-License-Identifier: Apache-2.0

package include_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sockmeta/sockmeta-go/internal/testutil"
)

const (
	guide  = "../../docs/guide-c.md"
	module = "github.com/sockmeta/sockmeta-go"
)

// blocks returns the guide's blocks of a language.
func blocks(t *testing.T, language string) (texts []string) {
	t.Helper()
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllSubmatch(text, -1) {
		texts = append(texts, string(m[1]))
	}
	return texts
}

// need returns the path of a program that is installed.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		testutil.Skip(t, err.Error())
	}
	return path
}

// A theirs is a module of somebody else's, which has this one as it is here.
type theirs struct {
	t   *testing.T
	dir string
}

func newTheirs(t *testing.T, files map[string]string) theirs {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	ebpf := regexp.MustCompile(`github\.com/cilium/ebpf v\S+`)
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	th := theirs{t, t.TempDir()}
	th.write("go.sum", string(sum))
	th.write("go.mod", fmt.Sprintf("module example.org/theirs\n\ngo 1.26.0\n\nrequire %s v0.0.0\n\nrequire %s\n\n"+
		"tool github.com/cilium/ebpf/cmd/bpf2go\n\nreplace %[1]s => %[3]s\n", module, ebpf.Find(mod), root))
	for name, text := range files {
		th.write(name, text)
	}
	th.run("go", "mod", "tidy")
	return th
}

func (th theirs) write(name, text string) {
	th.t.Helper()
	if err := os.WriteFile(filepath.Join(th.dir, name), []byte(text), 0o600); err != nil {
		th.t.Fatal(err)
	}
}

// run runs a command in the module's directory and returns its output.
func (th theirs) run(name string, args ...string) string {
	th.t.Helper()
	cmd := exec.CommandContext(th.t.Context(), name, args...)
	cmd.Dir = th.dir
	// Neither this tree's workspace nor anybody's flags are about their module.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "BPF2GO_CC=clang-19", "BPF2GO_STRIP=llvm-strip-19")
	out, err := cmd.CombinedOutput()
	if err != nil {
		th.t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestGuideVendor has a module keep the headers by importing the package.
func TestGuideVendor(t *testing.T) {
	need(t, "go")
	imports := blocks(t, "go")[0]
	th := newTheirs(t, map[string]string{"theirs.go": "package theirs\n\n" + imports})
	th.run("go", "mod", "vendor")
	got := th.run("go", "list", "-f", "{{.Dir}}", module+"/bpf/include")
	want, err := filepath.EvalSymlinks(filepath.Join(th.dir, "vendor", filepath.FromSlash(module), "bpf", "include"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err = filepath.EvalSymlinks(got); err != nil || got != want {
		t.Errorf("the headers are in %s, want %s: %v", got, want, err)
	}
	checkDir(t, want)
}

// TestGuideGenerate compiles the guide's BPF programs as a module of somebody else's, by
// the guide's commands.
func TestGuideGenerate(t *testing.T) {
	need(t, "go")
	need(t, "clang-19")
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	directive := regexp.MustCompile(`//go:generate [^\x60]*`).FindString(string(text))
	commands := blocks(t, "sh")
	if directive == "" || len(commands) != 1 {
		t.Fatalf("the guide has the directive %q and commands %q", directive, commands)
	}
	var programs int
	for _, block := range blocks(t, "c") {
		if !strings.Contains(block, "SEC(") {
			continue
		}
		programs++
		th := newTheirs(t, map[string]string{
			"theirs.go": "package theirs\n\n" + blocks(t, "go")[0] + "\n" + directive + "\n",
			// As the guide says: Go refuses C files beside its own.
			"source.bpf.c": "//go:build ignore\n\n" + block,
		})
		th.run("sh", "-ec", commands[0])
		for _, object := range []string{"source_bpfel.o", "source_bpfeb.o"} {
			if _, err := os.Stat(filepath.Join(th.dir, object)); err != nil {
				t.Error(err)
			}
		}
		th.run("go", "mod", "tidy")
		th.run("go", "build", "./...")
	}
	if programs != 2 {
		t.Errorf("the guide has %d BPF programs, want 2", programs)
	}
}

// TestGuideApplications compiles what the guide has for applications.
func TestGuideApplications(t *testing.T) {
	cc := need(t, "cc")
	var programs int
	for _, block := range blocks(t, "c") {
		if strings.Contains(block, "SEC(") {
			continue
		}
		programs++
		cmd := exec.CommandContext(t.Context(), cc, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", ".", "-x", "c", "-")
		cmd.Stdin = strings.NewReader(block)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s\n%s", err, out, block)
		}
	}
	if programs != 1 {
		t.Errorf("the guide has %d applications, want 1", programs)
	}
}
