//! Whether URLs lead to the same addresses, as etcd compares them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::net::lookup_host;
use tokio::time::sleep;

use crate::config::{Scheme, Url};

/// How long after a look-up failed the next one begins.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether two sorted lists of URLs are one, as texts or once their names are looked up, which is
/// tried until `deadline`. `localhost` stays as it is.
///
/// # Errors
/// How they differ, in etcd's words.
pub(super) async fn same(
    one: &[String],
    other: &[String],
    deadline: Instant,
) -> Result<(), String> {
    if one == other {
        return Ok(());
    }
    if one.len() != other.len() {
        return Err(format!("len({one:?}) != len({other:?})"));
    }
    let (one, other) = (
        resolve(one, deadline).await?,
        resolve(other, deadline).await?,
    );
    match one == other {
        true => Ok(()),
        false => Err(format!("resolved urls: {one:?} != {other:?}")),
    }
}

/// The URLs with addresses for names, sorted.
async fn resolve(urls: &[String], deadline: Instant) -> Result<Vec<String>, String> {
    let mut resolved = Vec::new();
    for url in urls {
        resolved.push(resolve_one(&Url::parse(url)?, deadline).await?);
    }
    resolved.sort();
    Ok(resolved)
}

async fn resolve_one(url: &Url, deadline: Instant) -> Result<String, String> {
    let bare = url.host.trim_start_matches('[').trim_end_matches(']');
    if bare == "localhost" || bare.parse::<IpAddr>().is_ok() {
        return Ok(url.to_string());
    }
    loop {
        let why = match lookup_host((bare, url.port))
            .await
            .map(|mut all| all.next())
        {
            Ok(Some(address)) => {
                let scheme = match url.scheme {
                    Scheme::Http => "http",
                    Scheme::Https => "https",
                };
                return Ok(format!("{scheme}://{address}"));
            }
            Ok(None) => "it has no address".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() + AGAIN >= deadline {
            return Err(format!("failed to resolve {url}: {why}"));
        }
        tracing::warn!("failed to resolve {url}: {why}; trying again");
        sleep(AGAIN).await;
    }
}
