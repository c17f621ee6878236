//! Connections to a real server: TLS in each mode, authentication, options, several hosts.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use pgmend_pg::connect::{ConnectError, ConnectionDriver, connect};
use pgmend_pg::conninfo::Conninfo;
use pgmend_testkit::Server;
use tempfile::TempDir;
use tokio_postgres::{Client, SimpleQueryMessage};

/// A server of its own whose access rules tell encrypted sessions from plain ones.
struct Scene {
    server: Server,
    files: TempDir,
}

const ACCESS_RULES: &str = "\
local   all all                     trust
host    all postgres   127.0.0.1/32 trust
hostssl all only_tls   127.0.0.1/32 trust
hostnossl all only_plain 127.0.0.1/32 trust
hostssl all by_cert    127.0.0.1/32 cert
host    all by_password 127.0.0.1/32 scram-sha-256
";

impl Scene {
    fn plain() -> Self {
        let server = Server::start().expect("a server");
        std::fs::write(server.data_folder().join("pg_hba.conf"), ACCESS_RULES).expect("access rules");
        let mut sql = server.sql("postgres").expect("a session");
        for role in ["only_tls", "only_plain", "by_cert", "app"] {
            sql.run(&format!("create role {role} login")).expect("a role");
        }
        sql.run("create role by_password login password 'p:w\\d'").expect("a role");
        sql.run("select pg_reload_conf()").expect("reloaded");
        Self { server, files: tempfile::tempdir().expect("a folder") }
    }

    /// The same with TLS, or `None` where there is no openssl to make certificates with.
    fn encrypted() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("skipped: the openssl command is missing");
            return None;
        }
        let scene = Self::plain();
        scene.self_signed("server", "localhost");
        scene.self_signed("other", "localhost");
        scene.authority();
        scene.signed("client", "by_cert");
        scene.serve("server");
        Some(scene)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let output = command.args(arguments.split(' ')).current_dir(self.files.path()).output().expect("openssl runs");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The certificate that every tutorial makes: self-signed, and an authority by openssl's default.
    fn self_signed(&self, name: &str, host: &str) {
        self.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={host} -addext subjectAltName=DNS:{host} -keyout {name}.key -out {name}.crt"
        ));
    }

    fn authority(&self) {
        self.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt");
    }

    /// A certificate that the authority signed.
    fn signed(&self, name: &str, subject: &str) {
        std::fs::write(self.file("extensions"), format!("basicConstraints=CA:FALSE\nsubjectAltName=DNS:{subject}\n"))
            .expect("written");
        self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={subject} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.crt"));
    }

    /// Makes the server present this certificate, and trust the authority for its clients.
    fn serve(&self, name: &str) {
        let folder = self.server.data_folder();
        let owner = std::fs::metadata(folder).expect("the data folder").uid();
        for (from, to) in [
            (format!("{name}.crt"), "server.crt"),
            (format!("{name}.key"), "server.key"),
            ("ca.crt".to_owned(), "ca.crt"),
        ] {
            let to = folder.join(to);
            std::fs::copy(self.file(&from), &to).expect("copied");
            make_private(&to);
            chown(&to, Some(owner), None).expect("given to the server");
        }
        let mut sql = self.server.sql("postgres").expect("a session");
        sql.run("alter system set ssl = on").expect("set");
        sql.run("alter system set ssl_ca_file = 'ca.crt'").expect("set");
        sql.run("select pg_reload_conf()").expect("reloaded");
        // A new session has the settings of the server that starts it; this one reads the file itself.
        let begun = || self.server.sql("postgres").expect("a session");
        while begun().value("show ssl").expect("shown").as_deref() != Some("on") {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Connects with `host=127.0.0.1` unless the settings say otherwise.
    async fn connect(&self, settings: &str) -> Result<(Client, ConnectionDriver), ConnectError> {
        connect(&self.info(settings)).await
    }

    fn info(&self, settings: &str) -> Conninfo {
        let port = self.server.port();
        let text = format!("host=127.0.0.1 port={port} dbname=postgres {settings}");
        Conninfo::resolve(Some(&text), &|_| None).expect("valid settings")
    }

    /// Whether the session that these settings open is encrypted; an error's text otherwise.
    async fn encrypted_by(&self, settings: &str) -> Result<bool, String> {
        let (client, _driver) = self.connect(settings).await.map_err(|error| error.to_string())?;
        Ok(value(&client, "select ssl from pg_stat_ssl where pid = pg_backend_pid()").await == "t")
    }
}

fn make_private(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("changed");
}

async fn value(client: &Client, sql: &str) -> String {
    let answer = client.simple_query(sql).await.expect("an answer");
    let row = answer.iter().find_map(|message| {
        if let SimpleQueryMessage::Row(row) = message { row.get(0).map(str::to_owned) } else { None }
    });
    row.expect("a value")
}

#[tokio::test]
async fn options_and_application_name_reach_the_server() {
    let scene = Scene::plain();
    let (client, driver) =
        scene.connect("user=postgres options='-c role=app -c search_path=a,b'").await.expect("connected");
    assert_eq!(value(&client, "select current_user").await, "app");
    assert_eq!(value(&client, "show search_path").await, "a,b");
    assert_eq!(value(&client, "show application_name").await, "pgmend");
    drop(client);
    assert!(driver.task.await.expect("joined").is_ok());
}

#[tokio::test]
async fn the_password_file_authenticates_with_scram() {
    let scene = Scene::plain();
    let passfile = scene.file("pgpass");
    std::fs::write(&passfile, format!("127.0.0.1:{}:*:by_password:p\\:w\\\\d\n", scene.server.port()))
        .expect("written");
    make_private(&passfile);
    let file = scene.path("pgpass");
    assert!(scene.connect(&format!("user=by_password passfile={file}")).await.is_ok());

    let error = scene.connect("user=by_password password=hunter2").await.expect_err("a wrong password");
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("28P01"), false), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));

    std::fs::set_permissions(&passfile, PermissionsExt::from_mode(0o644)).expect("changed");
    let error =
        scene.connect(&format!("user=by_password passfile={file}")).await.expect_err("an open file is not used");
    assert!(error.help().contains("PGPASSWORD") && error.help().contains("chmod 0600"), "{error}: {}", error.help());
    assert!(!error.is_transient());
}

