package sdgrpc_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// A token goes along with every call, streams too; without one there is no header.
func TestTokenIsSent(t *testing.T) {
	for _, token := range []string{"", "s3cret"} {
		var seen []string
		server := &fakeServer{generate: func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.JobEvent]) error {
			seen = metadata.ValueFromIncomingContext(stream.Context(), "authorization")
			return stream.Send(finishedEvent())
		}}
		client, err := sdgrpc.New(server.serve(t, nil), sdgrpc.WithToken(token))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sdgrpc.Collect(client.Generate(testContext(t), &pb.GenerateRequest{Prompt: "a star"})); err != nil {
			t.Fatal(err)
		}
		client.Close()
		if expected := map[string]string{"": "", "s3cret": "Bearer s3cret"}[token]; strings.Join(seen, "|") != expected {
			t.Errorf("%q instead of %q", seen, expected)
		}
	}
}

// A token that a header cannot carry is refused at once, without being quoted; none is ever printed.
func TestTokenIsSecret(t *testing.T) {
	for _, token := range []string{"two words", "s3cret\n", "s\u00e9cret"} {
		if _, err := sdgrpc.New("localhost:1", sdgrpc.WithToken(token)); err == nil || strings.Contains(err.Error(), "cret") {
			t.Errorf("%v", err)
		}
	}
}

// A real server on a socket of its own folder asks for a token; health needs none.
func TestTokenAgainstARealServer(t *testing.T) {
	if os.Getenv("SDGRPC_CONTRACT_SERVER") != "" {
		skip(t, "the server that SDGRPC_CONTRACT_SERVER names may ask for another token")
	}
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("go-client: s3cret-of-go\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "own", "s")
	server := startServer(t, []string{"--listen", "unix:" + socket, "--token-file", tokens})
	if server.target != "unix:"+socket {
		t.Fatal(server.target)
	}
	for _, token := range []string{"", "wrong", "s3cret-of-go"} {
		client, err := sdgrpc.New(server.target, sdgrpc.WithToken(token))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		if err := client.WaitUntilReady(testContext(t)); err != nil {
			t.Fatal(err)
		}
		request := &pb.GenerateRequest{Prompt: "a star", Sampling: &pb.Sampling{Steps: 1}}
		result, drawing := sdgrpc.Collect(client.Generate(testContext(t), request))
		_, listing := client.ListModels(testContext(t))
		if token == "s3cret-of-go" {
			if drawing != nil || listing != nil || len(result.Images) != 1 {
				t.Errorf("%v, %v", drawing, listing)
			}
			continue
		}
		for _, err := range []error{drawing, listing} {
			var failure *sdgrpc.Error
			if !errors.As(err, &failure) || failure.Code != codes.Unauthenticated ||
				failure.Reason != sdgrpc.Unauthenticated || strings.Contains(fmt.Sprint(err), "s3cret") {
				t.Errorf("%v", err)
			}
		}
	}
}
