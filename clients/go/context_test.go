package sdgrpc_test

import (
	"context"
	"testing"
)

// testContext ends with the test, as testing's own does from Go 1.24 on.
func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return ctx
}