#[tokio::test]
async fn each_sslmode_encrypts_and_verifies_as_libpq_does() {
    let Some(scene) = Scene::encrypted() else { return };
    let (server, other) = (scene.path("server.crt"), scene.path("other.crt"));
    let by = |settings: String| {
        let scene = &scene;
        async move { scene.encrypted_by(&format!("user=postgres {settings}")).await }
    };
    assert_eq!(by("sslmode=disable".into()).await, Ok(false));
    assert_eq!(by("sslmode=allow".into()).await, Ok(false));
    assert_eq!(by("sslmode=prefer".into()).await, Ok(true));
    assert_eq!(by("sslmode=require".into()).await, Ok(true));
    // With a root, `require` verifies the chain, and `prefer` does not trust a stranger with TLS.
    assert_eq!(by(format!("sslmode=require sslrootcert={server}")).await, Ok(true));
    assert!(by(format!("sslmode=require sslrootcert={other}")).await.is_err());
    assert_eq!(by(format!("sslmode=prefer sslrootcert={other}")).await, Ok(false));
    assert_eq!(by(format!("sslmode=verify-ca sslrootcert={server}")).await, Ok(true));
    assert!(by(format!("sslmode=verify-ca sslrootcert={other}")).await.is_err());
    // The certificate is for localhost, not for the address.
    let error = by(format!("sslmode=verify-full sslrootcert={server}")).await.expect_err("another name");
    assert!(error.contains("not valid for name"), "{error}");
    assert_eq!(
        by(format!("sslmode=verify-full sslrootcert={server} host=localhost hostaddr=127.0.0.1")).await,
        Ok(true)
    );
    let error = by("sslmode=verify-full sslrootcert=/nonexistent".into()).await.expect_err("no root");
    assert!(error.contains("/nonexistent"), "{error}");
    for version in ["TLSv1.2", "TLSv1.3"] {
        let limits = format!("sslmode=require ssl_min_protocol_version={version} ssl_max_protocol_version={version}");
        assert_eq!(by(limits).await, Ok(true));
    }
}

#[tokio::test]
async fn a_server_that_insists_gets_the_encryption_it_wants() {
    let Some(scene) = Scene::encrypted() else { return };
    assert_eq!(scene.encrypted_by("user=only_plain sslmode=prefer").await, Ok(false));
    assert_eq!(scene.encrypted_by("user=only_tls sslmode=allow").await, Ok(true));
    assert!(scene.encrypted_by("user=only_tls sslmode=disable").await.expect_err("refused").contains("pg_hba.conf"));
    assert!(scene.encrypted_by("user=only_plain sslmode=require").await.expect_err("refused").contains("pg_hba.conf"));
    let bound = "user=by_password password='p:w\\\\d' channel_binding=require";
    assert_eq!(scene.encrypted_by(&format!("{bound} sslmode=require")).await, Ok(true));
    assert!(scene.encrypted_by(&format!("{bound} sslmode=disable")).await.is_err());
}

