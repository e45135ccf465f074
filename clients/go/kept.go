package sdgrpc

import (
	"context"

	pb "example.com/sdgrpc/v1"
)

// Attach finds a job again that was sent with OnDisconnect KEEP. Its events come from the first on, or after
// the one of AfterSequence; leaving the loop changes nothing for the job. The failure of one that the server
// has not, or has forgotten, has the reason JobNotFound.
func (c *Client) Attach(ctx context.Context, request *pb.AttachJobRequest) Events {
	return events(ctx, c.patience, request, c.jobs.AttachJob)
}

// ListJobs returns this caller's jobs that the server keeps, the oldest first, of as many pages as there are.
func (c *Client) ListJobs(ctx context.Context) ([]*pb.Job, error) {
	var jobs []*pb.Job
	request := &pb.ListJobsRequest{}
	for {
		page, err := c.jobs.ListJobs(ctx, request)
		if err != nil {
			return nil, errorOf(err)
		}
		jobs = append(jobs, page.GetJobs()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return jobs, nil
		}
	}
}

// CancelJob ends a job that the server keeps before its next step, and returns what it was before. One that
// has ended stays as it is.
func (c *Client) CancelJob(ctx context.Context, requestID string) (*pb.Job, error) {
	request := &pb.CancelJobRequest{RequestId: requestID}
	answer, err := c.jobs.CancelJob(routed(ctx, request), request)
	return answer.GetJob(), errorOf(err)
}

// Detach begins a job, leaves it once it is accepted, and returns the id by which Attach finds it. Its request
// must have OnDisconnect KEEP: any other job is cancelled by being left, as by leaving its loop.
func Detach(job Events) (requestID string, err error) {
	for event, err := range job {
		if err != nil {
			return "", err
		}
		return event.About().RequestID, nil
	}
	return "", ErrIncomplete
}
