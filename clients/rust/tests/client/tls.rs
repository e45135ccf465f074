//! A server with TLS.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use sdgrpc::{Certificate, Client, ClientTlsConfig, ErrorKind, Identity};
use tonic::transport::{Server, ServerTlsConfig};

use crate::server::{Running, Script};

/// A certificate of localhost and its key, by the openssl program; none if it is not there.
fn certificate() -> Option<(PathBuf, PathBuf)> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let made = Command::new("openssl")
        .args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost".split(' '))
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    match made {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some((certificate, key))
        }
        Err(error) => {
            assert!(env::var("SDGRPC_REQUIRE_ALL").is_err(), "openssl: {error}");
            eprintln!("skipped: needs openssl");
            None
        }
    }
}

#[tokio::test]
async fn a_server_is_reached_with_its_authority_and_only_with_it() {
    let Some((certificate, key)) = certificate() else { return };
    let (certificate, key) = (fs::read(certificate).unwrap(), fs::read(key).unwrap());
    let identity = ServerTlsConfig::new().identity(Identity::from_pem(&certificate, key));
    let builder = Server::builder().tls_config(identity).unwrap();
    let server = Running::start_with(Script::default(), builder).await;
    let target = format!("localhost:{}", server.address.port());

    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificate));
    let client = Client::builder(target.as_str()).tls(trusting).connect().await.unwrap();
    assert_eq!(client.list_models().await.unwrap()[0].name, "embedded");

    let error = Client::connect(format!("https://{target}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
