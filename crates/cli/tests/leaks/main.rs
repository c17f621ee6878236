//! Values that must not be seen are planted in every place that a value can come from, and looked for in everything
//! that pgmend prints, logs or keeps for people, and in all that a login which only reads finds with plain SQL.

mod reader;
mod stage;

use stage::{BYTES, NUMBER, Stage, TEXT};

const CHANGE: &str = "update person set name = name || :more, tier = 'griffin', doc = doc || :patch, raw = raw || :tail \
                      where amount < :most";

/// A job folder, since parameters of unusual types are declared.
fn write_job(stage: &Stage) {
    let folder = stage.folder.path().join("change");
    std::fs::create_dir_all(&folder).expect("a folder");
    let toml = "[params.more]\ntype = \"text\"\nvalue = \"wyvern\"\n[params.patch]\ntype = \"jsonb\"\nvalue = '{\"x\": \"wyvern\"}'\n\
                [params.tail]\ntype = \"bytea\"\nvalue = '\\x77797665726e'\n[params.most]\ntype = \"numeric\"\nvalue = \"918273600.5\"\n\
                [limits]\nbatch_rows = 10\n[expect]\nwatch = [{ name = \"one\", key = [\"wyvern003@example.org\"] }]\n\
                unchanged = [\"select min(email) from person\"]\n[canary]\nrows = 5\n";
    std::fs::write(folder.join("job.toml"), toml).expect("job.toml");
    std::fs::write(folder.join("change.sql"), CHANGE).expect("change.sql");
}

#[test]
fn a_run_and_all_that_people_read_about_it_show_no_planted_value() {
    let mut stage = Stage::new();
    write_job(&stage);
    stage.both(&["plan", "change"], 0);
    stage.both(&["plan", "change", "--by", "name", "--rehearse"], 0);
    stage.typed(&["run", "change", "--stop-after-batches", "2", "--execute"]);
    stage.both(&["status", "change"], 0);
    let run = stage.typed(&["run", "change", "--execute"]);
    assert_eq!(run.status.code(), Some(0), "{:?}", stage.said.last());
    stage.both(&["status", "change"], 0);
    stage.both(&["list"], 0);
    stage.both(&["report", "change"], 0);
    stage.both(&["ledger", "export"], 0);
    stage.both(&["ledger", "verify"], 0);
    stage.both(&["undo", "change"], 0);
    // Some rows are changed by somebody else: conflicts, listed by their keys.
    stage.sql().run("update person set name = 'Ms wyvern again' where email like 'wyvern00%'").expect("somebody else");
    let undo = stage.typed(&["undo", "change", "--execute"]);
    assert_eq!(undo.status.code(), Some(7), "{:?}", stage.said.last());
    let id = stage.sql().value("select run_id from pgmend.run where kind = 'undo'").expect("a run").expect("an id");
    stage.both(&["status", &id], 0);
    stage.both(&["report", &id], 0);
    stage.typed(&["trace", "person", "wyvern001@example.org", "--output", "json"]);
    stage.typed(&["trace", "person", "wyvern001@example.org"]);
    // The line that echoes what was typed says nothing new.
    if let Some((_, text)) = stage.said.last_mut() {
        *text = text.lines().skip(1).collect::<Vec<_>>().join("\n");
    }
    stage.both(&["prune", "--older-than", "0"], 0);
    stage.assert_nothing_leaked();
    let shown = stage.said.iter().filter(|(line, _)| line.starts_with("plan"));
    assert!(shown.clone().count() == 4 && shown.clone().all(|(_, text)| text.contains('‹')), "tokens stand for values");
}

