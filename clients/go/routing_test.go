package sdgrpc_test

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// A line of tests/contract/routing.json.
type routingCase struct {
	Name     string
	Request  json.RawMessage
	Metadata map[string]string
}

func readRouting(t *testing.T) (cases []routingCase) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root(t), "tests/contract/routing.json"))
	if err == nil {
		err = json.Unmarshal(text, &cases)
	}
	if err != nil || len(cases) == 0 {
		t.Fatal(err, len(cases))
	}
	return cases
}

// recording is a client whose calls end before they are sent, and what they would have sent.
func recording(t *testing.T) (*sdgrpc.Client, *metadata.MD) {
	t.Helper()
	sent := &metadata.MD{}
	refused := status.Error(codes.Unimplemented, "it only records")
	keep := func(ctx context.Context) error {
		*sent, _ = metadata.FromOutgoingContext(ctx)
		return refused
	}
	client, err := sdgrpc.New("127.0.0.1:1", sdgrpc.WithDialOptions(
		grpc.WithUnaryInterceptor(func(
			ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption,
		) error {
			return keep(ctx)
		}),
		grpc.WithStreamInterceptor(func(
			ctx context.Context, _ *grpc.StreamDesc, _ *grpc.ClientConn, _ string, _ grpc.Streamer,
			_ ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			return nil, keep(ctx)
		}),
	))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, sent
}

// routes is what of the metadata is about routing.
func routes(sent metadata.MD) map[string]string {
	found := map[string]string{}
	for key, values := range sent {
		if key == "x-sdgrpc-lora-set" || key == "x-sdgrpc-job" {
			found[key] = values[0]
		}
	}
	return found
}

// Each request says of its set and its kept job what the table says, whatever draws it.
func TestCallsTellWhereTheyBelong(t *testing.T) {
	client, sent := recording(t)
	for _, each := range readRouting(t) {
		for _, request := range []proto.Message{
			&pb.GenerateRequest{}, &pb.TransformRequest{}, &pb.InpaintRequest{},
		} {
			if err := protojson.Unmarshal(each.Request, request); err != nil {
				t.Fatal(err)
			}
			_, _ = read(start(testContext(t), client, request))
			if !maps.Equal(routes(*sent), each.Metadata) {
				t.Errorf("%s: %T tells %v", each.Name, request, routes(*sent))
			}
		}
	}
}

// PrepareLoras goes where the jobs will; all calls about a kept job go to one server, and the others anywhere.
func TestOtherCallsTellWhereTheyBelong(t *testing.T) {
	client, sent := recording(t)
	ctx, id := testContext(t), "contract keep"
	loras := []*pb.Lora{{Source: &pb.Lora_Name{Name: "postcard"}, Strength: proto.Float32(0.75)}}
	set := map[string]string{"x-sdgrpc-lora-set": "0ac6d11f55877e080b950120876286d9"}
	job := map[string]string{"x-sdgrpc-job": "0a8c7aee0f4d8b469ff98e672f783627"}
	for name, call := range map[string]struct {
		make func()
		want map[string]string
	}{
		"PrepareLoras": {func() { _, _ = client.PrepareLoras(ctx, &pb.PrepareLorasRequest{Loras: loras}) }, set},
		"Attach":       {func() { _, _ = read(client.Attach(ctx, &pb.AttachJobRequest{RequestId: id})) }, job},
		"CancelJob":    {func() { _, _ = client.CancelJob(ctx, id) }, job},
		"ListModels":   {func() { _, _ = client.ListModels(ctx) }, map[string]string{}},
	} {
		call.make()
		if !maps.Equal(routes(*sent), call.want) {
			t.Errorf("%s tells %v", name, routes(*sent))
		}
	}
}

// A kept job without an id gets one, so that later calls find its server.
func TestAKeptJobHasAnID(t *testing.T) {
	client, sent := recording(t)
	request := &pb.GenerateRequest{OnDisconnect: pb.OnDisconnect_ON_DISCONNECT_KEEP}
	seen := map[string]bool{}
	for range 2 {
		_, _ = read(client.Generate(testContext(t), request))
		seen[routes(*sent)["x-sdgrpc-job"]] = true
	}
	if len(seen) != 2 || seen[""] || request.RequestId != "" {
		t.Error(seen, request)
	}
}
