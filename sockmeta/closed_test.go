// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const modulePath = "github.com/sockmeta/sockmeta-go/"

// exported returns the names that a directory's package exports, by kind.
func exported(t *testing.T, dir string) map[string]token.Token {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: %v, %v", dir, files, err)
	}
	names := make(map[string]token.Token)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, s := range g.Specs {
				switch s := s.(type) {
				case *ast.ValueSpec:
					for _, n := range s.Names {
						if n.IsExported() {
							names[n.Name] = g.Tok
						}
					}
				case *ast.TypeSpec:
					if s.Name.IsExported() {
						names[s.Name.Name] = g.Tok
					}
				}
			}
		}
	}
	return names
}

// TestClosedTypes has a name here for each of our types that a user of this package gets
// in his hands.
func TestClosedTypes(t *testing.T) {
	here := exported(t, ".")
	seen := make(map[reflect.Type]bool)
	var visit func(t reflect.Type)
	visit = func(typ reflect.Type) {
		if seen[typ] {
			return
		}
		seen[typ] = true
		own, ok := strings.CutPrefix(typ.PkgPath(), modulePath)
		// What is internal nobody else can name.
		if ok && !strings.HasPrefix(own, "internal/") && here[typ.Name()] != token.TYPE {
			t.Errorf("%s.%s has no name in package sockmeta", own, typ.Name())
		}
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Chan, reflect.Map:
			visit(typ.Elem())
		case reflect.Func:
			for i := range typ.NumIn() {
				visit(typ.In(i))
			}
			for i := range typ.NumOut() {
				visit(typ.Out(i))
			}
		case reflect.Struct:
			for i := range typ.NumField() {
				if f := typ.Field(i); f.IsExported() {
					visit(f.Type)
				}
			}
		}
		if strings.HasPrefix(typ.PkgPath(), modulePath) {
			for _, t := range []reflect.Type{typ, reflect.PointerTo(typ)} {
				for i := range t.NumMethod() {
					visit(t.Method(i).Type)
				}
			}
		}
	}
	for _, root := range []any{
		(*UDPConn)(nil), (*TCPConn)(nil), (*TCPListener)(nil), (*ListenConfig)(nil), (*Dialer)(nil), (*Message)(nil), (*Metadata)(nil),
	} {
		visit(reflect.TypeOf(root))
	}
	if len(seen) < 20 {
		t.Errorf("%d types were seen", len(seen))
	}
}

// TestClosedValues has a name here for each flag, key, format, tier and error of the
// packages below.
func TestClosedValues(t *testing.T) {
	here := exported(t, ".")
	values := 0
	for _, dir := range []string{"cmsg", "conn"} {
		for name, kind := range exported(t, filepath.Join("..", dir)) {
			for _, prefix := range []string{"Flag", "Key", "Format", "Tier", "Segments", "Err"} {
				if !strings.HasPrefix(name, prefix) || kind == token.TYPE || name == prefix {
					continue
				}
				values++
				if here[name] != kind {
					t.Errorf("%s.%s has no name in package sockmeta", dir, name)
				}
			}
		}
	}
	if values < 30 {
		t.Errorf("%d values were found", values)
	}
}
