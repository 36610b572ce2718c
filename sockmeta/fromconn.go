// SPDX-License-Identifier: Apache-2.0

package sockmeta

import (
	"net"
	"reflect"
)

// maxWrappers bounds the search of FromConn: a wrapper may wrap itself.
const maxWrappers = 16

// FromConn returns the TCPConn below c: for http.Server.ConnContext and the like.
// It looks through wrappers that have a NetConn method, as tls.Conn does, and
// through structs that embed a connection, as those of gRPC's credentials and of
// golang.org/x/net/netutil do, up to 16 deep.
//
// Its cost is that of a few type checks, and of reflection where structs are
// looked into: do it once a connection.
func FromConn(c net.Conn) (*TCPConn, bool) {
	t, ok := lowest(c).(*TCPConn)
	return t, ok && t != nil
}

// lowest returns the TCPConn or net.TCPConn below c, nil if there is none.
func lowest(c net.Conn) net.Conn {
	for range maxWrappers {
		switch c.(type) {
		case *TCPConn, *net.TCPConn:
			return c
		}
		if c = below(c); c == nil {
			break
		}
	}
	return nil
}

// below returns the connection that c wraps, nil where none is to be found.
func below(c net.Conn) net.Conn {
	v := reflect.ValueOf(c)
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		v = v.Elem()
	}
	if w, ok := c.(interface{ NetConn() net.Conn }); ok {
		return w.NetConn()
	}
	if v.Kind() != reflect.Struct {
		return nil
	}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.Anonymous || !field.IsExported() {
			continue
		}
		if inner, ok := v.Field(i).Interface().(net.Conn); ok {
			return inner
		}
	}
	return nil
}