#[test]
fn a_failing_run_shows_no_value_of_the_row_that_failed() {
    let mut stage = Stage::new();
    stage.fails("unique", "update person set code = lower(code)", &[]);
    stage.fails("foreign-key", "update person set boss = name", &[]);
    stage.fails("not-null", "update person set code = nullif(left(code, 3), left(code, 3))", &[]);
    stage.fails("check", "update person set amount = amount * 1000000", &[]);
    stage.fails("number", "update person set rank = name::int", &[]);
    stage.fails("range", "update person set rank = digits::int", &[]);
    stage.fails("date", "update person set born = name::date", &[]);
    stage.fails("to-date", "update person set born = to_date(name, 'YYYY-MM-DD')", &[]);
    stage.fails("json", "update person set extra = name::json", &[]);
    stage.fails("array", "update person set tier = (name::text[])[1]", &[]);
    stage.fails("param", "update person set rank = cast(:who as text)::int", &["--param", "who=wyvern"]);
    stage.fails("frozen", "update person set rank = name::int", &["--mode", "freeze"]);
    stage.fails("frozen-unique", "update person set code = lower(code) where code is not null", &["--mode", "freeze"]);
    stage.fails("literal", "update person set rank = 'griffin'::text::int", &[]);
    stage.fails("ambiguous", "update person p set name = n.name from news n where n.email = p.email", &[]);
    stage.fails("moved", "update person set email = replace(email, '001@', '002@') where email like '%001@%'", &[]);
    stage.fails(
        "expected",
        "update person set tier = 'x' where name like :p",
        &["--param", "p=%wyvern%", "--expect", "3"],
    );
    stage.both(&["list"], 0);
    stage.typed(&["ledger", "export"]);
    stage.assert_nothing_leaked();
}

#[test]
fn conflicts_inserts_and_deletes_show_no_value() {
    let mut stage = Stage::new();
    stage.both(&["plan", "-c", "delete from person where tier = 'none' and boss is null", "--name", "gone"], 0);
    stage.both(&["plan", "-c", "insert into fresh select email, name from person", "--name", "fresh"], 0);
    stage.typed(&[
        "plan",
        "-c",
        "update person set tier = 'x' where name like 'Ms %'",
        "--name",
        "late",
        "--mode",
        "freeze",
    ]);
    let plan = stage.newest_plan();
    stage.sql().run("update person set tier = 'wyvern' where email < 'wyvern005'").expect("somebody else");
    let late = stage.typed(&["run", &plan, "--execute"]);
    assert_eq!(late.status.code(), Some(7), "{:?}", stage.said.last());
    stage.both(&["status", "late"], 0);
    stage.both(&["report", "late"], 0);
    let gone = ["run", "-c", "delete from person where tier = 'x'", "--name", "gone", "--execute"];
    assert_eq!(stage.typed(&gone).status.code(), Some(0), "{:?}", stage.said.last());
    stage.both(&["undo", "gone"], 0);
    let fresh = ["run", "-c", "insert into fresh select email, name from person", "--name", "fresh", "--execute"];
    assert_eq!(stage.typed(&fresh).status.code(), Some(0), "{:?}", stage.said.last());
    // Taken again: a unique value of the fresh rows.
    stage.fails("again", "insert into fresh select email, name from person where true", &[]);
    stage.both(&["report", "fresh"], 0);
    stage.both(&["undo", "fresh"], 0);
    stage.assert_nothing_leaked();
}

#[test]
fn rows_that_are_set_aside_show_no_value() {
    let mut stage = Stage::new();
    // Every third amount breaks a constraint, whose DETAIL is the whole row; the first batch has good rows, too.
    let statement =
        "update person set amount = amount * case when amount::bigint % 3 = 0 then 1000000 else 2 end / 2 + 1";
    let run = ["run", "-c", statement, "--name", "aside", "--batch-rows", "10", "--dead-letters", "40", "--execute"];
    assert_eq!(stage.typed(&run).status.code(), Some(7), "{:?}", stage.said.last());
    stage.both(&["dead-letters", "aside"], 0);
    stage.typed(&["dead-letters", "aside", "--export", "letters.jsonl"]);
    let exported = std::fs::read_to_string(stage.folder.path().join("letters.jsonl")).expect("an export");
    assert!(exported.contains("23514"), "{exported}");
    stage.said.push(("the export".into(), exported));
    stage.typed(&["dead-letters", "aside", "--retry", "--execute"]);
    stage.both(&["status", "aside"], 0);
    stage.both(&["report", "aside"], 0);
    stage.typed(&["undo", "aside", "--execute"]);
    let messages =
        "select string_agg(concat_ws(' ', message, constraint_name, column_name), ' ') from pgmend.dead_letter";
    let messages = stage.sql().value(messages).expect("the letters").unwrap_or_default();
    stage.said.push(("the messages".into(), messages));
    stage.assert_nothing_leaked();
}

