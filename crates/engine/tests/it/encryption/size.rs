//! What encrypted images take up is what the plan said, about.

use pgmend::{Job, Mode, Observer, PlanOptions, RunOptions, RunState};

use super::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_that_encrypted_images_take_is_about_what_the_plan_says() {
    let mut stage = Stage::new().await;
    stage
        .sql
        .run(
            "create table letter (id bigint primary key, body text not null, at timestamptz not null, n int not null, paid numeric,
                                  mark uuid not null, raw bytea);
             insert into letter select i, repeat('word ', 4 + (i % 9)::int), now(), i, i * 1.25, gen_random_uuid(), sha256(i::text::bytea)
               from generate_series(1, 4000) i;
             analyze letter",
        )
        .expect("a table");
    let columns = "body = body || '.', at = at + interval '1 day', n = n + 1, paid = paid + 1, mark = md5(mark::text)::uuid, raw = raw || raw";
    for (mode, statement) in [
        (Mode::Stream, format!("update letter set {columns}")),
        (Mode::Stream, "update letter set body = body || '!'".to_owned()),
        (Mode::Stream, "update letter set n = n + 1".to_owned()),
    ] {
        let encrypted = Job {
            file: {
                let mut file = stage.job("", Some(mode)).file;
                file.limits.batch_rows = Some(1000);
                file
            },
            ..Job::from_statement("letters", &statement)
        };
        let mut plain = encrypted.clone();
        plain.file.images.recipient = None;
        let plain = Box::pin(stage.engine.plan(&plain, &PlanOptions::default())).await.expect("a plan").plan;
        let planned = Box::pin(stage.engine.plan(&encrypted, &PlanOptions::default())).await.expect("a plan").plan;
        let (said, without) = (planned.estimates.image_bytes.value, plain.estimates.image_bytes.value);
        assert!(said > without + 60 * 4000, "{statement}: {said} encrypted, {without} plain");
        let options = RunOptions::default();
        let done = Box::pin(stage.engine.run(&encrypted, &options, &mut Observer::silent())).await.expect("a run");
        assert_eq!(done.state, RunState::Succeeded);
        let size = "select pg_relation_size(format('pgmend.%I', image_table)) from pgmend.run order by started_at desc limit 1";
        let size: f64 = stage.sql.value(size).expect("a size").expect("a table").parse().expect("bytes");
        let ratio = said as f64 / size;
        assert!((0.75..1.35).contains(&ratio), "{statement}: {said} bytes were said, {size} it takes: {ratio:.2}");
    }
}
