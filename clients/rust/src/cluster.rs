//! The client: replicas behind a server.

use crate::call::Call;
use crate::client::Client;
use crate::v1;

impl Client {
    /// Let a replica go, or all of the node of that address, once the jobs that have begun there have ended: those that
    /// leave. The operator has to allow it (`cluster_control`).
    pub fn drain_replicas(&self, name: impl Into<String>) -> Call<Vec<String>> {
        let mut cluster = self.cluster();
        let request = v1::DrainReplicasRequest { name: name.into() };
        self.call(async move |context| {
            Ok(context.answer(cluster.drain_replicas(context.request(request))).await?.replicas)
        })
    }

    /// Keep `least` replicas, up to `most` as the queue asks for (0 is `least`): how many there were. The operator has
    /// to allow it (`cluster_control`).
    pub fn scale_replicas(&self, least: i32, most: i32) -> Call<i32> {
        let mut cluster = self.cluster();
        let request = v1::ScaleReplicasRequest { least, most };
        self.call(async move |context| {
            Ok(context.answer(cluster.scale_replicas(context.request(request))).await?.replicas)
        })
    }
}
