package sdgrpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// vanishing stands before a server and passes bytes on until `gone` is set; then it takes them and is silent,
// as a machine without power would be.
func vanishing(t *testing.T, target string, gone *atomic.Bool) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	pass := func(to, from net.Conn) {
		defer to.Close()
		data := make([]byte, 1<<16)
		for {
			count, err := from.Read(data)
			if err != nil {
				return
			}
			if !gone.Load() {
				to.Write(data[:count])
			}
		}
	}
	go func() {
		for {
			outside, err := listener.Accept()
			if err != nil {
				return
			}
			inside, err := net.Dial("tcp", target)
			if err != nil {
				outside.Close()
				return
			}
			go pass(inside, outside)
			go pass(outside, inside)
		}
	}()
	return listener.Addr().String()
}

// A server that vanishes while a job waits, without a word, is noticed: its pings are not answered.
func TestKeepAliveFindsAServerThatVanished(t *testing.T) {
	t.Cleanup(sdgrpc.SetKeepAlive(10*time.Second, time.Second)) // gRPC takes no shorter interval
	ended := make(chan struct{})
	server := &fakeServer{generate: func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.JobEvent]) error {
		if err := stream.Send(imageEvent(0, nil)); err != nil {
			return err
		}
		<-ended
		return nil
	}}
	var gone atomic.Bool
	client := connect(t, vanishing(t, server.serve(t, nil), &gone))
	t.Cleanup(func() { close(ended) })
	ctx, cancel := context.WithTimeout(testContext(t), 2*time.Minute)
	defer cancel()
	var failure *sdgrpc.Error
	for _, err := range client.Generate(ctx, &pb.GenerateRequest{Prompt: "a star"}) {
		gone.Store(true)
		if err != nil && !errors.As(err, &failure) && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	if failure == nil || failure.Code != codes.Unavailable {
		t.Errorf("%v", failure)
	}
}
