//! Servers of Rust on an inherited listener, in the way that is named: each tells its process id. At SIGTERM
//! it finishes what it has in hand. TCP or unix, as the listener is.
//!
//!   server WAY

use listenfd::ListenFd;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

type Failure = Box<dyn std::error::Error>;

/// The only listener, of either kind.
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

fn body() -> String {
    format!("pid {}\n", std::process::id())
}

fn inherited() -> Result<Listener, Failure> {
    let mut all = ListenFd::from_env();
    // listenfd refuses a listener of another kind, and keeps it.
    match all.take_tcp_listener(0) {
        Ok(Some(listener)) => {
            listener.set_nonblocking(true)?;
            return Ok(Listener::Tcp(listener));
        }
        Ok(None) => return Err("no listener was inherited".into()),
        Err(_) => {}
    }
    let listener = all
        .take_unix_listener(0)?
        .ok_or("no listener was inherited")?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(listener))
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => drop(signals.recv().await),
        Err(error) => eprintln!("SIGTERM: {error}"),
    }
}

async fn axum(listener: Listener) -> Result<(), Failure> {
    let app = axum::Router::new().route("/", axum::routing::get(|| async { body() }));
    match listener {
        Listener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, app)
                .with_graceful_shutdown(terminated())
                .await?;
        }
        Listener::Unix(listener) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            axum::serve(listener, app)
                .with_graceful_shutdown(terminated())
                .await?;
        }
    }
    Ok(())
}

async fn hyper(listener: Listener) -> Result<(), Failure> {
    use http_body_util::Full;
    use hyper::body::{Bytes, Incoming};
    use hyper::{Request, Response, server::conn::http1, service::service_fn};
    use hyper_util::rt::TokioIo;
    use hyper_util::server::graceful::GracefulShutdown;

    let answer = |_: Request<Incoming>| async {
        Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(body())))
    };
    let at_work = GracefulShutdown::new();
    let mut end = std::pin::pin!(terminated());
    macro_rules! serve {
        ($listener:expr) => {{
            let listener = $listener;
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted?.0,
                    () = &mut end => break,
                };
                let connection = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                tokio::spawn(at_work.watch(connection));
            }
        }};
    }
    match listener {
        Listener::Tcp(listener) => serve!(tokio::net::TcpListener::from_std(listener)?),
        Listener::Unix(listener) => serve!(tokio::net::UnixListener::from_std(listener)?),
    }
    at_work.shutdown().await;
    Ok(())
}

fn actix(listener: Listener) -> Result<(), Failure> {
    use actix_web::{App, HttpServer, web};
    let app = || App::new().route("/", web::get().to(|| async { body() }));
    let server = HttpServer::new(app).workers(2);
    let server = match listener {
        Listener::Tcp(listener) => server.listen(listener)?,
        Listener::Unix(listener) => server.listen_uds(listener)?,
    };
    actix_web::rt::System::new().block_on(async {
        let server = server.disable_signals().run();
        let handle = server.handle();
        actix_web::rt::spawn(async move {
            terminated().await;
            // A stop drops the connections that a worker was handed and has not begun with: first there are to be
            // no more of them, then the workers have time for those.
            handle.pause().await;
            actix_web::rt::time::sleep(std::time::Duration::from_millis(500)).await;
            handle.stop(true).await;
        });
        server.await
    })?;
    Ok(())
}

async fn warp(listener: Listener) -> Result<(), Failure> {
    use warp::Filter;
    let server = warp::serve(warp::any().map(body));
    match listener {
        Listener::Tcp(listener) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            server.incoming(listener).graceful(terminated()).run().await;
        }
        Listener::Unix(listener) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            server.incoming(listener).graceful(terminated()).run().await;
        }
    }
    Ok(())
}

async fn poem(listener: Listener) -> Result<(), Failure> {
    use poem::listener::{TcpAcceptor, UnixAcceptor};
    use poem::{Server, endpoint::make_sync};
    let answer = make_sync(|_| body());
    match listener {
        Listener::Tcp(listener) => {
            let server = Server::new_with_acceptor(TcpAcceptor::from_std(listener)?);
            server
                .run_with_graceful_shutdown(answer, terminated(), None)
                .await?;
        }
        Listener::Unix(listener) => {
            let server = Server::new_with_acceptor(UnixAcceptor::from_std(listener)?);
            server
                .run_with_graceful_shutdown(answer, terminated(), None)
                .await?;
        }
    }
    Ok(())
}

fn tiny_http(listener: Listener) -> Result<(), Failure> {
    use std::sync::Arc;
    let listener = match listener {
        Listener::Tcp(listener) => {
            listener.set_nonblocking(false)?;
            tiny_http::Listener::Tcp(listener)
        }
        Listener::Unix(listener) => {
            listener.set_nonblocking(false)?;
            tiny_http::Listener::Unix(listener)
        }
    };
    let server = Arc::new(
        tiny_http::Server::from_listener(listener, None).map_err(|error| error.to_string())?,
    );
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGTERM])?;
    let stopped = Arc::clone(&server);
    std::thread::spawn(move || {
        signals.forever().next();
        stopped.unblock();
    });
    for request in server.incoming_requests() {
        request.respond(tiny_http::Response::from_string(body()))?;
    }
    // Dropped, the server removes the path of its socket, which others have as well.
    std::mem::forget(server);
    Ok(())
}

fn main() -> Result<(), Failure> {
    let way = std::env::args().nth(1).unwrap_or_default();
    let listener = inherited()?;
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    match way.as_str() {
        "axum" => runtime()?.block_on(axum(listener)),
        "hyper" => runtime()?.block_on(hyper(listener)),
        "actix" => actix(listener),
        "warp" => runtime()?.block_on(warp(listener)),
        "poem" => runtime()?.block_on(poem(listener)),
        "tiny_http" => tiny_http(listener),
        _ => Err("axum, hyper, actix, warp, poem or tiny_http".into()),
    }
}