/// Raises whatever it is told, with the row's values in every place that an error has.
const RAISING: &str = r#"
    create function raising() returns trigger language plpgsql as $$
    begin
        case new.tier
            when 'plain' then
                raise exception 'no % for %', new.email, new.name using detail = new.email, hint = new.name;
            when 'check' then
                raise exception '% owes %', new.name, new.amount using errcode = '23514', constraint = new.email, column = new.code,
                    hint = new.name;
            when 'input' then raise exception 'bad % here', new.name using errcode = '22023';
            when 'assert' then assert false, 'asserted ' || new.name;
            when 'built' then execute 'select ' || new.name || ' from nowhere';
            when 'named' then execute format('select %I from news', new.email);
            when 'guard' then raise exception '% is taken over', new.name using errcode = 'PM505', schema = new.name;
            when 'pause' then raise exception 'wait for %', new.name using errcode = 'PM530', hint = new.email;
            when 'deep' then perform (select ('{"x": ' || new.name || '}')::json);
            else null;
        end case;
        return new;
    end $$;
    create trigger raising before update on person for each row execute function raising();
"#;

#[test]
fn what_a_trigger_raises_is_masked_in_everything() {
    let mut stage = Stage::new();
    stage.sql().run(RAISING).expect("the trigger");
    for tier in ["plain", "check", "input", "assert", "built", "named", "guard", "pause", "deep"] {
        stage.fails(tier, &format!("update person set tier = '{tier}'"), &[]);
        stage.fails(
            &format!("{tier}-frozen"),
            &format!("update person set tier = '{tier}' where true"),
            &["--mode", "freeze"],
        );
        stage.typed(&[
            "plan",
            "-c",
            &format!("update person set tier = '{tier}'"),
            "--name",
            "rehearsed",
            "--rehearse",
        ]);
    }
    let plain =
        stage.said.iter().find(|(line, _)| line.starts_with("run") && line.contains("--name plain ")).expect("it ran");
    assert!(plain.1.contains("function raising() raised an error, whose text is masked (P0001)"), "{}", plain.1);
    assert!(plain.1.contains("--show-values --execute"), "{}", plain.1);
    // Not a lease that was lost, nor a wish to pause, whatever SQLSTATE the trigger borrows: the run has failed.
    for (name, code) in [("guard", "PM505"), ("pause", "PM530")] {
        let named = format!("--name {name} ");
        let ran = stage.said.iter().find(|(line, _)| line.starts_with("run") && line.contains(&named)).expect("it ran");
        let said =
            format!("function raising() raised an error, whose text is masked, with a {code} of its own (P0001)");
        assert!(ran.1.contains(&said), "{}", ran.1);
    }
    // Every third row is set aside, with what its trigger raised.
    let statement = "update person set tier = case when amount::bigint % 3 = 0 then 'check' else 'fine' end";
    let run = ["run", "-c", statement, "--name", "aside", "--batch-rows", "10", "--dead-letters", "40", "--execute"];
    assert_eq!(stage.typed(&run).status.code(), Some(7), "{:?}", stage.said.last());
    stage.both(&["dead-letters", "aside"], 0);
    stage.typed(&["dead-letters", "aside", "--retry", "--execute"]);
    stage.both(&["report", "aside"], 0);
    stage.both(&["status", "aside"], 0);
    let kept = "select string_agg(concat_ws(' ', message, constraint_name, column_name), ' ') from pgmend.dead_letter";
    let kept = stage.sql().value(kept).expect("the letters").unwrap_or_default();
    assert!(kept.contains("function raising() raised an error"), "{kept}");
    stage.said.push(("the letters".into(), kept));
    stage.assert_nothing_leaked();
}

