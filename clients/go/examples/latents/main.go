// Command latents turns LATENT previews into pictures by the factors that the server's catalog gives.
//
//	go run ./examples/latents -server localhost:50051 -output latents
package main

import (
	"context"
	"flag"
	"fmt"
	"image/png"
	"log"
	"os"
	"path/filepath"

	"example.com/sdgrpc"
	pb "example.com/sdgrpc/v1"
)

func main() {
	server := flag.String("server", "localhost:50051", "HOST:PORT")
	prompt := flag.String("prompt", "a red star on a blue background", "what to draw")
	output := flag.String("output", "latents", "folder for the pictures")
	flag.Parse()
	if err := draw(context.Background(), *server, *prompt, *output); err != nil {
		log.Fatal(err)
	}
}

func draw(ctx context.Context, server, prompt, folder string) error {
	client, err := sdgrpc.New(server, sdgrpc.WithToken(os.Getenv("SDGRPC_TOKEN")))
	if err != nil {
		return err
	}
	defer client.Close()
	models, err := client.ListModels(ctx)
	if err != nil {
		return err
	}
	model := models[0] // the default
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	request := &pb.GenerateRequest{
		Model:  model.Name,
		Prompt: prompt,
		Output: &pb.Output{Preview: &pb.PreviewOptions{Kind: pb.PreviewKind_PREVIEW_KIND_LATENT}},
	}
	for event, err := range client.Generate(ctx, request) {
		if err != nil {
			return err
		}
		progress, _ := event.(*sdgrpc.Progress)
		if progress == nil {
			continue
		}
		for _, preview := range progress.Previews {
			name := fmt.Sprintf("latent-%d-%02d.png", preview.ImageIndex, progress.Step)
			if err := save(filepath.Join(folder, name), preview.GetLatent(), model.LatentFormat); err != nil {
				return err
			}
		}
	}
	return nil
}

func save(path string, latent *pb.Latent, format *pb.LatentFormat) error {
	picture, err := sdgrpc.LatentPicture(latent, format)
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return png.Encode(file, picture)
}
