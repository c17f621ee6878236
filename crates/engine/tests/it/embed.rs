//! The example of docs/library.md does what the page says.

use pgmend::RunState;
use pgmend_testkit::{Database, Server};

#[path = "../../examples/embed.rs"]
#[expect(dead_code, reason = "its main function reads a command line")]
mod example;

#[tokio::test(flavor = "multi_thread")]
async fn the_example_plans_runs_and_undoes() {
    let db = Database::create(Server::shared(), "embed").expect("a database");
    let mut sql = db.sql().expect("a session");
    sql.run(
        "create table users (id int primary key, role text not null);
         insert into users select i, case when i % 4 = 0 then 'memeber' else 'member' end from generate_series(1, 1000) i",
    )
    .expect("the table");
    let content = "select md5(string_agg(u::text, '' order by id)) from users u";
    let before = sql.value(content).expect("the content");
    let statement = "update users set role = 'member' where role = 'memeber'";
    let (run, undo) = example::embed(&db.url(), statement).await.expect("the example");
    assert_eq!((run.state, run.changed_rows), (RunState::Succeeded, 250));
    assert_eq!((undo.state, undo.changed_rows, undo.conflict_rows), (RunState::Succeeded, 250, 0));
    assert_eq!(sql.value(content).expect("the content"), before);
}
