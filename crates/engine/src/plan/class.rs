//! The class of a statement over its target: what may be streamed, what must be frozen, what must be one
//! transaction, what is refused. Pure: facts in, verdict out. Whatever is not proved row-local is frozen, since one
//! snapshot always gives the plain statement's result (hazards H1, H5, H6, H22).

use std::collections::BTreeSet;

use pgmend_core::finding::Finding;
use pgmend_core::job::Mode;
use pgmend_core::refusal::{Code, Refusal};
use pgmend_core::table::{ForeignKey, Key, ReferentialAction, Table, Trigger};
use pgmend_pg::catalog::Volatility;
use pgmend_sql::{Kind, Place, Statement};

use super::facts::Facts;
use super::triggers;

/// The verdict.
#[derive(Debug, Clone)]
pub struct Class {
    /// Stream or freeze.
    pub mode: Mode,
    /// Why.
    pub reason: String,
    /// Each row's change depends on that row alone, so that the statement means the same when it is asked
    /// again: only then do rows that still match after the run say anything.
    pub row_local: bool,
    /// Why all rows must be in one transaction, if they must.
    pub one_transaction: Option<(Code, String)>,
    /// The statement writes its key.
    pub key_written: bool,
    /// Things to know.
    pub findings: Vec<Finding>,
}

/// Everything that the verdict depends on.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The statement.
    pub statement: &'a Statement,
    /// The target.
    pub table: &'a Table,
    /// The key, if there is one.
    pub key: Option<&'a Key>,
    /// What the catalog says.
    pub facts: &'a Facts,
    /// Functions that the job declares to read only.
    pub trusted: &'a [String],
}

