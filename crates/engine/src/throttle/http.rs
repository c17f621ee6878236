//! Signals over HTTP: a number from a JSON answer, or an instant query of Prometheus. Asked on a thread of its own,
//! with one timeout over all of it and a bound on what is read.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use pgmend_core::throttle::{Reading, Signal, Source};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::Shared;

/// Time for one answer, at most.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes of an answer: a number is not long.
const ANSWER_BYTES_MAX: u64 = 1_048_576;
/// What RFC 3986 lets stand in a query as it is.
const UNRESERVED: &[u8] = b"-._~";

/// Asks for a signal until the run ends.
pub async fn watch(shared: Arc<Shared>, signal: Signal) {
    let poll = Duration::from_secs_f64(signal.poll_s);
    let agent = agent();
    loop {
        match look(&agent, &signal).await {
            Ok(reading) => shared.record(&signal.name, reading),
            Err(why) => shared.board().fail([signal.name.as_str()], &why),
        }
        shared.told();
        tokio::time::sleep(poll).await;
    }
}

/// A client that trusts what this machine trusts. Keeps a connection between two questions.
pub fn agent() -> Agent {
    let certificates = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<Certificate<'static>> = certificates.iter().map(|c| Certificate::from_der(c).to_owned()).collect();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&roots))
        .build();
    Agent::config_builder().timeout_global(Some(ANSWER)).tls_config(tls).build().new_agent()
}

/// The signal's number now, or why there is none.
pub async fn look(agent: &Agent, signal: &Signal) -> Result<Reading, String> {
    let Source::Http { url, pointer, prometheus } = signal.source.clone() else {
        return Err("it is not asked for over HTTP".into());
    };
    let agent = agent.clone();
    let asking = tokio::task::spawn_blocking(move || ask(&agent, &url, pointer.as_deref(), prometheus.as_deref()));
    let value = asking.await.map_err(|error| error.to_string())??;
    Ok(Reading::Value { value, detail: String::new() })
}

fn ask(agent: &Agent, url: &str, pointer: Option<&str>, prometheus: Option<&str>) -> Result<f64, String> {
    let url = match prometheus {
        Some(query) => format!("{}/api/v1/query?query={}", url.trim_end_matches('/'), encoded(query)),
        None => url.to_owned(),
    };
    // The address may hold a password: errors name what went wrong, not where.
    let mut answer = agent.get(&url).call().map_err(|error| error.to_string())?;
    let mut body = String::new();
    let reader = answer.body_mut().as_reader();
    reader.take(ANSWER_BYTES_MAX).read_to_string(&mut body).map_err(|error| error.to_string())?;
    match prometheus {
        Some(_) => of_prometheus(&body),
        None => of_json(&body, pointer.unwrap_or("")),
    }
}

fn encoded(query: &str) -> String {
    let one = |byte: u8| match byte {
        plain if plain.is_ascii_alphanumeric() || UNRESERVED.contains(&plain) => char::from(plain).to_string(),
        other => format!("%{other:02X}"),
    };
    query.bytes().map(one).collect()
}

/// A number, or a text that is one.
fn number(value: &serde_json::Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn of_json(body: &str, pointer: &str) -> Result<f64, String> {
    let json: serde_json::Value = serde_json::from_str(body).map_err(|_| "the answer is no JSON".to_owned())?;
    let found = json.pointer(pointer).ok_or_else(|| format!("the answer has nothing at {pointer}"))?;
    number(found).ok_or_else(|| format!("what the answer has at `{pointer}` is no number"))
}

/// The value of a scalar, or the greatest of a vector. A query that finds nothing has no value.
fn of_prometheus(body: &str) -> Result<f64, String> {
    let json: serde_json::Value = serde_json::from_str(body).map_err(|_| "the answer is no JSON".to_owned())?;
    if json["status"] != "success" {
        let why = json["error"].as_str().unwrap_or("the query failed");
        return Err(format!("Prometheus says: {why}"));
    }
    let result = &json["data"]["result"];
    let values: Vec<f64> = match json["data"]["resultType"].as_str() {
        Some("scalar") => number(&result[1]).into_iter().collect(),
        Some("vector") => result.as_array().into_iter().flatten().filter_map(|s| number(&s["value"][1])).collect(),
        Some(_) | None => return Err("the query gives neither a scalar nor an instant vector".into()),
    };
    values.into_iter().max_by(f64::total_cmp).ok_or_else(|| "the query finds no series".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_found_where_the_pointer_says() {
        let body = r#"{"data":{"p99_ms":"412.5","errors":3}}"#;
        assert_eq!(of_json(body, "/data/p99_ms"), Ok(412.5));
        assert_eq!(of_json(body, "/data/errors"), Ok(3.0));
        assert_eq!(of_json("7", ""), Ok(7.0));
        assert!(of_json(body, "/data/none").is_err() && of_json("<html>", "").is_err());
    }

    #[test]
    fn prometheus_answers_with_a_scalar_or_a_vector_and_its_greatest_value_counts() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"job":"a"},"value":[1.5,"0.2"]},{"metric":{"job":"b"},"value":[1.5,"0.7"]}]}}"#;
        assert_eq!(of_prometheus(vector), Ok(0.7));
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1.5,"4"]}}"#;
        assert_eq!(of_prometheus(scalar), Ok(4.0));
        let empty = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        assert_eq!(of_prometheus(empty).unwrap_err(), "the query finds no series");
        let failed = r#"{"status":"error","error":"parse error"}"#;
        assert_eq!(of_prometheus(failed).unwrap_err(), "Prometheus says: parse error");
    }

    #[test]
    fn a_query_is_encoded_for_an_address() {
        assert_eq!(encoded("rate(x{a=\"b\"}[5m])"), "rate%28x%7Ba%3D%22b%22%7D%5B5m%5D%29");
    }
}
