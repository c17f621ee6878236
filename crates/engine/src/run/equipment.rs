//! What a worker takes along from one partition to the next: its heartbeat, what it has heard of people's wishes, its
//! throttle, the key of its images, and what it has learnt of the table. Made anew, they would cost each small tenant two connections and a round of
//! all signals, which is more than its rows do, and each partition ten batches until they are large enough.

use pgmend_core::density::Density;
use pgmend_core::halving::Halving;
use pgmend_core::mask::Mask;
use pgmend_core::plan::Plan;
use pgmend_core::sizing::Sizing;
use pgmend_pg::batch::Lease;
use pgmend_pg::image_keys::ImageKey;

use super::ownership::Heartbeat;
use super::wishes::Wishes;
use super::worker::Worker;
use crate::engine::Engine;
use crate::error::Error;
use crate::throttle::Throttle;

/// What goes with a worker of a run. It belongs to the connection of that worker, and ends with it.
pub(crate) struct Equipment {
    pub heartbeat: Heartbeat,
    pub wishes: Wishes,
    pub throttle: Throttle,
    /// What may be shown of keys.
    pub shown: Mask,
    /// What its images are encrypted with, once there was one: each batch asks whether the run still has it.
    pub image_key: Option<ImageKey>,
    /// How many rows a batch may have.
    pub sizing: Sizing,
    /// How many of the rows in its way match.
    pub density: Density,
    /// Whether batches in two halves pay.
    pub halving: Halving,
}

impl Equipment {
    /// For a worker that begins.
    async fn begin(engine: &Engine, plan: &Plan, lease: &Lease, resumed: bool) -> Result<Self, Error> {
        let shown = engine.shown_of(plan).await?;
        let wishes = Wishes::new();
        Ok(Self {
            heartbeat: Heartbeat::start(&engine.conninfo, lease, plan.limits.lease_seconds, &wishes),
            wishes,
            throttle: Throttle::start(&engine.conninfo, lease, plan, resumed),
            shown,
            image_key: None,
            sizing: Sizing::new(&plan.limits).within_wal(plan.throttle.wal_batch_bytes()),
            density: Density::new(plan.counts.scanned_rows.value, plan.counts.matched_rows.value),
            halving: Halving::default(),
        })
    }

    /// That of the partition before, where this worker had one; otherwise its own. From here on the connection executes
    /// under the mark of this lease.
    pub(super) async fn of(engine: &mut Engine, plan: &Plan, lease: &Lease, resumed: bool) -> Result<Self, Error> {
        engine.session.mark(Some(&lease.mark()));
        let Some(mut kept) = engine.equipment.take() else {
            return Self::begin(engine, plan, lease, resumed).await;
        };
        kept.throttle.follow(lease);
        if !kept.heartbeat.follow(lease) {
            kept.heartbeat = Heartbeat::start(&engine.conninfo, lease, plan.limits.lease_seconds, &kept.wishes);
        }
        Ok(kept)
    }
}

impl Worker<'_, '_> {
    /// Leaves a partition behind that is exhausted, and keeps what the next one needs.
    pub(super) async fn pass_on(mut self) {
        if self.throttle.may_be_told() {
            self.throttle.settle().await;
            // The sampler may have been late. Nobody's rows depend on it: if it fails, `status` goes by the lease.
            let _told = self.session().set_holds(&self.lease, &[]).await;
        }
        self.heartbeat.rest();
        let Self { engine, heartbeat, wishes, throttle, shown, scene, sizing, density, halving, .. } = self;
        let image_key = scene.image_key;
        engine.equipment = Some(Equipment { heartbeat, wishes, throttle, shown, image_key, sizing, density, halving });
    }
}
