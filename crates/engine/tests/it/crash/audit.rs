//! What must be true when a run is over: of the user's tables, of pgmend's own, and of the way back.

use pgmend::{Engine, Observer, RunState, UndoOptions};

use super::stage::Stage;
use super::{block_on, text};

/// What must be the same in both schemas.
const COMPARED: [&str; 2] = ["select * from {}.account", "select amount, count(*) from {}.entry group by 1"];

impl Stage {
    /// What must be true when a run is over, however it came to its end.
    pub fn check(&self) -> Result<(), String> {
        self.equal_to("plain")?;
        self.audit()?;
        if self.shape.undo || !self.shape.images { Ok(()) } else { self.undo() }
    }

    /// Undoes the run; every row must be as it was before.
    pub(super) fn undo(&self) -> Result<(), String> {
        let job = self.errand().job;
        let options = UndoOptions { identity: self.identity.clone(), ..UndoOptions::default() };
        let undone = block_on(async {
            let mut engine = Box::pin(Engine::connect(Some(&self.database.url()))).await?;
            Box::pin(engine.undo(&job, &options, &mut Observer::silent())).await
        });
        let outcome = undone.map_err(text)?;
        if outcome.state != RunState::Succeeded || outcome.conflict_rows != 0 {
            return Err(format!("the undo: {outcome:?}"));
        }
        self.equal_to("before")
    }

    /// Whether the tables are as those of this schema.
    pub(super) fn equal_to(&self, schema: &str) -> Result<(), String> {
        let mut sql = self.sql();
        for query in COMPARED {
            let (ours, theirs) = (query.replace("{}", "public"), query.replace("{}", schema));
            let differing = format!(
                "select x::text from (({ours} except all {theirs}) union all ({theirs} except all {ours})) x order by 1 limit 9"
            );
            let rows = sql.run(&differing).map_err(text)?;
            if !rows.is_empty() {
                return Err(format!("not as in {schema}: {rows:?}"));
            }
        }
        Ok(())
    }

    /// Whether checkpoints, images and ledger tell of the same run, once.
    pub fn audit(&self) -> Result<(), String> {
        let mut sql = self.sql();
        let mut expect = |what: &str, wanted: &str, query: &str| -> Result<String, String> {
            let found = sql.value(query).map_err(text)?.unwrap_or_default();
            if wanted == "*" || wanted == found { Ok(found) } else { Err(format!("{what}: {found}, not {wanted}")) }
        };
        let run = expect("the run", "*", "select run_id from pgmend.run order by started_at desc limit 1")?;
        let runs = if self.shape.undo { "2" } else { "1" };
        expect("runs", runs, "select count(*) from pgmend.run")?;
        expect("state", "succeeded", &format!("select state from pgmend.run where run_id = '{run}'"))?;
        let batches = format!("from pgmend.batch where run_id = '{run}'");
        expect(
            "numbers without a gap",
            "t",
            &format!(
                "select bool_and(of_all) from (select count(*) = max(batch_no) and min(batch_no) = 1 as of_all {batches} group by partition_no) x"
            ),
        )?;
        expect(
            "totals",
            "t",
            &format!(
                "select bool_and(of_all) from (select sum(changed_rows) = max(changed_total) as of_all {batches} group by partition_no) x"
            ),
        )?;
        let changed = expect("rows", "*", &format!("select sum(changed_rows) {batches}"))?;
        let arrived = self.arrived;
        let wanted = format!("select planned_rows + {arrived} from pgmend.run where run_id = '{run}'");
        expect("planned rows", &changed, &wanted)?;
        let images =
            expect("images", "*", &format!("select coalesce(image_table, '') from pgmend.run where run_id = '{run}'"))?;
        if !images.is_empty() {
            expect("images", &changed, &format!("select count(*) from pgmend.{images}"))?;
        }
        let facts = format!("select string_agg(fact, ' ' order by entry_no) from pgmend.ledger where run_id = '{run}'");
        let facts = expect("facts", "*", &facts)?;
        let (first, last) = (facts.split(' ').next(), facts.split(' ').next_back());
        if first != Some("run_started") || last != Some("run_succeeded") || facts.matches("run_succeeded").count() != 1
        {
            return Err(format!("the ledger says: {facts}"));
        }
        let verdict = block_on(async {
            let mut engine = Box::pin(Engine::connect(Some(&self.database.url()))).await?;
            engine.verify_ledger(None).await
        });
        let faults = verdict.map_err(text)?.faults;
        if faults.is_empty() { Ok(()) } else { Err(format!("the ledger: {faults:?}")) }
    }
}
