//! The end of a run: what is left is counted, what was done is checked, and both are recorded.

use pgmend_core::digits::thousands;
use pgmend_core::limits::SWEEPS_MAX;
use pgmend_core::plan::{Residual, RunSql};
use pgmend_core::run::RunState;
use pgmend_core::table::RelationName;
use pgmend_pg::PgError;
use pgmend_pg::store::{End, Fact, LastCheckpoint, StoredRun};

use super::fault;
use super::interruption::cancellable;
use super::recover::QUERY_CANCELED;
use super::worker::Worker;
use crate::encryption::encrypt_change_set;
use crate::engine::Engine;
use crate::error::Error;
use crate::outcome::Outcome;
use crate::progress::{Event, Stop};

/// Time for each check at the end, in milliseconds; a check that takes longer says so instead.
const CHECK_BUDGET_MS: u64 = 120_000;

impl Worker<'_, '_> {
    /// Counts, checks and records the end. False when the database says that more is to be done.
    pub(super) async fn finish(&mut self) -> Result<bool, PgError> {
        fault::point("before_finish");
        self.observer.tell(&Event::Sweeping { pass: self.pass as u32 + 1 });
        self.look_around().await?;
        let mut end = self.check().await?;
        if self.sweeps_again(&end).await? {
            return Ok(false);
        }
        end.verification.extend(self.hold_expectations().await?);
        encrypt_change_set(self.session(), &self.lease, &self.plan).await?;
        if self.plan.images.recipient.is_some() && self.plan.change_set.is_some() {
            end.verification.push("the change set is encrypted, and the plain one dropped".into());
        }
        let total = self.total();
        let body = serde_json::json!({
            "changed_rows": total.changed_rows, "conflict_rows": total.conflict_rows, "dead_rows": total.dead_rows,
            "batches": self.session().totals(self.run_id()).await?.batch_no, "residual_rows": end.residual_rows,
        });
        let fact = Fact { name: "run_succeeded", body: &body };
        self.record(&RunState::Succeeded, Some(&end), fact).await?;
        fault::point("after_finish");
        Ok(true)
    }

    /// Begins another pass if rows within the range match that this run has not changed, and the statement
    /// provably cannot match a row that it has: bounded, and never to a key already imaged.
    async fn sweeps_again(&mut self, end: &End) -> Result<bool, PgError> {
        let within = end.residual_rows.unwrap_or(0) - end.arrived_later_rows.unwrap_or(0);
        let (Some(name), true) = (&self.run.image_table, self.plan.sweep.is_some()) else { return Ok(false) };
        if within <= 0 || self.pass as u32 >= SWEEPS_MAX {
            return Ok(false);
        }
        self.session().index_images(name).await?;
        let body = serde_json::json!({ "pass": self.pass + 1, "rows": within });
        self.session().record_fact(&self.lease, Fact { name: "run_swept", body: &body }).await?;
        fault::point("sweep_begun");
        self.pass += 1;
        self.prefetched = None;
        self.skipped_to = None;
        Ok(true)
    }

    async fn check(&self) -> Result<End, PgError> {
        let mut scene = self.scene.clone();
        scene.statement_timeout_ms = CHECK_BUDGET_MS;
        let tx = self.session().read(&scene, self.params.clone()).await?;
        if self.manners().pace_max < 1.0 {
            tx.on_one_core().await?;
        }
        let end = cancellable(self.session(), self.observer.stop_receiver(), self.check_within(&tx)).await;
        tx.end().await?;
        if self.observer.stop() == Stop::Now {
            // What was cancelled is not what cannot be counted.
            return Err(PgError::new("check the end of the run", QUERY_CANCELED, "stopped by a second signal"));
        }
        end
    }