impl Case<'_> {
    /// Judges the statement.
    pub fn class(self) -> Result<Class, Refusal> {
        let mut findings = Vec::new();
        let key_written = self.key_written();
        let mut freeze = self.volatile(&mut findings)?;
        freeze = freeze.or_else(|| self.set_dependent());
        if self.statement.may_hide_clock() {
            freeze = freeze.or(Some("a text such as 'today' may read the clock, anew in every batch".into()));
        }
        if key_written {
            freeze = freeze.or(Some("the statement writes its key, so rows could reappear ahead of the cursor".into()));
        }
        let row_local = freeze.is_none();
        if self.statement.kind() == Kind::Insert {
            freeze = Some("an insert's rows are computed once, so that a rerun cannot propose other rows".into());
        }
        let one_transaction = self.one_transaction();
        if one_transaction.is_some() {
            freeze = freeze.or(Some("all rows must change in one transaction".into()));
        }
        let mode = if freeze.is_some() { Mode::Freeze } else { Mode::Stream };
        let reason = freeze.unwrap_or_else(|| {
            "each row's new values depend on that row and on tables that the statement does not write".into()
        });
        Ok(Class { mode, reason, row_local, one_transaction, key_written, findings })
    }

    fn key_written(&self) -> bool {
        let Some(key) = self.key else { return false };
        if self.statement.kind() != Kind::Update {
            return false;
        }
        let assigned = self.statement.assigned();
        let mut decided = BTreeSet::new();
        for trigger in self.table.triggers.iter().filter(|t| t.enabled && t.row && t.before && t.on_update) {
            decided.extend(triggers::assigned(&trigger.source));
        }
        self.table.key_columns(key).any(|c| {
            // What a generated key is made of may be among the assigned columns.
            c.generated || assigned.contains(&c.name) || decided.contains(&c.name.to_lowercase())
        })
    }

    /// Volatile functions: refused where they select rows, frozen where they give values, and refused
    /// where they may write.
    fn volatile(&self, findings: &mut Vec<Finding>) -> Result<Option<String>, Refusal> {
        let mut freeze = None;
        for (call, found) in &self.facts.functions {
            let trusted = self.trusted.iter().any(|t| t.rsplit('.').next() == Some(&call.name));
            let unsure = found.volatility == Volatility::Volatile && !trusted;
            if unsure && call.place == Place::Where {
                let message =
                    format!("`{}()` is volatile, so which rows change would be decided anew by every batch", call.name);
                let help = if found.user_defined {
                    format!("declare the function STABLE if it is, or pass --trust-function {}", call.name)
                } else {
                    "select the rows by something stored, for example a hash of the key".to_owned()
                };
                return Err(Refusal::new(Code::VolatilePredicate, message, help));
            }
            if unsure && found.user_defined {
                let message = format!(
                    "`{}()` is VOLATILE and may write: a dry run would call it, and undo could not take it back",
                    call.name
                );
                let help = format!("declare it STABLE if it only reads, or pass --trust-function {}", call.name);
                return Err(Refusal::new(Code::SideEffects, message, help));
            }
            if unsure {
                let message = format!(
                    "`{}()` gives another value on each call; the values of this plan's change set are the ones that will be written",
                    call.name
                );
                findings.push(Finding::note("volatile_value", message, ""));
                freeze
                    .get_or_insert(format!("`{}()` is volatile: its values are computed once, for review", call.name));
            } else if found.user_defined && found.volatility != Volatility::Immutable {
                freeze.get_or_insert(format!(
                    "`{}()` is not IMMUTABLE and may read rows that earlier batches changed",
                    call.name
                ));
            }
        }
        if let Some(operator) = &self.facts.unknown_operator {
            freeze.get_or_insert(format!("operator {operator} calls a function that is not IMMUTABLE"));
        }
        Ok(freeze)
    }

    fn set_dependent(&self) -> Option<String> {
        for (name, relation) in &self.facts.relations {
            if relation.reads_target {
                return Some(format!(
                    "the statement reads `{name}` while changing it: later batches would see earlier changes"
                ));
            }
            if relation.calls_unknown {
                return Some(format!("view `{name}` calls a function that is not IMMUTABLE"));
            }
            if self.cascades_into(name) {
                return Some(format!("the statement reads `{name}`, which its own cascades write"));
            }
        }
        if self.statement.aggregates_elsewhere() {
            return Some(
                "the statement computes a set (WITH, aggregate, LIMIT …) that every batch would compute anew".into(),
            );
        }
        None
    }

    fn cascades_into(&self, relation: &str) -> bool {
        self.table
            .referenced_by
            .iter()
            .any(|fk| fk.from.name == relation && self.action(fk) != ReferentialAction::Reject)
    }

    fn action(&self, fk: &ForeignKey) -> ReferentialAction {
        match self.statement.kind() {
            Kind::Delete => fk.on_delete,
            Kind::Update if fk.to_columns.iter().any(|c| self.statement.assigned().contains(c)) => fk.on_update,
            Kind::Update | Kind::Insert => ReferentialAction::Reject,
        }
    }

    /// Why intermediate states between batches would break a rule that the plain statement keeps.
    fn one_transaction(&self) -> Option<(Code, String)> {
        let fires: Vec<&Trigger> = self.table.triggers.iter().filter(|t| t.enabled && self.fires(t)).collect();
        if let Some(trigger) = fires.iter().find(|t| !t.row) {
            return Some((
                Code::StatementTrigger,
                format!("statement-level trigger `{}` would fire once per batch", trigger.name),
            ));
        }
        if self.statement.on_conflict().is_some_and(|c| c.update && c.complex) {
            let reason = "ON CONFLICT DO UPDATE infers an index with an expression or a predicate, where only one statement finds duplicates of the source";
            return Some((Code::NotSplittable, reason.into()));
        }
        let reads_target = self.facts.relations.iter().any(|(_, relation)| relation.reads_target);
        if reads_target && self.statement.on_conflict().is_some_and(|c| c.update && c.queries) {
            return Some((Code::NotSplittable, "DO UPDATE reads the table that the insert fills".into()));
        }
        if let Some(trigger) = fires.iter().find(|t| t.deferrable) {
            return Some((
                Code::NotSplittable,
                format!("deferrable constraint trigger `{}` checks at commit", trigger.name),
            ));
        }
        let meddles = |texts: &[String]| texts.iter().any(|text| self.meddles(text));
        if let Some(trigger) = fires.iter().find(|t| meddles(&t.reached)) {
            let reason = format!(
                "trigger `{}`, or what it leads to, writes or reads tables that the statement depends on",
                trigger.name
            );
            return Some((Code::NotSplittable, reason));
        }
        let carries = self.table.referenced_by.iter().find(|fk| self.action(fk) != ReferentialAction::Reject);
        if let Some(fk) = carries.filter(|_| meddles(&self.table.cascaded)) {
            let reason =
                format!("foreign key `{}` leads to triggers that write what the statement depends on", fk.name);
            return Some((Code::NotSplittable, reason));
        }
        if let Some(fk) =
            self.table.referenced_by.iter().find(|fk| fk.from == self.table.name && self.self_reference_matters(fk))
        {
            let reason = format!("foreign key `{}` refers from the table to itself", fk.name);
            return Some((Code::NotSplittable, reason));
        }
        let assigned: Vec<i16> = match self.statement.kind() {
            Kind::Delete => return None,
            Kind::Update => {
                self.statement.assigned().iter().filter_map(|n| self.table.column(n)).map(|c| c.attnum).collect()
            }
            Kind::Insert => self.table.columns.iter().map(|c| c.attnum).collect(),
        };
        let touched = |u: &&pgmend_core::table::UniqueIndex| {
            !u.immediate && u.attnums.iter().any(|n| *n == 0 || assigned.contains(n))
        };
        let deferrable = self.table.unique_indexes.iter().find(touched)?;
        (self.statement.kind() == Kind::Update).then(|| {
            let reason =
                format!("constraint `{}` is deferrable: intermediate states would violate it", deferrable.name);
            (Code::NotSplittable, reason)
        })
    }

    fn self_reference_matters(&self, fk: &ForeignKey) -> bool {
        match self.statement.kind() {
            Kind::Delete => true,
            Kind::Update => fk.to_columns.iter().any(|c| self.statement.assigned().contains(c)),
            Kind::Insert => !fk.deferrable,
        }
    }

    fn fires(&self, trigger: &Trigger) -> bool {
        match self.statement.kind() {
            Kind::Update => trigger.on_update,
            Kind::Delete => trigger.on_delete,
            Kind::Insert => {
                trigger.on_insert || (trigger.on_update && self.statement.on_conflict().is_some_and(|c| c.update))
            }
        }
    }

    /// What a row trigger leads to may change what later batches see: it reads or writes the target, or writes a table
    /// that the statement reads.
    fn meddles(&self, text: &str) -> bool {
        let mut partitions = self.table.partitions.iter().map(|p| &p.name);
        triggers::touches(text, &self.table.name.name)
            || partitions.any(|name| triggers::touches(text, name))
            || triggers::changes_any_table(text)
            || self.facts.relations.iter().any(|(name, _)| triggers::writes(text, name))
    }
}