#[test]
fn whoever_asks_for_values_sees_the_error_in_full_and_it_is_kept_nowhere() {
    let mut stage = Stage::new();
    stage.sql().run(RAISING).expect("the trigger");
    let run = ["run", "-c", "update person set tier = 'plain'", "--name", "plain", "--execute", "--show-values"];
    assert_eq!(stage.typed(&run).status.code(), Some(5), "{:?}", stage.said.last());
    let run_id = stage.sql().value("select run_id from pgmend.run").expect("a run").expect("an id");
    for line in [
        &["run", &run_id, "--show-values", "--execute"][..],
        &["resume", &run_id, "--show-values"],
        &["run", &run_id, "--execute"],
    ] {
        stage.typed(line);
    }
    let in_full =
        |said: &str| said.contains("the database says, shown here only: no wyvern") && said.contains("DETAIL: wyvern");
    let shown: Vec<bool> = stage.said.iter().skip(1).map(|(_, said)| in_full(said)).collect();
    assert_eq!(shown, [true, true, true, false], "{:?}", stage.said);
    stage.said.clear();
    stage.both(&["status", "plain"], 0);
    stage.both(&["report", "plain"], 0);
    // The first line asked for values in its plan as well: what a plan shows is kept with it.
    stage
        .sql()
        .run("update pgmend.plan set body = (body::jsonb - array['samples', 'transitions', 'explain'])::text")
        .expect("not these");
    stage.assert_nothing_leaked();
}

/// The secret and the public half of a key that is used nowhere else.
fn key_pair() -> (String, String) {
    use age::secrecy::ExposeSecret as _;
    let identity = age::x25519::Identity::generate();
    (identity.to_string().expose_secret().to_owned(), identity.to_public().to_string())
}

#[test]
fn with_a_recipient_not_even_the_images_hold_a_planted_value() {
    let mut stage = Stage::new();
    stage.sql().run("create extension pgcrypto").expect("pgcrypto");
    let (secret, recipient) = key_pair();
    std::fs::write(stage.folder.path().join("key.txt"), format!("# a key\n{secret}\n")).expect("a key");
    stage.sql().run("alter table person drop constraint person_boss_fkey; alter table person drop constraint person_pkey, add id int generated always as identity primary key").expect("a key without values");
    let common = ["--images-recipient", &recipient, "--batch-rows", "10", "--execute"];
    for (name, statement, mode) in [
        ("streamed", "update person set name = name || '!', raw = raw || raw", "stream"),
        ("frozen", "update person set doc = doc || doc, amount = amount - 1", "freeze"),
        ("gone", "delete from person where id % 3 = 0", "freeze"),
    ] {
        let run: Vec<&str> =
            ["run", "-c", statement, "--name", name, "--mode", mode].iter().chain(&common).copied().collect();
        assert_eq!(stage.typed(&run).status.code(), Some(0), "{:?}", stage.said.last());
        stage.both(&["status", name], 0);
        stage.both(&["report", name], 0);
        stage.both(&["undo", name], 3);
        stage.both(&["trace", "person", "7"], 0);
        stage.both(&["undo", name, "--identity", "key.txt"], 0);
        let undo = stage.typed(&["undo", name, "--identity", "key.txt", "--execute"]);
        assert_eq!(undo.status.code(), Some(0), "{:?}", stage.said.last());
    }
    // Change sets that were planned and never run are dropped with their plans.
    stage.sql().run("update pgmend.plan set expires_at = now() - interval '1 hour'").expect("a day later");
    stage.both(&["prune", "--older-than", "30", "--execute"], 0);
    stage.assert_nothing_leaked();
    assert!(stage.said.iter().all(|(_, text)| !text.contains(&secret)), "the identity is printed");
    let tables = "select format('select string_agg(t::text, '' '') from pgmend.%I t', relname) from pg_class \
                  where relnamespace = 'pgmend'::regnamespace and relkind = 'r' and relname ~ '^(image|change_set|encrypting|dead|conflict)'";
    let tables: Vec<String> = stage.sql().run(tables).expect("the tables").into_iter().flatten().flatten().collect();
    assert!(tables.len() > 6, "{tables:?}");
    for query in tables {
        let rows = stage.sql().value(&query).expect("its rows").unwrap_or_default().to_lowercase();
        for planted in [TEXT, NUMBER, BYTES] {
            assert!(!rows.contains(planted), "{query} shows {planted}");
        }
    }
}
