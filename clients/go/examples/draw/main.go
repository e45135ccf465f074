// Command draw draws with two LoRAs, shows the progress, and saves every preview and the picture.
//
//	go run ./examples/draw -server localhost:50051 -output drawn
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"

	"google.golang.org/protobuf/proto"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

func main() {
	server := flag.String("server", "localhost:50051", "HOST:PORT")
	prompt := flag.String("prompt", "a red star on a blue background", "what to draw")
	first := flag.String("first", "postcard", "a LoRA, at strength 0.75")
	second := flag.String("second", "sepia", "another, at strength 0.5")
	seed := flag.Int64("seed", 7, "the picture's seed")
	output := flag.String("output", "drawn", "folder for the pictures")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt) // Ctrl-C cancels the job
	defer stop()
	request := &pb.GenerateRequest{
		Prompt: *prompt,
		Loras: []*pb.Lora{
			{Source: &pb.Lora_Name{Name: *first}, Strength: proto.Float32(0.75)},
			{Source: &pb.Lora_Name{Name: *second}, Strength: proto.Float32(0.5)},
		},
		Sampling: &pb.Sampling{Steps: 20, Seed: seed},
		Output: &pb.Output{
			Preview: &pb.PreviewOptions{Kind: pb.PreviewKind_PREVIEW_KIND_PICTURE, EveryNSteps: 5, MaxSide: 128},
		},
	}
	if err := draw(ctx, *server, request, *output); err != nil {
		explain(err)
		os.Exit(1)
	}
}

func draw(ctx context.Context, server string, request *pb.GenerateRequest, folder string) error {
	client, err := sdgrpc.New(server, sdgrpc.WithToken(os.Getenv("SDGRPC_TOKEN")))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for event, err := range client.Generate(ctx, request) {
		if err != nil {
			return err
		}
		if err := show(event, folder); err != nil {
			return err
		}
	}
	return nil
}

// show says in a line what happened, and saves the pictures in it.
func show(event sdgrpc.Event, folder string) error {
	switch event := event.(type) {
	case *sdgrpc.Accepted:
		fmt.Printf("accepted: %d steps, %d jobs before it\n", event.StepCount, event.QueuePosition)
	case *sdgrpc.Prepared:
		for _, lora := range event.Loras {
			fmt.Printf("LoRA %s at %.2f changes its weights by %.1f %%\n", lora.Name, lora.Strength, 100*lora.RelativeNorm)
		}
	case *sdgrpc.Progress:
		fmt.Printf("step %d of %d, %.1f s left\n", event.Step, event.StepCount, event.Remaining.AsDuration().Seconds())
		for _, preview := range event.Previews {
			name := fmt.Sprintf("preview-%d-%02d.png", preview.ImageIndex, event.Step)
			if err := save(filepath.Join(folder, name), preview.GetPicture().GetData()); err != nil {
				return err
			}
		}
	case *sdgrpc.GeneratedImage:
		return save(filepath.Join(folder, fmt.Sprintf("picture-%d.png", event.Seed)), event.Image.GetData())
	case *sdgrpc.Finished:
		fmt.Printf("drawn in %.1f s\n", event.Denoised.AsDuration().Seconds())
	}
	return nil
}

func save(path string, data []byte) error {
	fmt.Println("saved", path)
	return os.WriteFile(path, data, 0o644)
}

// explain prints all that is known about a failure.
func explain(err error) {
	fmt.Fprintln(os.Stderr, "error:", err)
	var failure *sdgrpc.Error
	if !errors.As(err, &failure) {
		return
	}
	for _, violation := range failure.Violations {
		fmt.Fprintf(os.Stderr, "  %s: %s\n", violation.Field, violation.Description)
	}
	if failure.Resource != nil {
		fmt.Fprintf(os.Stderr, "  not found: %s %s\n", failure.Resource.Type, failure.Resource.Name)
	}
	if failure.RetryAfter > 0 {
		fmt.Fprintf(os.Stderr, "  try again in %s\n", failure.RetryAfter)
	}
}
