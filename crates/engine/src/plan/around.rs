//! What stands around the target, in sentences, and the findings that follow from it.

use pgmend_core::finding::Finding;
use pgmend_core::job::Mode;
use pgmend_core::plan::Surroundings;
use pgmend_core::table::{Column, ForeignKey, Identity, ReferentialAction, Table, Trigger, quote_ident};
use pgmend_sql::Kind;

use super::bind::Bound;
use super::triggers;

/// Names of columns that count or date a row's versions: a change that ignores them surprises readers.
const VERSION_COLUMNS: [&str; 7] =
    ["version", "lock_version", "row_version", "updated_at", "modified_at", "last_modified", "last_update"];
/// Transactions left before wraparound below which small batches are a bad idea.
const WRAPAROUND_AGE_WARNING: i64 = 1_500_000_000;

/// Sentences about what stands around the target.
pub fn surroundings(bound: &Bound) -> Surroundings {
    around(&bound.table, &[bound.statement.kind()], &bound.statement.assigned())
}

/// The same for any change of a table: what it does, and to which columns.
pub fn around(table: &Table, kinds: &[Kind], assigned: &[String]) -> Surroundings {
    let fires = |t: &&Trigger| {
        kinds.iter().any(|kind| match kind {
            Kind::Update => t.on_update,
            Kind::Delete => t.on_delete,
            Kind::Insert => t.on_insert,
        })
    };
    let triggers = table.triggers.iter().filter(fires).map(|t| {
        let when = if t.before { "before" } else { "after" };
        let each = if t.row { "each row" } else { "the statement" };
        let off = if t.enabled { "" } else { " (disabled)" };
        format!("{} fires {when} {each} and calls {}{off}", t.name, t.function)
    });
    Surroundings {
        triggers: triggers.collect(),
        rules: table.rules.iter().map(|rule| rule.name.clone()).collect(),
        foreign_keys: foreign_keys(table, kinds, assigned),
        row_security: match table.policies {
            0 => "none".into(),
            n => format!("{n} policies, none of which applies to this role"),
        },
        replication: replication(table),
        partitions: table.partitions.iter().map(ToString::to_string).collect(),
    }
}

fn foreign_keys(table: &Table, kinds: &[Kind], assigned: &[String]) -> Vec<String> {
    let act = |action: ReferentialAction| match action {
        ReferentialAction::Reject => "stops the change while rows refer to it",
        ReferentialAction::Cascade => "takes the referring rows along (CASCADE)",
        ReferentialAction::Set => "sets the referring columns (SET NULL or SET DEFAULT)",
    };
    let (updates, deletes, inserts) =
        (kinds.contains(&Kind::Update), kinds.contains(&Kind::Delete), kinds.contains(&Kind::Insert));
    let written = |columns: &[String]| updates && columns.iter().any(|c| assigned.contains(c));
    let incoming = table.referenced_by.iter().map(|fk| match (deletes, written(&fk.to_columns)) {
        (true, _) => format!("{} refers to it: {} {}", fk.from, fk.name, act(fk.on_delete)),
        (false, true) => format!("{} refers to it: {} {}", fk.from, fk.name, act(fk.on_update)),
        (false, false) => format!("{} refers to it ({}): not touched", fk.from, fk.name),
    });
    let outgoing = table.references.iter().map(|fk| {
        if inserts || written(&fk.from_columns) {
            format!("{} is checked against {}", fk.name, fk.to)
        } else {
            format!("it refers to {} ({}): not touched", fk.to, fk.name)
        }
    });
    incoming.chain(outgoing).collect()
}

fn replication(table: &Table) -> String {
    let identity = match table.replica_identity {
        'n' => "nothing: logical replication of updates and deletes would fail",
        'f' => "full: every old row is written to the WAL",
        'i' => "an index",
        _ => "the primary key",
    };
    match table.publications.as_slice() {
        [] => format!("replica identity is {identity}; in no publication"),
        names => format!("replica identity is {identity}; published by {}", names.join(", ")),
    }
}

/// Foreign keys that carry the change into other tables.
pub fn cascades(bound: &Bound) -> Vec<&ForeignKey> {
    let assigned = bound.statement.assigned();
    let carries = |fk: &&ForeignKey| match bound.statement.kind() {
        Kind::Delete => fk.on_delete != ReferentialAction::Reject,
        Kind::Update => fk.on_update != ReferentialAction::Reject && fk.to_columns.iter().any(|c| assigned.contains(c)),
        Kind::Insert => false,
    };
    bound.table.referenced_by.iter().filter(carries).collect()
}

