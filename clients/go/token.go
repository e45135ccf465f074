package sdgrpc

import (
	"context"
	"fmt"
	"strings"
)

// WithToken sends `authorization: Bearer TOKEN` with every call; an empty token sends nothing. Without TLS
// whoever sees the traffic can read it: leave TLS out on the loopback and on Unix sockets only.
func WithToken(token string) Option {
	return func(chosen *options) { chosen.token = bearer(token) }
}

// bearer implements credentials.PerRPCCredentials.
type bearer string

// valid tells whether a header can carry it; the failure does not quote it.
func (b bearer) valid() error {
	if strings.ContainsFunc(string(b), func(char rune) bool { return char <= ' ' || char > '~' }) {
		return fmt.Errorf("the token must be printable ASCII without spaces")
	}
	return nil
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (b bearer) RequireTransportSecurity() bool { return false }

// String keeps it out of whatever is printed.
func (b bearer) String() string { return "(a token)" }

// GoString keeps it out of %#v.
func (b bearer) GoString() string { return b.String() }
