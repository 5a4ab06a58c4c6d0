//! The Watch service: one stream, any number of watchers.

mod stream;
mod watcher;

use quorate_proto::etcdserverpb::{WatchRequest, WatchResponse, watch_server::Watch};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{Api, Responses};
use stream::WatchStream;

#[async_trait]
impl Watch for Api {
    type WatchStream = Responses<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let responses = WatchStream::new(self.clone(), request.into_inner());
        Ok(Response::new(self.until_closed(responses)))
    }
}
