//! Signals over HTTP, answered by a server of the test; and the recipes of the documentation, as they are written there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;

use pgmend::JobFile;
use pgmend_core::throttle::Source;

use super::stage::{Stage, job};

/// Answers every request with what was last set; keeps the requests' first lines.
struct Answering {
    address: SocketAddr,
    body: Arc<Mutex<String>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Answering {
    fn with(body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let body = Arc::new(Mutex::new(body.to_owned()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, questions) = (Arc::clone(&body), Arc::clone(&asked));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0_u8; 4_096];
                let Ok(length) = stream.read(&mut request) else { continue };
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                let line = text.lines().next().unwrap_or_default().to_owned();
                questions.lock().expect("nobody panics holding it").push(line);
                let body = answer.lock().expect("nobody panics holding it").clone();
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                // Whoever has hung up asks again.
                drop(stream.write_all(format!("{head}{body}").as_bytes()));
            }
        });
        Self { address, body, asked }
    }

    fn set(&self, body: &str) {
        *self.body.lock().expect("nobody panics holding it") = body.to_owned();
    }
}

fn signal(url: &str, rest: &str) -> String {
    format!(
        "[[throttle.http]]\nname = \"web\"\nurl = \"{url}\"\nenter = 5\nleave = 1\npoll_s = 0.1\nstale_s = 5\n{rest}\n"
    )
}

#[test]
fn a_number_from_the_web_holds_a_run_until_it_is_low_again() {
    let web = Answering::with(r#"{"shop":{"p99":"9.5"}}"#);
    let mut stage = Stage::new();
    let url = format!("http://{}/health", web.address);
    let mut running = stage.start(job(&signal(&url, "pointer = \"/shop/p99\"\nunit = \"ms\"")));
    running.held_as("web 9.5 ms ≥ 5");
    web.set(r#"{"shop":{"p99":1}}"#);
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn a_query_of_prometheus_holds_a_run_and_an_answer_without_a_value_does_too() {
    let vector = |value: &str| {
        format!(
            r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{value}"]}}]}}}}"#
        )
    };
    let web = Answering::with(&vector("7"));
    let mut stage = Stage::new();
    let url = format!("http://{}", web.address);
    let text = signal(&url, "prometheus = \"max(pgbouncer_pools_client_waiting_connections)\"");
    let mut running = stage.start(job(&text));
    running.held_as("web 7 ≥ 5");
    let asked = web.asked.lock().expect("nobody panics holding it").first().cloned().expect("it was asked");
    assert_eq!(asked, "GET /api/v1/query?query=max%28pgbouncer_pools_client_waiting_connections%29 HTTP/1.1");
    web.set(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
    running.wait_for("loss", |event| {
        matches!(event, pgmend::Event::Holding { reasons, .. } if reasons[0].text.ends_with("the query finds no series"))
    });
    web.set(&vector("0"));
    running.released();
    let outcome = running.end();
    stage.check(&outcome);
}

#[test]
fn the_recipes_of_the_documentation_are_valid_and_hold_a_run() {
    let page = include_str!("../../../../../docs/throttling.md");
    let recipes: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(recipes.len() >= 5, "{recipes:?}");
    let (mut queries, mut addresses) = (0, 0);
    let web = Answering::with(
        r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"1e9"]}]}}"#,
    );
    for recipe in recipes.into_iter().filter(|recipe| recipe.contains("[[throttle.")) {
        let file = JobFile::parse(recipe).expect("a recipe parses");
        file.throttle.check().expect("a recipe makes sense");
        let mut stage = Stage::new();
        stage
            .sql
            .run(
                "create table request (finished_at timestamptz, failed boolean, took_ms float8);
                 insert into request select now(), true, 9999 from generate_series(1, 1000)",
            )
            .expect("what the recipes of SQL read");
        for signal in file.throttle.signals() {
            match &signal.source {
                Source::Sql { .. } => queries += 1,
                Source::Http { .. } => addresses += 1,
                Source::Builtin { .. } | Source::FlagFile { .. } => {}
            }
        }
        let here = format!("url = \"http://{}\"", web.address);
        let lines = recipe.lines().map(|line| if line.starts_with("url = ") { here.as_str() } else { line });
        let text: Vec<&str> = lines.collect();
        let stopped = stage.start(job(&format!("[throttle]\nhold_max_s = 1\n{}", text.join("\n")))).end();
        assert!(matches!(stopped.state, pgmend::RunState::Paused { .. }), "{recipe}: {stopped:?}");
        assert_eq!(stage.changed(), 0, "{recipe}");
    }
    assert!(queries >= 2 && addresses >= 2, "{queries} of SQL, {addresses} over HTTP");
}
