package sdgrpc

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "example.com/sdgrpc/v1"
)

const chunkBytes = 1 << 20

// ListModels returns the models that requests can name; the default comes first.
func (c *Client) ListModels(ctx context.Context) ([]*pb.Model, error) {
	answer, err := c.catalog.ListModels(ctx, &pb.ListModelsRequest{})
	return answer.GetModels(), errorOf(err)
}

// ListUpscalers returns what UpscaleRequest and SecondPass can name, the default first.
func (c *Client) ListUpscalers(ctx context.Context) ([]*pb.Upscaler, error) {
	answer, err := c.catalog.ListModels(ctx, &pb.ListModelsRequest{})
	return answer.GetUpscalers(), errorOf(err)
}

// LoraStrengthRange returns the strengths of LoRAs that the server takes, both ends included; its operator chooses them.
func (c *Client) LoraStrengthRange(ctx context.Context) (*pb.LoraStrengthRange, error) {
	answer, err := c.catalog.ListModels(ctx, &pb.ListModelsRequest{})
	return answer.GetLoraStrengthRange(), errorOf(err)
}

// ListLoras yields the server's LoRA files by name, and asks for the next page when it is needed. An error
// comes last.
func (c *Client) ListLoras(ctx context.Context, request *pb.ListLorasRequest) iter.Seq2[*pb.LoraFile, error] {
	return func(yield func(*pb.LoraFile, error) bool) {
		page := proto.CloneOf(request)
		for {
			answer, err := c.catalog.ListLoras(ctx, page)
			if err != nil {
				yield(nil, errorOf(err))
				return
			}
			for _, file := range answer.GetLoras() {
				if !yield(file, nil) {
					return
				}
			}
			if page.PageToken = answer.GetNextPageToken(); page.PageToken == "" {
				return
			}
		}
	}
}

// ListEmbeddings returns the server's textual inversions by name.
func (c *Client) ListEmbeddings(ctx context.Context, request *pb.ListEmbeddingsRequest) ([]*pb.Embedding, error) {
	answer, err := c.catalog.ListEmbeddings(ctx, request)
	return answer.GetEmbeddings(), errorOf(err)
}

// GetLora describes one LoRA file.
func (c *Client) GetLora(ctx context.Context, request *pb.GetLoraRequest) (*pb.GetLoraResponse, error) {
	answer, err := c.catalog.GetLora(ctx, request)
	return answer, errorOf(err)
}

// PrepareLoras fuses a LoRA set ahead of its first use.
func (c *Client) PrepareLoras(
	ctx context.Context, request *pb.PrepareLorasRequest,
) (*pb.PrepareLorasResponse, error) {
	answer, err := c.catalog.PrepareLoras(routed(ctx, request), request)
	return answer, errorOf(err)
}

// PlanJob tells what a request would do, without drawing it.
func (c *Client) PlanJob(ctx context.Context, request *pb.PlanJobRequest) (*pb.PlanJobResponse, error) {
	answer, err := c.catalog.PlanJob(routed(ctx, request), request)
	return answer, errorOf(err)
}

// WatchStatus yields the server's state now and whenever it changes, at most once in `interval` (0 is a
// second), until the loop or the context ends. An error comes last.
func (c *Client) WatchStatus(
	ctx context.Context, interval time.Duration,
) iter.Seq2[*pb.WatchStatusResponse, error] {
	request := &pb.WatchStatusRequest{}
	if interval != 0 {
		request.MinInterval = durationpb.New(interval)
	}
	return messages(ctx, request, c.catalog.WatchStatus)
}

// UploadLora brings a LoRA file to a server that allows uploads; it is found under `name` then. The
// content is read twice, first for its hash. Content that the server has is not sent again.
func (c *Client) UploadLora(
	ctx context.Context, name string, content io.ReadSeeker,
) (*pb.UploadLoraResponse, error) {
	header, err := headerOf(name, content)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	call, err := c.catalog.UploadLora(ctx)
	if err != nil {
		return nil, errorOf(err)
	}
	part := &pb.UploadLoraRequest{Part: &pb.UploadLoraRequest_Header{Header: header}}
	if err := send(call.Send, part, content); err != nil {
		return nil, err
	}
	answer, err := call.CloseAndRecv()
	return answer, errorOf(err)
}

// headerOf reads the content to its end and goes back to its start.
func headerOf(name string, content io.ReadSeeker) (*pb.UploadLoraHeader, error) {
	hash := sha256.New()
	size, err := io.Copy(hash, content)
	if err != nil {
		return nil, err
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return &pb.UploadLoraHeader{Name: name, Sha256: hex.EncodeToString(hash.Sum(nil)), SizeBytes: size}, nil
}

// send sends the first part and then the content. It ends early, without an error, where the server has
// answered already: the answer, or the failure, is then for the caller to receive.
func send(put func(*pb.UploadLoraRequest) error, part *pb.UploadLoraRequest, content io.Reader) error {
	for {
		if err := put(part); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return errorOf(err)
		}
		chunk := make([]byte, chunkBytes)
		count, err := io.ReadFull(content, chunk)
		if count == 0 {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		part = &pb.UploadLoraRequest{Part: &pb.UploadLoraRequest_Chunk{Chunk: chunk[:count]}}
	}
}
