//! Jobs that outlive their connection.

use futures_util::FutureExt;
use tonic::transport::Channel;

use crate::call::Call;
use crate::client::Client;
use crate::job::Job;
use crate::v1;
use crate::v1::job_service_client::JobServiceClient;

impl Client {
    /// Find a job again that was sent with `OnDisconnect::Keep`. Its events come from the first on, or after the one
    /// of `after_sequence`; dropping it changes nothing for the job.
    ///
    /// It fails with [`ErrorKind::JobNotFound`](crate::ErrorKind::JobNotFound) if the server has no such job, or has
    /// forgotten it.
    pub fn attach(&self, request: v1::AttachJobRequest) -> Call<Job> {
        let service = self.kept();
        self.job(request, move |request| {
            let mut service = service.clone();
            async move { service.attach_job(request).await }.boxed()
        })
    }

    /// This caller's jobs that the server keeps, the oldest first, of as many pages as there are; the client's
    /// timeout is for all of them.
    pub fn list_jobs(&self) -> Call<Vec<v1::Job>> {
        let mut service = self.kept();
        self.call(async move |context| {
            let mut jobs = Vec::new();
            let mut request = v1::ListJobsRequest::default();
            loop {
                let answer = service.list_jobs(context.request(request.clone()));
                let page = context.answer(answer).await?;
                jobs.extend(page.jobs);
                if page.next_page_token.is_empty() {
                    return Ok(jobs);
                }
                request.page_token = page.next_page_token;
            }
        })
    }

    /// One page of them.
    pub fn list_jobs_page(&self, request: v1::ListJobsRequest) -> Call<v1::ListJobsResponse> {
        let mut service = self.kept();
        self.call(async move |context| context.answer(service.list_jobs(context.request(request))).await)
    }

    /// End a job that the server keeps before its next step; what it was before. One that has ended stays as it is.
    pub fn cancel_job(&self, request_id: impl Into<String>) -> Call<v1::Job> {
        let mut service = self.kept();
        let request = v1::CancelJobRequest { request_id: request_id.into() };
        self.call(async move |context| {
            let answer = service.cancel_job(context.routed(request));
            Ok(context.answer(answer).await?.job.unwrap_or_default())
        })
    }

    fn kept(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel.clone()).max_decoding_message_size(self.max_message_bytes)
    }
}
