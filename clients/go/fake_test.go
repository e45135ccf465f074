package sdgrpc_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	pb "example.com/sdgrpc/v1"
)

// fakeServer answers in this process with what a test tells it; what it is not told is Unimplemented.
type fakeServer struct {
	pb.UnimplementedDiffusionServiceServer
	pb.UnimplementedCatalogServiceServer
	pb.UnimplementedJobServiceServer
	pb.UnimplementedClusterServiceServer
	health *health.Server

	generate  func(*pb.GenerateRequest, grpc.ServerStreamingServer[pb.JobEvent]) error
	listLoras func(*pb.ListLorasRequest) *pb.ListLorasResponse
	listJobs  func(*pb.ListJobsRequest) *pb.ListJobsResponse
	upload    func(grpc.ClientStreamingServer[pb.UploadLoraRequest, pb.UploadLoraResponse]) error
}

func (f *fakeServer) Generate(
	request *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.JobEvent],
) error {
	return f.generate(request, stream)
}

func (f *fakeServer) ListLoras(_ context.Context, request *pb.ListLorasRequest) (*pb.ListLorasResponse, error) {
	return f.listLoras(request), nil
}

func (f *fakeServer) ListEmbeddings(
	_ context.Context, request *pb.ListEmbeddingsRequest,
) (*pb.ListEmbeddingsResponse, error) {
	return &pb.ListEmbeddingsResponse{Embeddings: []*pb.Embedding{{Name: request.GetModel(), VectorCount: 2}}}, nil
}

func (f *fakeServer) DrainReplicas(
	_ context.Context, request *pb.DrainReplicasRequest,
) (*pb.DrainReplicasResponse, error) {
	return &pb.DrainReplicasResponse{Replicas: []string{request.GetName() + "-0"}}, nil
}

func (f *fakeServer) ScaleReplicas(
	_ context.Context, request *pb.ScaleReplicasRequest,
) (*pb.ScaleReplicasResponse, error) {
	return &pb.ScaleReplicasResponse{Replicas: 10*request.GetLeast() + request.GetMost()}, nil
}

func (f *fakeServer) ListModels(context.Context, *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
	return &pb.ListModelsResponse{Upscalers: []*pb.Upscaler{{Name: "large", Scale: 4}}}, nil
}

func (f *fakeServer) Upscale(
	request *pb.UpscaleRequest, stream grpc.ServerStreamingServer[pb.UpscaleEvent],
) error {
	accepted := &pb.UpscaleEvent_Accepted{Accepted: &pb.UpscaleAccepted{Upscaler: request.GetUpscaler()}}
	if err := stream.Send(&pb.UpscaleEvent{Event: accepted}); err != nil {
		return err
	}
	return stream.Send(&pb.UpscaleEvent{Event: &pb.UpscaleEvent_Image{Image: &pb.Image{Data: []byte{7}}}})
}

func (f *fakeServer) ListJobs(_ context.Context, request *pb.ListJobsRequest) (*pb.ListJobsResponse, error) {
	return f.listJobs(request), nil
}

func (f *fakeServer) UploadLora(
	stream grpc.ClientStreamingServer[pb.UploadLoraRequest, pb.UploadLoraResponse],
) error {
	return f.upload(stream)
}

// serve starts it on a free loopback port, with TLS if there is a configuration, and returns HOST:PORT.
func (f *fakeServer) serve(t *testing.T, config *tls.Config) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	security := insecure.NewCredentials()
	if config != nil {
		security = credentials.NewTLS(config)
	}
	server := grpc.NewServer(grpc.Creds(security), grpc.MaxRecvMsgSize(1<<30))
	f.health = health.NewServer()
	pb.RegisterDiffusionServiceServer(server, f)
	pb.RegisterCatalogServiceServer(server, f)
	pb.RegisterJobServiceServer(server, f)
	pb.RegisterClusterServiceServer(server, f)
	healthpb.RegisterHealthServer(server, f.health)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return listener.Addr().String()
}

// failing makes a server whose Generate ends by a status with details.
func failing(code codes.Code, message string, details ...protoadapt.MessageV1) *fakeServer {
	return &fakeServer{generate: func(*pb.GenerateRequest, grpc.ServerStreamingServer[pb.JobEvent]) error {
		described, err := status.New(code, message).WithDetails(details...)
		if err != nil {
			return err
		}
		return described.Err()
	}}
}

// telling makes a server whose Generate sends these events and ends.
func telling(events ...*pb.JobEvent) *fakeServer {
	return &fakeServer{generate: func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.JobEvent]) error {
		for _, event := range events {
			if err := stream.Send(event); err != nil {
				return err
			}
		}
		return nil
	}}
}

func imageEvent(index int32, data []byte) *pb.JobEvent {
	image := &pb.GeneratedImage{Index: index, Image: &pb.Image{Data: data}}
	return &pb.JobEvent{Event: &pb.JobEvent_Image{Image: image}}
}

func finishedEvent() *pb.JobEvent {
	return &pb.JobEvent{Event: &pb.JobEvent_Finished{Finished: &pb.Finished{}}}
}
