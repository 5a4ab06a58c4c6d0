//! The Watch service: one stream, any number of watchers.

mod stream;
mod watcher;

use quorate_proto::etcdserverpb::{WatchRequest, watch_server::Watch};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::Api;
use stream::WatchStream;

#[async_trait]
impl Watch for Api {
    type WatchStream = WatchStream;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(WatchStream::new(
            self.clone(),
            request.into_inner(),
        )))
    }
}
