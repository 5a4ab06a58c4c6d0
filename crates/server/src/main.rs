//! `quorate`: the server, started as etcd is started.

use std::process::ExitCode;

use quorate::config::{self, Config, Invocation, Warning, version};
use quorate::{arrival, logging, serve, util};
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let read = |path: &std::path::Path| std::fs::read_to_string(path);
    match config::parse(std::env::args_os().skip(1), std::env::vars_os(), read) {
        Ok(Invocation::Serve(config, warnings)) => serve(*config, &warnings),
        Ok(Invocation::Version) => {
            println!("{}", version::text());
            ExitCode::SUCCESS
        }
        Ok(Invocation::Help(text)) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Invocation::Util(command)) => util::run(&command),
        Err(error) => {
            eprint!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve(config: Config, warnings: &[Warning]) -> ExitCode {
    if let Err(error) = logging::init(&config) {
        eprintln!("quorate: {error}");
        return ExitCode::FAILURE;
    }
    arrival::raise_file_limit();
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the system gives no event queue or timer");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve::run(config, told_to_stop(), |node| {
        greet(node.config())
    })) {
        Ok(()) => {
            tracing::info!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error}");
            eprintln!("quorate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Resolves on SIGTERM or SIGINT.
async fn told_to_stop() {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        tracing::warn!("signals cannot be listened to: stop this server by ending the process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => tracing::info!("received SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("received SIGINT: stopping"),
    }
}

/// Tells a person at a terminal what to try; scripts read the log instead.
fn greet(config: &Config) {
    let Some(listen) = config.listen_client_urls.first() else {
        return;
    };
    let url = &listen.url;
    println!(
        "\nQuorate {} serves clients on {url}; its data is in {}. Try:\n\n  \
         curl {url}/v2/keys/greeting -X PUT -d value=hello\n  \
         curl {url}/v2/keys/greeting\n  \
         curl '{url}/v2/keys/greeting?wait=true'        # then change it from elsewhere\n  \
         etcdctl --endpoints {url} get --prefix /\n",
        version::QUORATE_VERSION,
        config.data_dir.display(),
    );
}
