//! Effects outside the database, which no rollback takes back: looked for in the sources of triggers and
//! in the languages of functions, before anything is rehearsed.

use std::collections::BTreeSet;

use pgmend_core::finding::Finding;
use pgmend_pg::PgError;
use pgmend_pg::readtx::ReadTx;

use crate::plan::bind::Bound;

/// How far calls are followed from a trigger into functions.
const DEPTH_MAX: usize = 4;
/// Extensions whose functions reach other servers or programs; other extensions' C functions compute.
const REACHING_OUT: [&str; 9] =
    ["dblink", "http", "pg_net", "aws_lambda", "aws_s3", "pg_background", "pg_cron", "plsh", "adminpack"];

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Outside {
    pub findings: Vec<Finding>,
    /// Why a rehearsal would have effects that stay.
    pub forbids: Option<String>,
}

/// A function that the change calls.
#[derive(Debug)]
struct Called {
    by: String,
    name: String,
    source: String,
    language: String,
    trusted: bool,
    extension: String,
}

/// Looks through the triggers of the target and of the tables that its foreign keys carry the change to.
pub(super) async fn effects(tx: &ReadTx<'_>, bound: &Bound) -> Result<Outside, PgError> {
    let mut called = triggers(tx, bound.table.oid).await?;
    let direct: Vec<String> = bound.statement.functions().into_iter().map(|call| call.name).collect();
    let mut known: BTreeSet<String> = BTreeSet::new();
    let mut words: BTreeSet<String> = direct.into_iter().collect();
    words.extend(called.iter().flat_map(|c| identifiers(&c.source)));
    for _ in 0..DEPTH_MAX {
        let new: Vec<String> = words.difference(&known).cloned().collect();
        if new.is_empty() {
            break;
        }
        known.extend(new.iter().cloned());
        let found = functions(tx, &new).await?;
        words = found.iter().flat_map(|c| identifiers(&c.source)).collect();
        called.extend(found);
    }
    let mut outside = Outside::default();
    for function in &called {
        judge(function, &mut outside);
    }
    foreign(tx, &known, &mut outside).await?;
    Ok(outside)
}

fn judge(function: &Called, outside: &mut Outside) {
    let name = &function.name;
    let by = if function.by.is_empty() { String::new() } else { format!("trigger {} calls ", function.by) };
    let reaches = REACHING_OUT.contains(&function.extension.as_str());
    let unknown = !function.trusted && function.extension.is_empty();
    let programs = function.language != "c" && runs_programs(&function.source);
    if reaches || unknown || programs {
        let what = if programs {
            "runs programs or writes files".to_owned()
        } else {
            format!("is written in {}", function.language)
        };
        let message = format!("{by}`{name}()`, which {what} and may reach outside the database");
        let help = "what it does there is not rolled back, not repeated exactly once after a crash, and not undone";
        outside.forbids.get_or_insert_with(|| format!("{by}`{name}()`, which may reach outside the database"));
        outside.findings.push(Finding::warning("outside_effects", message, help));
    }
    if function.language != "c" && notifies(&function.source) {
        let message = format!("{by}`{name}()`, which sends notifications (NOTIFY)");
        let help =
            "listeners get them with each batch's commit; a rehearsal sends none, and undo does not take them back";
        outside.findings.push(Finding::warning("outside_effects", message, help));
    }
}

/// Triggers of the target, of its partitions, and of tables that cascades reach.
async fn triggers(tx: &ReadTx<'_>, target: u32) -> Result<Vec<Called>, PgError> {
    let sql = "with recursive reached (oid) as (
                 select $1::text::oid
                 union
                 select next.oid
                   from reached r
                  cross join lateral (
                        select c.conrelid from pg_catalog.pg_constraint c
                         where c.contype = 'f' and c.confrelid = r.oid
                           and (c.confdeltype in ('c', 'n', 'd') or c.confupdtype in ('c', 'n', 'd'))
                        union all
                        select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = r.oid
                        ) as next (oid)
               )
               select t.tgname::text, p.proname::text, p.prosrc, l.lanname::text, l.lanpltrusted::text, coalesce(e.extname::text, case when p.oid < 16384 then 'builtin' end, '')
                 from reached r
                 join pg_catalog.pg_trigger t on t.tgrelid = r.oid and not t.tgisinternal and t.tgenabled in ('O', 'A')
                 join pg_catalog.pg_proc p on p.oid = t.tgfoid
                 join pg_catalog.pg_language l on l.oid = p.prolang
                 left join pg_catalog.pg_depend d
                   on d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
                 left join pg_catalog.pg_extension e on e.oid = d.refobjid
                order by 1, 2";
    let answer = tx.query("read the triggers that will fire", sql, vec![target.to_string()]).await?;
    Ok(answer.rows.into_iter().map(called).collect())
}

