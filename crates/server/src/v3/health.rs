//! gRPC's health service: this server serves, and knows no other name.

use quorate_proto::health::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_server::Health,
};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, async_trait};

use super::{Api, Responses};

#[async_trait]
impl Health for Api {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match of_service(&request.into_inner().service) {
            ServingStatus::ServiceUnknown => Err(Status::not_found("unknown service")),
            known => Ok(Response::new(HealthCheckResponse {
                status: known.into(),
            })),
        }
    }

    type WatchStream = Responses<HealthCheckResponse>;

    /// Says it once, then stays silent: nothing changes while the server runs.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let status = of_service(&request.into_inner().service).into();
        let first = tokio_stream::once(Ok(HealthCheckResponse { status }));
        Ok(Response::new(
            self.until_closed(first.chain(tokio_stream::pending())),
        ))
    }
}

fn of_service(name: &str) -> ServingStatus {
    if name.is_empty() {
        ServingStatus::Serving
    } else {
        ServingStatus::ServiceUnknown
    }
}