    async fn check_within(&self, tx: &pgmend_pg::readtx::ReadTx<'_>) -> Result<End, PgError> {
        let mut end = End::default();
        if let (Some(name), RunSql::Stream { .. }) = (&self.run.image_table, &self.plan.sql) {
            let sql = format!("select count(*)::text from {}", RelationName::new("pgmend", name).sql());
            let images = tx.query("count the images", &sql, vec![]).await?.number()?;
            let verdict = if images == self.total().changed_rows { "equal" } else { "NOT EQUAL" };
            let changed = self.total().changed_rows;
            end.verification.push(format!(
                "{} images for {} changed rows: {verdict}",
                thousands(images),
                thousands(changed)
            ));
            if images != changed {
                return Err(PgError::corrupt(format!(
                    "run {} has {images} images for {changed} changed rows",
                    self.run_id()
                )));
            }
        }
        if let Some(change_set) = &self.plan.change_set {
            let sql = format!("select count(*)::text from {}", change_set.relation.sql());
            let rows = tx.query("count the change set", &sql, vec![]).await?.number()?;
            end.verification.push(accounted(rows, &self.total()));
        }
        let (residual, later) = match &self.plan.sql {
            RunSql::Stream { residual, arrived_later, .. } => (residual.as_ref(), arrived_later.as_ref()),
            RunSql::Freeze { residual, .. } => (residual.as_ref(), None),
        };
        if let (Some(later), Some(upper)) = (later, &self.run.upper_bound) {
            let own = std::iter::once("0".to_owned()).chain(upper.iter().cloned()).collect();
            end.arrived_later_rows = match tx.attempt("count rows that arrived later", later, own).await {
                Ok(counted) => counted.number().ok(),
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    end.verification.push(format!("rows that arrived later could not be counted: {}", error.message));
                    None
                }
            };
        }
        if let Some(residual) = residual {
            self.count_residual(tx, residual, &mut end).await?;
        }
        Ok(end)
    }

    async fn count_residual(
        &self,
        tx: &pgmend_pg::readtx::ReadTx<'_>,
        residual: &Residual,
        end: &mut End,
    ) -> Result<(), PgError> {
        let counted = match tx.attempt("count what is left", &residual.matching, vec![]).await {
            Ok(counted) => counted,
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                end.verification.push(format!("what is left could not be counted: {}", error.message));
                return Ok(());
            }
        };
        let row = counted.rows.first();
        let number = |i: usize| row.and_then(|r| r.get(i).cloned().flatten()).and_then(|n| n.parse::<i64>().ok());
        let matching = number(1).or(number(0)).unwrap_or(0);
        if matching == 0 {
            end.residual_rows = Some(0);
            end.verification.push("0 rows are left to change".into());
            return Ok(());
        }
        let Some(not_imaged) =
            residual.not_imaged.as_ref().filter(|_| self.plan.images.keep || self.plan.change_set.is_some())
        else {
            let dead = self.total().dead_rows.min(matching);
            end.residual_rows = Some(matching - dead);
            let set_aside = match dead {
                0 => String::new(),
                n => format!(", {} of them set aside", thousands(n)),
            };
            end.verification.push(format!("{} rows match the statement{set_aside}", thousands(matching)));
            return Ok(());
        };
        let left = tx.attempt("count rows left out", &self.with_images(not_imaged), vec![]).await;
        match left.and_then(|answer| answer.number()) {
            Ok(left) => {
                end.residual_rows = Some(left);
                end.verification.extend(matching_still(matching - left, &self.total()));
                end.verification.push(match left {
                    0 => "0 rows are left to change".into(),
                    left => format!("{} rows match the statement and were not changed by this run", thousands(left)),
                });
            }
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => end.verification.push(format!("rows left out could not be counted: {}", error.message)),
        }
        Ok(())
    }
}

/// What is said of rows of this run that match at its end: those that it has changed, which do where the statement does not
/// make its own condition false; conflicts may too, and cannot be told from them.
fn matching_still(rows: i64, at: &LastCheckpoint) -> Option<String> {
    let rows = rows - at.dead_rows;
    let why = "as this statement does not make its own condition false; each was changed once";
    match at.conflict_rows {
        _ if rows <= 0 => None,
        0 => Some(format!("{} changed rows still match, {why}", thousands(rows))),
        _ => Some(format!("{} rows still match, changed ones and conflicts, {why}", thousands(rows))),
    }
}

/// Whether every row of a change set is changed, a conflict, or was as wanted already.
fn accounted(rows: i64, at: &LastCheckpoint) -> String {
    let LastCheckpoint { changed_rows, conflict_rows, skipped_rows, dead_rows, .. } = at;
    let verdict = if rows == changed_rows + conflict_rows + skipped_rows + dead_rows { "equal" } else { "NOT EQUAL" };
    let mut parts = vec![format!("{} changed", thousands(*changed_rows))];
    parts.extend((*conflict_rows > 0).then(|| format!("{} in conflict", thousands(*conflict_rows))));
    parts.extend((*dead_rows > 0).then(|| format!("{} set aside", thousands(*dead_rows))));
    parts.extend((*skipped_rows > 0).then(|| format!("{} there already", thousands(*skipped_rows))));
    format!("{} rows in the change set, {}: {verdict}", thousands(rows), parts.join(" and "))
}

impl Engine {
    /// The outcome of a run as the control schema has it.
    pub(crate) async fn outcome(&self, run: &StoredRun, resumed: bool) -> Result<Outcome, Error> {
        let at = self.session.totals(run.run_id).await?;
        let plan = self.session.plan_of(run.plan_id).await?.plan;
        Ok(Outcome {
            reversible: plan.reversible.0,
            partly_undoable: plan.partly_undoable,
            run_id: run.run_id,
            plan_id: run.plan_id,
            job: run.job.clone(),
            kind: run.kind.clone(),
            verb: plan.verb(),
            identity_flag: plan.identity_flag(),
            retry_flag: plan.retry_flag(),
            state: run.state.clone(),
            changed_rows: at.changed_rows,
            skipped_rows: at.skipped_rows,
            conflict_rows: at.conflict_rows,
            dead_rows: at.dead_rows,
            batches: at.batch_no,
            residual_rows: run.residual_rows,
            arrived_later_rows: run.arrived_later_rows,
            duration_s: run.duration_s,
            resumed,
            verification: run.verification.clone(),
            asked: if run.state.ended() { None } else { self.session.wish(run.run_id).await? },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{LastCheckpoint, matching_still};

    #[test]
    fn conflicts_that_still_match_are_not_said_to_be_changed() {
        let said = |rows, conflict_rows, dead_rows| {
            matching_still(rows, &LastCheckpoint { conflict_rows, dead_rows, ..LastCheckpoint::default() })
        };
        assert!(said(50, 0, 0).is_some_and(|line| line.starts_with("50 changed rows still match, ")));
        assert!(said(50, 0, 3).is_some_and(|line| line.starts_with("47 changed rows still match, ")));
        assert!(
            said(50, 2, 0).is_some_and(|line| line.starts_with("50 rows still match, changed ones and conflicts, "))
        );
        assert_eq!(said(3, 0, 3), None);
    }
}