/// Functions outside the system's own that go by these names.
async fn functions(tx: &ReadTx<'_>, names: &[String]) -> Result<Vec<Called>, PgError> {
    let sql =
        "select '', p.proname::text, p.prosrc, l.lanname::text, l.lanpltrusted::text, coalesce(e.extname::text, '')
                 from pg_catalog.pg_proc p
                 join pg_catalog.pg_language l on l.oid = p.prolang
                 left join pg_catalog.pg_depend d
                   on d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e'
                 left join pg_catalog.pg_extension e on e.oid = d.refobjid
                where p.oid >= 16384
                  and p.prorettype <> 'pg_catalog.trigger'::regtype
                  and p.proname = any ($1::text[])
                order by 2";
    let answer =
        tx.query("read the functions that triggers call", sql, vec![pgmend_pg::session::array_literal(names)]).await?;
    Ok(answer.rows.into_iter().map(called).collect())
}

fn called(row: Vec<Option<String>>) -> Called {
    let mut cells = row.into_iter().map(Option::unwrap_or_default);
    let mut next = || cells.next().unwrap_or_default();
    Called { by: next(), name: next(), source: next(), language: next(), trusted: next() == "true", extension: next() }
}

/// Foreign tables that triggers or their functions name. Their servers take part in a rollback, but commit by themselves.
async fn foreign(tx: &ReadTx<'_>, words: &BTreeSet<String>, outside: &mut Outside) -> Result<(), PgError> {
    let sql = "select c.relname::text, s.srvname::text
                 from pg_catalog.pg_foreign_table f
                 join pg_catalog.pg_class c on c.oid = f.ftrelid
                 join pg_catalog.pg_foreign_server s on s.oid = f.ftserver
                where c.relname = any ($1::text[])
                order by 1";
    let words: Vec<String> = words.iter().cloned().collect();
    let answer = tx.query("look for foreign tables", sql, vec![pgmend_pg::session::array_literal(&words)]).await?;
    for row in answer.rows {
        let mut cells = row.into_iter().map(Option::unwrap_or_default);
        let (table, server) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        let message = format!("a trigger names foreign table `{table}` of server {server}");
        let help =
            "the other server commits by itself: a crash in between leaves the two apart, and undo does not reach it";
        outside.findings.push(Finding::warning("outside_effects", message, help));
    }
    Ok(())
}

/// Identifiers of a source, folded to lower case as PostgreSQL does.
fn identifiers(source: &str) -> BTreeSet<String> {
    let words = source.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '$');
    words.filter(|w| w.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')).map(str::to_lowercase).collect()
}

fn notifies(source: &str) -> bool {
    let words = identifiers(source);
    words.contains("pg_notify") || words.contains("notify")
}

fn runs_programs(source: &str) -> bool {
    let words = identifiers(source);
    words.contains("lo_export") || words.contains("copy") && words.contains("program")
}

#[cfg(test)]
mod tests {
    use super::{notifies, runs_programs};

    #[test]
    fn a_notification_is_found_by_either_spelling() {
        assert!(notifies("begin PERFORM pg_notify('changed', new.id::text); return new; end"));
        assert!(notifies("begin notify changed; return new; end"));
        assert!(!notifies("begin insert into notifications values (new.id); return new; end"));
    }

    #[test]
    fn a_program_is_found() {
        assert!(runs_programs("execute 'copy t to program ''mail'''"));
        assert!(!runs_programs("begin new.copy_of := old.id; return new; end"));
    }
}
