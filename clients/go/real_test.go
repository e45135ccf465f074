package sdgrpc_test

import (
	"context"
	"testing"
	"time"
)

// One server for all of it, since it takes its time to start. The table ends with the server's end.
func TestAgainstARealServer(t *testing.T) {
	table := readTable(t)
	server := startServer(t, table.Server.Arguments)
	t.Run("it is ready", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := connect(t, server.target).WaitUntilReady(ctx); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("contract", func(t *testing.T) { runTable(t, server, table.Cases) })
}
