//! Servers of Rust on an inherited listener, in the way that is named: each tells its process id. At SIGTERM
//! it finishes what it has in hand. TCP or unix, as the listener is.
//!
//!   server WAY
//!   server quinn CERTIFICATE KEY

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

/// Answers what comes on a stream with its process id, over QUIC on an inherited UDP socket. SIGTERM ends it at
/// once.
async fn quinn(certificate: &str, key: &str) -> Result<(), Failure> {
    use quinn::crypto::rustls::QuicServerConfig;
    use quinn::rustls::pki_types::pem::PemObject;
    use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use quinn::{Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig};
    use std::sync::Arc;

    let socket = ListenFd::from_env()
        .take_udp_socket(0)?
        .ok_or("no socket was inherited")?;
    let mut tls = quinn::rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certificate)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?;
    tls.alpn_protocols = vec![b"test".to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(Some(std::time::Duration::from_secs(600).try_into()?));
    config.transport_config(Arc::new(transport));
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)?;
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                let connection = incoming.await?;
                while let Ok((mut answers, mut questions)) = connection.accept_bi().await {
                    tokio::spawn(async move {
                        let answer = format!("{}\n", std::process::id());
                        while let Ok(Some(_)) = questions.read_chunk(1024, true).await {
                            if answers.write_all(answer.as_bytes()).await.is_err() {
                                break;
                            }
                        }
                    });
                }
                Ok::<_, quinn::ConnectionError>(())
            });
        }
    });
    let told = std::env::var("NOTIFY_SOCKET")?;
    std::os::unix::net::UnixDatagram::unbound()?.send_to(b"READY=1", told)?;
    terminated().await;
    std::process::exit(0);
}

fn main() -> Result<(), Failure> {
    let way = std::env::args().nth(1).unwrap_or_default();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
    };
    if way == "quinn" {
        let [certificate, key] = [2, 3].map(|at| std::env::args().nth(at).unwrap_or_default());
        return runtime()?.block_on(quinn(&certificate, &key));
    }
    let listener = inherited()?;
    match way.as_str() {
        "axum" => runtime()?.block_on(axum(listener)),
        "hyper" => runtime()?.block_on(hyper(listener)),
        "actix" => actix(listener),
        "warp" => runtime()?.block_on(warp(listener)),
        "poem" => runtime()?.block_on(poem(listener)),
        "tiny_http" => tiny_http(listener),
        _ => Err("axum, hyper, actix, warp, poem, tiny_http or quinn".into()),
    }
}
