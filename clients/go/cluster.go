package sdgrpc

import (
	"context"

	pb "example.com/sdgrpc/v1"
)

// DrainReplicas lets a replica go, or all of the node of that address, once the jobs that have begun there have ended,
// and returns those that leave. The operator has to allow it (cluster_control).
func (c *Client) DrainReplicas(ctx context.Context, name string) ([]string, error) {
	answer, err := c.cluster.DrainReplicas(ctx, &pb.DrainReplicasRequest{Name: name})
	return answer.GetReplicas(), errorOf(err)
}

// ScaleReplicas keeps `least` replicas, up to `most` as the queue asks for (0 is `least`), and returns how many
// there were. The operator has to allow it (cluster_control).
func (c *Client) ScaleReplicas(ctx context.Context, least, most int32) (int32, error) {
	answer, err := c.cluster.ScaleReplicas(ctx, &pb.ScaleReplicasRequest{Least: least, Most: most})
	return answer.GetReplicas(), errorOf(err)
}
