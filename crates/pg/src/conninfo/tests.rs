use std::collections::HashMap;
use std::path::Path;

use super::{Conninfo, Place, Target};
use crate::tls::{SslMode, TrustRoot};

/// Resolves with these variables only.
fn resolve(explicit: Option<&str>, variables: &[(&str, &str)]) -> Result<Conninfo, pgmend_core::refusal::Refusal> {
    let variables: HashMap<&str, &str> = variables.iter().copied().collect();
    Conninfo::resolve(explicit, &|name| variables.get(name).map(|value| (*value).to_owned()))
}

fn resolved(explicit: &str) -> Conninfo {
    resolve(Some(explicit), &[]).expect("a valid connection")
}

fn refused(explicit: &str) -> String {
    let refusal = resolve(Some(explicit), &[]).expect_err("must be refused");
    format!("{}: {}", refusal.message, refusal.help)
}

fn password(info: &Conninfo, endpoint: usize) -> Option<&str> {
    info.endpoints_with_passwords()[endpoint].1.as_ref().map(super::Password::reveal)
}

#[cfg(unix)]
fn write_private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("changed");
}

#[test]
fn an_explicit_url_wins_over_every_variable() {
    let variables =
        [("DATABASE_URL", "postgresql://other/x"), ("PGHOST", "nowhere"), ("PGUSER", "pg"), ("PGDATABASE", "no")];
    let info = resolve(Some("postgresql://h:5433/db"), &variables).expect("valid");
    // What the URL leaves open still comes from the environment, as with psql.
    assert_eq!(info.describe(), "h:5433/db as pg");
    let info = resolve(None, &variables).expect("valid");
    assert_eq!(info.describe(), "other:5432/x as pg");
}

#[test]
fn without_a_url_the_libpq_variables_count() {
    let variables = [
        ("PGHOST", "h1,h2"),
        ("PGPORT", "1,2"),
        ("PGUSER", "u"),
        ("PGDATABASE", "d"),
        ("PGPASSWORD", "secret"),
        ("PGOPTIONS", "-c role=app"),
        ("PGTZ", "Europe/Berlin"),
        ("PGDATESTYLE", "ISO, DMY"),
        ("PGAPPNAME", "cron"),
        ("PGTARGETSESSIONATTRS", "primary"),
        ("PGCONNECT_TIMEOUT", "3"),
        ("DATABASE_URL", ""),
    ];
    let info = resolve(None, &variables).expect("valid");
    assert_eq!(info.describe(), "h1:1,h2:2/d as u");
    assert_eq!(info.options(), Some("-c TimeZone=Europe/Berlin -c DateStyle=ISO,\\ DMY -c role=app"));
    assert_eq!((info.application_name(), info.target()), ("cron", Target::Primary));
    assert_eq!(info.connect_timeout.map(|timeout| timeout.as_secs()), Some(3));
    assert_eq!(password(&info, 1), Some("secret"));
}

#[test]
fn defaults_are_a_named_application_and_a_watchful_connection() {
    let info = resolved("host=h user=u");
    assert_eq!((info.application_name(), info.dbname(), info.options()), ("pgmend", "u", None));
    let with = info.with_options(&[("role", "a b\\c".to_owned()), ("statement_timeout", "5".to_owned())]);
    assert_eq!(with.options(), Some("-c role=a\\ b\\\\c -c statement_timeout=5"));
    assert_eq!(info.connect_timeout.map(|timeout| timeout.as_secs()), Some(10));
    assert_eq!(info.liveness.idle.as_secs(), 10);
    assert_eq!(info.liveness.user_timeout.map(|timeout| timeout.as_secs()), Some(15));
    assert_eq!(info.tls.mode, SslMode::Prefer);
    let info = resolved("host=h user=u connect_timeout=0 tcp_user_timeout=2500 keepalives=0 keepalives_count=0");
    assert_eq!((info.connect_timeout, info.liveness.keepalives, info.liveness.count), (None, false, None));
    assert_eq!(info.liveness.user_timeout.map(|timeout| timeout.as_millis()), Some(2500));
    assert_eq!(resolve(Some("fallback_application_name=x host=h"), &[]).expect("valid").application_name(), "x");
}

#[test]
fn hosts_addresses_and_ports_are_paired() {
    assert_eq!(resolved("postgresql://u@h1,h2:2,[::1]:3/d").describe(), "h1:5432,h2:2,[::1]:3/d as u");
    let info = resolved("host=a,b hostaddr=10.0.0.1,10.0.0.2 port=6 user=u dbname=d");
    assert_eq!(info.describe(), "a:6,b:6/d as u");
    assert!(info.endpoints().all(|endpoint| matches!(endpoint.place, Place::Address { name: Some(_), .. })));
    assert!(refused("host=a,b hostaddr=10.0.0.1").contains("2 hosts but 1 host addresses"));
    assert!(refused("host=a,b port=1,2,3").contains("3 ports for 2 hosts"));
    assert!(refused("host=a port=0").contains("`port` from the connection string is not valid: `0`"));
    assert!(refused("hostaddr=db.example").contains("hostaddr"));
}

#[test]
fn a_host_with_a_slash_is_a_socket_folder() {
    for text in ["postgresql://u@%2Frun%2Fpg/d", "host=/run/pg user=u dbname=d", "postgresql://u@/d?host=/run/pg"] {
        let info = resolved(text);
        assert_eq!(info.describe(), "/run/pg:5432/d as u");
        assert!(info.endpoints().all(|endpoint| endpoint.place == Place::Socket("/run/pg".into())));
    }
}

