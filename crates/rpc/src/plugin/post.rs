//! One call: one connection, one POST.

use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Address, Problem, Tls};

/// What a plugin may answer at most, in bytes.
const LARGEST: usize = 4 << 20;
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// One call, without a limit of time. An empty answer is null; an `Err` in it is a problem.
///
/// # Errors
/// [`Problem::Unreachable`], [`Problem::Said`].
pub async fn call(address: &Address, method: &str, body: &Value) -> Result<Value, Problem> {
    let said = |error: &dyn std::fmt::Display| Problem::Said(error.to_string());
    let path = &format!("/{method}");
    match address {
        Address::Unix(socket) | Address::Grpc(socket) => {
            let stream = UnixStream::connect(socket).await.map_err(|e| Problem::Unreachable(e.to_string()))?;
            post(stream, "plugin", path, body).await
        }
        Address::Tcp { address, tls } => {
            let stream = TcpStream::connect(address).await.map_err(|e| Problem::Unreachable(e.to_string()))?;
            let Some(tls) = tls else { return post(stream, address, path, body).await };
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).trim_matches(['[', ']']);
            let name = ServerName::try_from(host.to_owned()).map_err(|e| said(&e))?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client(tls)?));
            let stream = connector.connect(name, stream).await.map_err(|e| Problem::Said(format!("TLS: {e}")))?;
            post(stream, address, path, body).await
        }
    }
}

fn client(tls: &Tls) -> Result<rustls::ClientConfig, Problem> {
    let said = |what: &str, path: &Path, why: String| Problem::Said(format!("{what} {}: {why}", path.display()));
    if tls.insecure_skip_verify {
        return Err(Problem::Said("InsecureSkipVerify is not done: name the CAFile".into()));
    }
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::pem_file_iter(&tls.ca_file).map_err(|e| said("CAFile", &tls.ca_file, e.to_string()))?;
    for certificate in ca.flatten() {
        roots.add(certificate).map_err(|e| said("CAFile", &tls.ca_file, e.to_string()))?;
    }
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    if tls.cert_file.as_os_str().is_empty() {
        return Ok(config.with_no_client_auth());
    }
    let chain = CertificateDer::pem_file_iter(&tls.cert_file)
        .map_err(|e| said("CertFile", &tls.cert_file, e.to_string()))?
        .flatten()
        .collect();
    let key = PrivateKeyDer::from_pem_file(&tls.key_file).map_err(|e| said("KeyFile", &tls.key_file, e.to_string()))?;
    config.with_client_auth_cert(chain, key).map_err(|e| said("CertFile", &tls.cert_file, e.to_string()))
}

async fn post(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    path: &str,
    body: &Value,
) -> Result<Value, Problem> {
    let said = |error: &dyn std::fmt::Display| Problem::Said(error.to_string());
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| said(&e))?;
    tokio::spawn(connection);
    let request = hyper::Request::post(path)
        .header("Host", host)
        .header("Accept", MEDIA_TYPE)
        .header("Content-Type", MEDIA_TYPE)
        .body(Full::new(Bytes::from(body.to_string())))
        .map_err(|e| said(&e))?;
    let answer = sender.send_request(request).await.map_err(|e| said(&e))?;
    let status = answer.status();
    let bytes = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|e| said(&e))?.to_bytes();
    let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    match value["Err"].as_str().filter(|why| !why.is_empty()) {
        Some(why) => Err(Problem::Said(why.into())),
        None if !status.is_success() => {
            let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
            Err(Problem::Said(format!("{status}: {}", text.trim())))
        }
        None => Ok(value),
    }
}
