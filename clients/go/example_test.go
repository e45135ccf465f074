package sdgrpc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

// drawingServer stands for a server in the examples: it draws a picture of three bytes in two steps.
func drawingServer() (target string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	fake := &fakeServer{
		generate: func(request *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.JobEvent]) error {
			if request.Prompt == "" {
				return status.Error(codes.InvalidArgument, "what shall it show?")
			}
			for _, event := range []*pb.JobEvent{
				{Event: &pb.JobEvent_Accepted{Accepted: &pb.Accepted{}}},
				{Event: &pb.JobEvent_Prepared{Prepared: &pb.Prepared{}}},
				{Event: &pb.JobEvent_Progress{Progress: &pb.Progress{Step: 1, StepCount: 2}}},
				{Event: &pb.JobEvent_Progress{Progress: &pb.Progress{Step: 2, StepCount: 2}}},
				{Event: &pb.JobEvent_Image{Image: &pb.GeneratedImage{Image: &pb.Image{Data: []byte("PNG")}}}},
				{Event: &pb.JobEvent_Finished{Finished: &pb.Finished{}}},
			} {
				if err := stream.Send(event); err != nil {
					return err
				}
			}
			return nil
		},
		listLoras: func(*pb.ListLorasRequest) *pb.ListLorasResponse {
			return &pb.ListLorasResponse{Loras: []*pb.LoraFile{{Name: "postcard"}, {Name: "sepia"}}}
		},
	}
	pb.RegisterDiffusionServiceServer(server, fake)
	pb.RegisterCatalogServiceServer(server, fake)
	go server.Serve(listener)
	return listener.Addr().String(), server.Stop
}

func ExampleClient_Generate() {
	target, stop := drawingServer()
	defer stop()
	client, err := sdgrpc.New(target)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	request := &pb.GenerateRequest{Prompt: "a red star on a blue background"}
	for event, err := range client.Generate(context.Background(), request) {
		if err != nil {
			log.Fatal(err)
		}
		switch event := event.(type) {
		case *sdgrpc.Progress:
			fmt.Printf("step %d of %d\n", event.Step, event.StepCount)
		case *sdgrpc.GeneratedImage:
			fmt.Printf("%s\n", event.Image.Data)
		}
	}
	// Output:
	// step 1 of 2
	// step 2 of 2
	// PNG
}

func ExampleCollect() {
	target, stop := drawingServer()
	defer stop()
	client, err := sdgrpc.New(target)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	result, err := sdgrpc.Collect(client.Generate(context.Background(), &pb.GenerateRequest{Prompt: "a star"}))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(result.Images))
	// Output: 1
}

func ExampleClient_ListLoras() {
	target, stop := drawingServer()
	defer stop()
	client, err := sdgrpc.New(target)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	for file, err := range client.ListLoras(context.Background(), &pb.ListLorasRequest{}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(file.Name)
	}
	// Output:
	// postcard
	// sepia
}

func ExampleError() {
	target, stop := drawingServer()
	defer stop()
	client, err := sdgrpc.New(target)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	_, err = sdgrpc.Collect(client.Generate(context.Background(), &pb.GenerateRequest{}))
	var failed *sdgrpc.Error
	if errors.As(err, &failed) {
		fmt.Println(failed.Code)
	}
	// Output: InvalidArgument
}