/// Triggers whose source writes tables.
pub fn writing_triggers(bound: &Bound) -> Vec<&str> {
    let writes = |source: &str| {
        let source = source.to_lowercase();
        ["insert", "update", "delete", "execute", "perform", "merge", "call"]
            .iter()
            .any(|verb| source.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == *verb))
    };
    let fires = |t: &&pgmend_core::table::Trigger| {
        t.enabled
            && match bound.statement.kind() {
                Kind::Update => t.on_update,
                Kind::Delete => t.on_delete,
                Kind::Insert => t.on_insert,
            }
    };
    bound.table.triggers.iter().filter(fires).filter(|t| writes(&t.source)).map(|t| t.name.as_str()).collect()
}

/// Whether undo can put every row back, and why.
pub fn reversible(bound: &Bound, keep: bool) -> (bool, String) {
    if !keep {
        return (false, "irreversible: images are switched off".into());
    }
    if bound.key.is_none() && !bound.table.keys.is_empty() {
        return (
            false,
            "irreversible: ON CONFLICT DO UPDATE writes the key, so the rows that it updates cannot be told from new ones"
                .into(),
        );
    }
    if bound.key.is_none() {
        return (false, "irreversible: the table has no usable key, so the new rows cannot be found again".into());
    }
    if let Some(reason) = written_along(bound).or_else(|| refused_on_the_way_back(bound)) {
        return (false, format!("not fully undoable: {reason}"));
    }
    (true, "every changed row is imaged in the batch's own transaction".into())
}

/// Whether an undo puts back the rows of the target at least, where what stays changed is in other rows only.
pub fn partly_undoable(bound: &Bound, keep: bool) -> bool {
    keep && bound.key.is_some() && written_along(bound).is_some() && refused_on_the_way_back(bound).is_none()
}

/// What else changes with the rows of the target, without images.
fn written_along(bound: &Bound) -> Option<String> {
    // What a delete takes along within the table is part of its change set.
    let within = |fk: &&&ForeignKey| {
        bound.statement.kind() == Kind::Delete
            && fk.from == bound.table.name
            && fk.on_delete == ReferentialAction::Cascade
    };
    let cascades: Vec<String> = cascades(bound)
        .iter()
        .filter(|fk| !within(fk))
        .map(|fk| format!("{} (through {})", fk.from, fk.name))
        .collect();
    if !cascades.is_empty() {
        return Some(format!("rows of {} change along and have no images", cascades.join(", ")));
    }
    let triggers = writing_triggers(bound);
    (!triggers.is_empty()).then(|| format!("what trigger {} writes elsewhere has no images", triggers.join(", ")))
}

/// A publication FOR ALL TABLES includes the tables of a run, which its subscribers do not have.
pub fn publications_of_all(names: Option<&str>) -> Option<Finding> {
    let names = names?;
    let message = format!(
        "publication {names} is FOR ALL TABLES and takes pgmend's own tables along: subscribers that lack them stop"
    );
    let help = "publish by schema or by table before the run, or make the tables there too: docs/promises.md";
    Some(Finding::warning("publication_of_all_tables", message, help))
}

/// What may keep a row from coming back as it was.
fn refused_on_the_way_back(bound: &Bound) -> Option<String> {
    let table = &bound.table;
    let kind = bound.statement.kind();
    if let (Some(constraint), true) = (table.unvalidated.first(), kind != Kind::Insert) {
        return Some(format!("constraint {constraint} is NOT VALID, and a row that broke it is not taken again"));
    }
    let generated = bound.key.as_ref().and_then(|key| table.key_columns(key).find(|c| c.generated));
    if let (Some(column), true) = (generated, bound.class.key_written) {
        return Some(format!("the key `{}` is generated from what the statement writes", column.name));
    }
    let assigned = bound.statement.assigned();
    let always = |c: &&Column| c.identity == Some(Identity::Always) && assigned.contains(&c.name);
    if let (Some(column), Kind::Update) = (table.columns.iter().find(always), kind) {
        return Some(format!(
            "only the server gives values to `{}`, which is GENERATED ALWAYS AS IDENTITY",
            column.name
        ));
    }
    let fires_back = |t: &&Trigger| match kind {
        Kind::Update => t.on_update,
        Kind::Delete => t.on_insert,
        Kind::Insert => false,
    };
    let mut triggers = table.triggers.iter().filter(|t| t.enabled && t.row && t.before).filter(fires_back);
    let assigning = triggers.find(|t| !triggers::assigned(&t.source).is_empty())?;
    Some(format!("trigger {} decides values again when rows come back", assigning.name))
}

