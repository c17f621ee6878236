//! A login that may only read, with plain SQL and with pgmend's own commands: it finds no planted value.

use pgmend_testkit::Sql;

use crate::stage::{BYTES, NUMBER, Stage, TEXT};

/// Each column that the login may read, and whether random digits may stand there.
const COLUMNS: &str = "
    select format('select string_agg(%I::text, '' '') from pgmend.%I', a.attname, c.relname),
           a.atttypid in ('uuid'::regtype, 'bytea'::regtype, 'xid8'::regtype) or a.attname in ('digest', 'signature', 'hash')
      from pg_class c join pg_attribute a on a.attrelid = c.oid
     where c.relnamespace = 'pgmend'::regnamespace and c.relkind in ('r', 'p', 'v', 'm') and a.attnum > 0 and not a.attisdropped
       and has_column_privilege(c.oid, a.attnum, 'select')
     order by c.relname, a.attnum";
/// What functions give beside, without the parts of a plan that are the statement as it was typed.
const FUNCTIONS: [&str; 6] = [
    "select string_agg(to_json(f)::text, ' ') from pgmend.run r, pgmend.conflicts_of(r.run_id) f",
    "select string_agg(to_json(f)::text, ' ') from pgmend.run r, pgmend.dead_letters_of(r.run_id) f",
    "select string_agg(to_json(pgmend.upper_bound_of(r.run_id))::text, ' ') from pgmend.run r",
    "select string_agg((f.body::jsonb - array['statement', 'canonical', 'sql', 'sweep', 'undo_where'])::text, ' ')
       from pgmend.plan p, pgmend.plan_body(p.plan_id) f",
    "select string_agg(to_json(f)::text, ' ') from pgmend.plan p, pgmend.guardrails(p.plan_id) f",
    "select to_json(f)::text from pgmend.current_policy() f",
];

/// Fails if the login of the stage that may only read finds a planted value.
pub fn assert_blind(stage: &Stage) {
    let mut sql = Sql::connect(&stage.db.url_for(&stage.observer)).expect("a session");
    let columns = sql.run(COLUMNS).expect("the columns");
    assert!(columns.len() > 100, "an observer reads most of the schema: {}", columns.len());
    let columns = columns.into_iter().map(|row| {
        let [query, random] = <[Option<String>; 2]>::try_from(row).expect("two columns");
        (query.expect("a query"), random.as_deref() == Some("t"))
    });
    // A body holds digests and ids, where any six digits may stand.
    let functions = FUNCTIONS.map(|query| (query.to_owned(), query.contains("plan_body")));
    for (query, random) in columns.chain(functions) {
        let found = sql.value(&query).expect(&query).unwrap_or_default().to_lowercase();
        for planted in [TEXT, BYTES].iter().chain((!random).then_some(&NUMBER)) {
            let at = found.find(planted);
            let around = at.and_then(|at| found.get(at.saturating_sub(150)..(at + 60).min(found.len())));
            assert!(at.is_none(), "an observer reads {planted} by `{query}`: {around:?}");
        }
    }
}

#[test]
fn an_observer_reads_keys_as_tokens_with_plain_sql_and_with_every_command() {
    let mut stage = Stage::new();
    // Ranges of keys for two workers, whose bounds are keys; every third row is set aside.
    let statement =
        "update person set amount = amount * case when amount::bigint % 3 = 0 then 1000000 else 2 end / 2 + 1";
    let divided = ["--workers", "2", "--batch-rows", "3", "--dead-letters", "40", "--execute"];
    let run: Vec<&str> = ["run", "-c", statement, "--name", "aside"].into_iter().chain(divided).collect();
    assert_eq!(stage.typed(&run).status.code(), Some(7), "{:?}", stage.said.last());
    let tenants = ["--tenant-column", "name", "--mode", "freeze", "--execute"];
    let run: Vec<&str> =
        ["run", "-c", "update person set tier = 'x'", "--name", "each"].into_iter().chain(tenants).collect();
    assert_eq!(stage.typed(&run).status.code(), Some(0), "{:?}", stage.said.last());
    let run = ["run", "-c", "update person set tier = tier || '!'", "--name", "late", "--execute"];
    assert_eq!(stage.typed(&run).status.code(), Some(0), "{:?}", stage.said.last());
    stage.sql().run("update person set tier = 'other' where email like 'wyvern00%'").expect("somebody else");
    assert_eq!(stage.typed(&["undo", "late", "--execute"]).status.code(), Some(7), "{:?}", stage.said.last());
    let kept = "select (select count(*) from pgmend.partition where upper::text like '%wyvern%') || ' '
                    || (select count(*) from pgmend.dead_letter where key::text like '%wyvern%') || ' '
                    || (select count(*) from pgmend.conflict where key::text like '%wyvern%')";
    let kept = stage.sql().value(kept).expect("counts").expect("counts");
    assert!(kept.split(' ').all(|count| count != "0"), "keys are kept, for whoever drives a run: {kept}");

    let undo = stage.sql().value("select run_id from pgmend.run where kind = 'undo'").expect("a run").expect("an id");
    let url = stage.db.url_for(&stage.observer);
    let token =
        |text: &str| text.split_once("email=‹").and_then(|(_, rest)| rest.split_once('›')).map(|(t, _)| t.to_owned());
    for (words, code) in [
        (&["list"][..], 0),
        (&["status"], 0),
        (&["status", "aside"], 0),
        (&["status", "each"], 0),
        (&["status", &undo], 0),
        (&["report", "aside"], 0),
        (&["report", "each"], 0),
        (&["report", &undo], 0),
        (&["dead-letters", "aside"], 0),
        (&["ledger", "export"], 0),
    ] {
        let output = stage.typed_at(&url, words);
        let said = stage.said.last().map(|(_, text)| text.clone()).unwrap_or_default();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        // The token of a key is that which those see who may make tokens.
        if stage.typed(words).status.code() == Some(code) {
            let theirs = stage.said.last().map(|(_, text)| text.clone()).unwrap_or_default();
            assert_eq!(token(&said), token(&theirs), "{words:?}: {said}\n{theirs}");
        }
    }
    let letters = stage.said.iter().find(|(line, _)| line == "dead-letters aside").expect("it was typed");
    assert!(token(&letters.1).is_some_and(|token| token != "masked"), "{}", letters.1);
    stage.assert_nothing_leaked();
    // And whoever drives a run reads keys as they are.
    let mut owner = stage.sql();
    let same = "select bool_and(f.key = c.key) from pgmend.conflict c join pgmend.conflicts_of(c.run_id) f using (n)";
    assert_eq!(owner.value(same).expect("an answer").as_deref(), Some("t"));
}
