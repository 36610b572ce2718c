// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/sockmeta/sockmeta-go/internal/demo"
)

func runDemo(ctx context.Context) error {
	return demo.Run(ctx, os.Stdout, func(ctx context.Context, lab *demo.Lab) error {
		err := lab.Serve(func(addr string) (func() error, error) {
			l, err := listen(addr)
			if err != nil {
				return nil, err
			}
			return func() error {
				return serve(ctx, l, func(m message) {
					opening := demo.NewRecord(m.opening.metadata, m.opening.err)
					lab.Saw(demo.Seen{
						Message: string(m.data),
						From:    demo.Addr(m.conn.RemoteAddr()),
						Port:    demo.Addr(m.conn.LocalAddr()).Port(),
						Bytes:   len(m.data),
						Record:  demo.NewRecord(m.last.metadata, m.last.err),
						Opening: &opening,
						Sender:  demo.NewSender(m.last.metadata, m.last.err),
						Reply:   demo.NewRecord(m.reply, nil),
					})
				})
			}, l.Support().Err()
		})
		if err != nil {
			return err
		}
		return lab.Echo(ctx, "tcp", 3)
	})
}