#[test]
fn wrong_settings_are_refused_by_name() {
    assert!(refused("postgresql://h/d?sslmod=require").contains("did you mean `sslmode`?"));
    assert!(refused("postgresql://h/d?schema=public").contains("unknown keyword `schema`"));
    assert!(
        refused("host=h sslmode=verify_full")
            .contains("use one of disable, allow, prefer, require, verify-ca, verify-full")
    );
    assert!(refused("host=h target_session_attrs=master").contains("prefer-standby"));
    assert!(refused("host=h connect_timeout=soon").contains("whole number"));
    assert!(refused("  ").contains("the database URL is empty"));
    assert!(refused("mydb").contains("neither a PostgreSQL URL"));
    let refusal = resolve(None, &[("PGREQUIREPEER", "postgres")]).expect_err("refused");
    assert!(refusal.message.contains("`requirepeer` from PGREQUIREPEER"), "{refusal}");
}

#[test]
fn a_mode_that_could_not_verify_is_refused() {
    assert!(refused("host=h sslmode=verify-full").contains("sslrootcert"));
    assert!(refused("host=h sslrootcert=system sslmode=require").contains("verify-full"));
    assert!(refused("hostaddr=10.0.0.1 sslmode=verify-full sslrootcert=/r").contains("host"));
    assert!(refused("host=h sslnegotiation=direct").contains("sslmode=require"));
    let info = resolved("host=h sslrootcert=system");
    assert_eq!((info.tls.mode, &info.tls.root), (SslMode::VerifyFull, &TrustRoot::System));
    // A socket is never encrypted, so there is nothing to verify.
    assert!(resolve(Some("host=/tmp sslmode=verify-full"), &[]).is_ok());
}

#[test]
fn the_root_certificate_in_the_home_folder_is_found() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join(".postgresql");
    std::fs::create_dir(&folder).expect("created");
    std::fs::write(folder.join("root.crt"), "").expect("written");
    let home = home.path().display().to_string();
    let info = resolve(Some("host=h sslmode=verify-ca"), &[("HOME", &home)]).expect("valid");
    assert_eq!(info.tls.root, TrustRoot::File(folder.join("root.crt")));
}

#[test]
fn a_service_is_stronger_than_variables_and_weaker_than_the_url() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("services");
    std::fs::write(&file, "[prod]\nhost=svc\nport=7\ndbname=from_service\nuser=svc_user\n[bad]\nhots=x\n")
        .expect("written");
    let file = file.display().to_string();
    let variables = |service: &'static str| {
        [("PGSERVICE", service), ("PGSERVICEFILE", file.as_str()), ("PGHOST", "env"), ("PGSSLMODE", "disable")]
    };
    let info = resolve(Some("dbname=from_url"), &variables("prod")).expect("valid");
    assert_eq!((info.describe().as_str(), info.tls.mode), ("svc:7/from_url as svc_user", SslMode::Disable));
    let info = resolve(Some("postgresql:///?service=prod"), &variables("bad")).expect("valid");
    assert_eq!(info.describe(), "svc:7/from_service as svc_user");
    let refusal = resolve(None, &variables("bad")).expect_err("refused");
    assert_eq!(refusal.message, "unknown keyword `hots` in service `bad`");
    assert!(resolve(None, &variables("absent")).expect_err("refused").message.contains("`absent`"));
}

#[cfg(unix)]
#[test]
fn the_password_file_answers_per_host() {
    let home = tempfile::tempdir().expect("a folder");
    write_private(&home.path().join(".pgpass"), "h1:*:d:u:one\nh2:6:*:*:two\nlocalhost:*:*:*:socket\n");
    let variables = [("HOME", home.path().to_str().expect("UTF-8"))];
    let info = resolve(Some("postgresql://u@h1:5,h2:6,h3:7,%2Ftmp:8/d"), &variables).expect("valid");
    let passwords: Vec<_> = (0..4).map(|i| password(&info, i)).collect();
    assert_eq!(passwords, [Some("one"), Some("two"), None, Some("socket")]);
    let info = resolve(Some("postgresql://u:given@h1:5/d"), &variables).expect("valid");
    assert_eq!(password(&info, 0), Some("given"));
}

#[cfg(unix)]
#[test]
fn a_password_file_open_to_others_is_passed_over_with_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("passwords");
    write_private(&path, "*:*:*:*:x\n");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("changed");
    let info = resolve(Some("host=h user=u"), &[("PGPASSFILE", path.to_str().expect("UTF-8"))]).expect("valid");
    assert_eq!(password(&info, 0), None);
    assert!(info.warnings()[0].contains("chmod 0600"), "{:?}", info.warnings());
}

#[test]
fn no_output_shows_the_password() {
    let info = resolved("postgresql://u:hunter2@h/d");
    let shown = format!("{info} {info:?} {:#?} {}", info, info.describe());
    assert!(!shown.contains("hunter2"), "{shown}");
    for text in ["postgresql://u:hunter2@h/d?sslmod=x", "password=hunter2 hots=x", "postgresql://u:hunter2@h:port/d"] {
        assert!(!refused(text).contains("hunter2"));
    }
    let refusal = resolve(Some("host=h sslpassword=hunter2"), &[]).expect_err("refused");
    assert!(!format!("{refusal} {}", refusal.help).contains("hunter2"));
}

#[cfg(unix)]
#[test]
fn a_password_that_was_changed_in_its_file_is_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let passfile = folder.path().join("pass");
    write_private(&passfile, "h:5432:db:u:old");
    let url = format!("postgresql://u@h/db?passfile={}", passfile.display());
    let info = Conninfo::resolve(Some(&url), &|_| None).expect("valid");
    assert_eq!(password(&info, 0), Some("old"));
    write_private(&passfile, "h:5432:db:u:new");
    assert_eq!(password(&info.again(), 0), Some("new"));
    assert!(!format!("{:?}", resolved("postgresql://u:s3cret@h/db").again()).contains("s3cret"));
}