#[tokio::test]
async fn an_authority_vouches_for_server_and_client() {
    let Some(scene) = Scene::encrypted() else { return };
    scene.signed("leaf", "localhost");
    scene.serve("leaf");
    let (root, certificate, key) = (scene.path("ca.crt"), scene.path("client.crt"), scene.path("client.key"));
    let full = format!("sslmode=verify-full sslrootcert={root} host=localhost hostaddr=127.0.0.1");
    assert_eq!(scene.encrypted_by(&format!("user=postgres {full}")).await, Ok(true));
    make_private(&scene.file("client.key"));
    let with_certificate = format!("user=by_cert {full} sslcert={certificate} sslkey={key}");
    assert_eq!(scene.encrypted_by(&with_certificate).await, Ok(true));
    assert!(scene.encrypted_by(&format!("{with_certificate} sslcertmode=disable")).await.is_err());
    std::fs::set_permissions(scene.file("client.key"), PermissionsExt::from_mode(0o644)).expect("changed");
    assert!(scene.encrypted_by(&with_certificate).await.expect_err("an open key").contains("chmod 0600"));
}

#[tokio::test]
async fn a_server_without_tls_is_reached_by_prefer_only() {
    let scene = Scene::plain();
    assert_eq!(scene.encrypted_by("user=postgres sslmode=prefer").await, Ok(false));
    let error = scene.connect("user=postgres sslmode=require").await.expect_err("no TLS");
    assert!(error.to_string().contains("server does not support TLS"), "{error}");
    assert!(error.help().contains("sslmode") && !error.is_transient(), "{}", error.help());
}

#[tokio::test]
async fn hosts_are_tried_in_order_until_one_is_of_the_wanted_kind() {
    let scene = Scene::plain();
    let port = scene.server.port();
    // Port 1 of this machine refuses connections.
    let hosts = format!("user=postgres host=127.0.0.1,localhost port=1,{port}");
    for target in ["any", "primary", "read-write", "prefer-standby"] {
        let (client, _driver) = scene.connect(&format!("{hosts} target_session_attrs={target}")).await.expect(target);
        assert_eq!(value(&client, "select inet_server_port()").await, port.to_string());
    }
    for target in ["standby", "read-only"] {
        let error = scene.connect(&format!("{hosts} target_session_attrs={target}")).await.expect_err(target);
        assert!(error.to_string().contains(&format!("localhost:{port}: the server is not {target}")), "{error}");
        assert!(error.is_transient());
    }
    let read_only = format!("{hosts} options='-c default_transaction_read_only=on'");
    assert!(scene.connect(&format!("{read_only} target_session_attrs=read-only")).await.is_ok());
    assert!(scene.connect(&format!("{read_only} target_session_attrs=read-write")).await.is_err());
    let error = scene.connect("user=postgres port=1").await.expect_err("nobody listens");
    assert!(error.is_transient() && error.to_string().contains("refused"), "{error}");
    assert_eq!(error.refusal().code, pgmend_core::refusal::Code::Connection);
    assert!(error.into_pg_error().is_connection());
    let error = scene.connect("user=postgres dbname=absent").await.expect_err("no such database");
    assert_eq!((error.sqlstate(), error.is_transient()), (Some("3D000"), false));
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_the_timeout() {
    let scene = Scene::plain();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let hosts = format!("user=postgres host=127.0.0.1,127.0.0.1 port={port},{} connect_timeout=1", scene.server.port());
    let (_client, driver) = scene.connect(&hosts).await.expect("the second host answers");
    assert_eq!(driver.endpoint.port, scene.server.port());
    let error = scene.connect(&format!("user=postgres port={port} connect_timeout=1")).await.expect_err("no answer");
    assert!(error.is_transient() && error.to_string().ends_with("no answer within 1 s"), "{error}");
}

#[tokio::test]
async fn a_socket_folder_is_a_host() {
    let scene = Scene::plain();
    let folder = scene.server.socket_folder().expect("an own server").display().to_string();
    let (client, _driver) =
        scene.connect(&format!("user=postgres host={folder} sslmode=require")).await.expect("connected");
    assert_eq!(value(&client, "select coalesce(inet_server_addr()::text, 'socket')").await, "socket");
}

#[tokio::test]
async fn a_statement_is_cancelled_over_the_same_kind_of_connection() {
    let Some(scene) = Scene::encrypted() else { return };
    for settings in ["user=postgres sslmode=disable", "user=only_tls sslmode=require"] {
        let (client, driver) = scene.connect(settings).await.expect("connected");
        // A request that comes before the statement is lost.
        let cancelling = async {
            loop {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                driver.cancel.cancel().await.expect("the request was delivered");
            }
        };
        let slept = tokio::select! {
            slept = client.simple_query("select pg_sleep(60)") => slept,
            never = cancelling => never,
        };
        let error = slept.expect_err("cancelled");
        assert_eq!(error.code().map(|state| state.code()), Some("57014"));
    }
}
