package sdgrpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	pb "example.com/sdgrpc/v1"
)

// MaxMessageBytes is what a message may have in both directions. Images travel whole in one message, and
// gRPC's own limit of 4 MiB is below that of a large PNG.
const MaxMessageBytes = 128 << 20

// keepAlive finds a server that vanished while a job waits for its turn and no event travels, and between
// calls, so that the next does not wait for a dead connection. The server takes a ping every ten seconds.
var keepAlive = keepalive.ClientParameters{
	Time: 30 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true,
}

// Client is a connection to one server, made at the first call. It may be used by many goroutines at once.
type Client struct {
	connection *grpc.ClientConn
	diffusion  pb.DiffusionServiceClient
	catalog    pb.CatalogServiceClient
	jobs       pb.JobServiceClient
	cluster    pb.ClusterServiceClient
	patience   time.Duration
	health     healthpb.HealthClient
}

// Option changes how a Client reaches its server.
type Option func(*options)

type options struct {
	credentials credentials.TransportCredentials
	token       bearer
	dial        []grpc.DialOption
	patience    time.Duration
}

// WithDialOptions adds gRPC's own options; they come last and win.
func WithDialOptions(dial ...grpc.DialOption) Option {
	return func(chosen *options) { chosen.dial = append(chosen.dial, dial...) }
}

// New makes a client for a target such as `localhost:50051` or `unix:/path`, in plain text unless an option
// (WithTLS, with TLSFiles for files) says otherwise. It connects at the first call; see WaitUntilReady.
func New(target string, changes ...Option) (*Client, error) {
	chosen := &options{credentials: insecure.NewCredentials(), patience: defaultPatience}
	for _, change := range changes {
		change(chosen)
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(chosen.credentials),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(MaxMessageBytes), grpc.MaxCallSendMsgSize(MaxMessageBytes),
		),
		grpc.WithKeepaliveParams(keepAlive),
	}
	if chosen.token != "" {
		if err := chosen.token.valid(); err != nil {
			return nil, err
		}
		dial = append(dial, grpc.WithPerRPCCredentials(chosen.token))
	}
	connection, err := grpc.NewClient(target, append(dial, chosen.dial...)...)
	if err != nil {
		return nil, err
	}
	return &Client{
		connection: connection,
		diffusion:  pb.NewDiffusionServiceClient(connection),
		catalog:    pb.NewCatalogServiceClient(connection),
		jobs:       pb.NewJobServiceClient(connection),
		cluster:    pb.NewClusterServiceClient(connection),
		patience:   chosen.patience,
		health:     healthpb.NewHealthClient(connection),
	}, nil
}

// Close ends the connection; calls that still run are cancelled.
func (c *Client) Close() error { return c.connection.Close() }

// WaitUntilReady returns nil once the server's health says that it takes jobs: its model is loaded and
// has drawn a step. Until then a server may refuse the connection, answer, or break off; only the
// context, whose error is returned then, ends the waiting.
func (c *Client) WaitUntilReady(ctx context.Context) error {
	for {
		if c.watchHealth(ctx) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// watchHealth reads one stream of the health service and tells whether it said that jobs are welcome.
func (c *Client) watchHealth(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &healthpb.HealthCheckRequest{Service: pb.DiffusionService_ServiceDesc.ServiceName}
	watch, err := c.health.Watch(ctx, request, grpc.WaitForReady(true))
	for err == nil {
		var state *healthpb.HealthCheckResponse
		if state, err = watch.Recv(); state.GetStatus() == healthpb.HealthCheckResponse_SERVING {
			return true
		}
	}
	return false
}