/// Findings about the target and the statement.
pub fn findings(bound: &Bound) -> Vec<Finding> {
    let mut findings = bound.class.findings.clone();
    let table = &bound.table;
    let assigned = bound.statement.assigned();
    if bound.statement.kind() == Kind::Update {
        for name in VERSION_COLUMNS {
            if table.column(name).is_some_and(|c| !c.generated)
                && !assigned.iter().any(|a| a == name)
                && !bound.before_triggers()
            {
                let message = format!("`{}` has a column `{name}` that the statement leaves as it is", table.name);
                let help = format!("if the application relies on it, set it too: {name} = …");
                findings.push(Finding::warning("ignored_version_column", message, help));
            }
        }
    }
    findings.extend(bound.key.as_ref().and_then(|key| unversioned_key(table, &key.index)));
    if bound.scattered && bound.class.mode == Mode::Stream {
        let message = "the key is in another order than the table's pages, which are more than half of the server's cache: \
                       batches come back to the same pages";
        let help = "where most of a large table changes, `--mode freeze` goes in the order of the pages: less WAL, less reading";
        findings.push(Finding::note("scattered_key", message, help));
    }
    if bound.statement.had_returning() {
        findings.push(Finding::note(
            "returning",
            "RETURNING is left out",
            "read the changed rows from the run's images",
        ));
    }
    if bound.statement.locks_rows() {
        let message = "FOR UPDATE or SKIP LOCKED in the statement is left out: each batch locks what it changes";
        findings.push(Finding::note("row_locks", message, ""));
    }
    if table.persistence == 'u' {
        let message = format!("`{}` is unlogged: a crash of the server empties it, the checkpoint stays", table.name);
        findings.push(Finding::warning("unlogged", message, "do not count on resuming after a server crash"));
    }
    if table.replica_identity == 'n' && !table.publications.is_empty() && bound.statement.kind() != Kind::Insert {
        let message =
            format!("`{}` is published but has no replica identity: the server will reject the change", table.name);
        findings.push(Finding::warning("replica_identity", message, "alter table … replica identity using index …"));
    }
    if !table.publications.is_empty() {
        let message = "consumers of logical replication see each batch as a transaction of its own";
        findings.push(Finding::note("publication", message, "set rows_per_transaction_max if they need small ones"));
    }
    if bound.before_triggers() {
        let message = "a BEFORE trigger may change what is stored; images hold every column, as the server stored it";
        findings.push(Finding::note("before_trigger", message, ""));
    }
    let names: Vec<&str> = table.triggers.iter().filter(|t| t.enabled && t.row).map(|t| t.name.as_str()).collect();
    if !names.is_empty() && bound.statement.kind() != Kind::Insert {
        let message = format!("triggers run with this role's rights: {}", names.join(", "));
        findings.push(Finding::note("triggers", message, "plan --rehearse 3 shows what they touch"));
    }
    if let Some((_, reason)) = &bound.class.one_transaction {
        let message = format!("all rows change in one transaction: {reason}");
        findings.push(Finding::warning("one_transaction", message, "its locks are held until the end"));
    }
    findings
}

/// The order of a key that nothing vouches for: not even that it has changed can be told.
fn unversioned_key(table: &Table, index: &str) -> Option<Finding> {
    table.unversioned_keys.iter().any(|name| name == index).then(|| {
        let message = format!(
            "nothing records which version of its collation the key {index} was built with: if the server's libraries \
             were upgraded since, ranges may miss rows"
        );
        let help = format!(
            "in doubt, before the run: reindex index concurrently {}; see pgmend explain PM305",
            quote_ident(index)
        );
        Finding::note("collation_version", message, help)
    })
}

/// The finding on transaction ids, from `age(datfrozenxid)`.
pub fn wraparound(age: i64, batches: i64) -> Option<Finding> {
    (age + batches > WRAPAROUND_AGE_WARNING).then(|| {
        let message = format!("the database is {age} transactions from its last freeze, and this run adds {batches}");
        Finding::warning("wraparound", message, "let autovacuum finish first, or use larger batches")
    })
}
