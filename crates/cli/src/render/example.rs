//! Fixed values for snapshots.

use pgmend::{Figure, Finding, Mode, Plan, PlanId, Planned, RunId, RunSummary, SurveyedSignal};
use pgmend_core::digest::{Digest, DigestKey};
use pgmend_core::job::BoundParam;
use pgmend_core::plan::*;
use pgmend_core::table::RelationName;
use pgmend_core::throttle::{Builtin, Throttle};

/// The run of the example.
pub fn run_id() -> RunId {
    "0199c2e1-7a10-7d42-8f00-3b5e77aa10c4".parse().expect("a UUID")
}

/// A row of `list`.
pub fn summary(state: &str) -> RunSummary {
    RunSummary {
        run_id: run_id(),
        job: "fix-roles".into(),
        kind: "update".into(),
        target: "users".into(),
        state: state.into(),
        started_by: "alice".into(),
        started_at: "2026-03-01T03:12:09Z".into(),
        ended_at: None,
        changed_rows: 1_240_000,
        planned_rows: 2_000_000,
        undone_by: None,
    }
}

/// A plan with something in every section.
pub fn planned() -> Planned {
    let signals = signals();
    let digest = "3f9a0c12d4e5b6a79810".into();
    Planned { guardrails: Vec::new(), signals, plan: plan(), digest, stored: true, used_by: None, expired: false }
}

fn signals() -> Vec<SurveyedSignal> {
    let read = |builtin: Builtin, value: Option<f64>| SurveyedSignal {
        signal: builtin.signal(),
        value,
        detail: String::new(),
        unreadable: None,
        holds: None,
        off: None,
    };
    let why = Some("permission denied for function pg_ls_archive_statusdir".to_owned());
    let holds = Some("replay lag 14 s ≥ 10 s on standby1".to_owned());
    let off = Some("the slot of the old site is dropped on Monday".to_owned());
    vec![
        SurveyedSignal { holds, ..read(Builtin::ReplayLag, Some(14.0)) },
        SurveyedSignal { unreadable: why, ..read(Builtin::ArchiveQueue, None) },
        read(Builtin::DeadTuples, Some(0.02)),
        read(Builtin::WalRate, Some(0.0)),
        read(Builtin::CommitLatency, None),
        SurveyedSignal { off, ..read(Builtin::SlotWal, None) },
    ]
}

fn plan() -> Plan {
    let plan_id: PlanId = "0199c2e1-6f3a-7c11-9d40-5be2a1c00f17".parse().expect("a UUID");
    Plan {
        format: FORMAT,
        plan_id,
        job: "fix-roles".into(),
        about: [("goal".into(), "one spelling of every role".into()), ("ticket".into(), "OPS-1742".into())].into(),
        plain: vec!["role".into()],
        constants: std::collections::BTreeSet::new(),
        kind: ChangeKind::Update,
        statement: "update users set role = 'member' where role = 'memeber' and since < :day".into(),
        canonical: "UPDATE users SET role = 'member' WHERE role = 'memeber' AND since < CAST($1 AS date)".into(),
        params: vec![BoundParam { name: "day".into(), type_sql: "date".into(), value: "2026-01-01".into() }],
        shown_params: vec!["2026-01-01".into()],
        shows_values: false,
        undo_of: None,
        undo_where: None,
        mode: Mode::Stream,
        mode_reason: "each row's new value depends on that row alone".into(),
        one_transaction: false,
        target: RelationName::new("public", "users"),
        target_oid: 16_384,
        writes: vec!["role".into()],
        fingerprint: "f00d".into(),
        key: Some(PlanKey { index: "users_pkey".into(), columns: vec!["id".into()], types: vec!["bigint".into()] }),
        database: DatabaseIdentity {
            system_identifier: "7300000000000000001".into(),
            database: "shop".into(),
            database_oid: 5,
            server_version: "15.18".into(),
        },
        settings: Settings {
            role: "app_owner".into(),
            search_path: "public".into(),
            time_zone: "UTC".into(),
            date_style: "ISO, MDY".into(),
            interval_style: "postgres".into(),
            formats: std::collections::BTreeMap::new(),
        },
        limits: pgmend_core::limits::Limits::default(),
        pace: pgmend_core::pace::Pace::default(),
        images: PlanImages { keep: true, reason: None, layout: None, exact: true, recipient: None },
        change_set: None,
        sql: RunSql::Freeze { apply: Vec::new(), conflicts: None, residual: None, span: None },
        sweep: None,
        counts: counts(),
        samples: samples(),
        watched: Vec::new(),
        transitions: vec![transition("memeber", 2_000_000), transition("Member", 12)],
        groups: Some(("country".into(), groups())),
        surroundings: surroundings(),
        explain: vec![
            "Index Scan using users_pkey on users  (cost=0.43..52.10 rows=500)".into(),
            "uses the key's index".into(),
        ],
        estimates: Estimates {
            batches: Figure::estimated(410),
            duration_s: (180.0, 300.0),
            duration_basis: "measured by rehearsal".into(),
            wal_bytes: Figure::sampled(734_003_200),
            image_bytes: Figure::estimated(163_577_856),
            dead_bytes: Some(Figure::estimated(268_435_456)),
            company: None,
        },
        nights: None,
        rehearsal: Some(rehearsal()),
        reversible: (true, "before- and after-images of every row are kept for 7 days".into()),
        partly_undoable: false,
        findings: findings(),
        expect_rows: None,
        expect: pgmend_core::expect::Expect::default(),
        canary: None,
        dead_letters: pgmend_core::dead_letters::DeadLetters::default(),
        throttle: Throttle::default(),
        one_worker: None,
        tenants: None,
        counted: None,
        signature: Digest("aa".into()),
        digest_key: DigestKey::default(),
        planned_at: "2026-03-01T03:10:00Z".into(),
        expires_at: "2026-03-02T03:10:00Z".into(),
        planned_by: "alice".into(),
    }
}

fn counts() -> Counts {
    Counts {
        scanned_rows: Figure::estimated(5_120_000),
        matched_rows: Figure::exact(2_000_345),
        changed_rows: Figure::exact(2_000_000),
        already_right_rows: Figure::exact(345),
        conflict_rows: Figure::exact(0),
    }
}

fn samples() -> Vec<Sample> {
    let text = |value: &str| Some(value.to_owned());
    vec![
        Sample {
            key: vec![("id".into(), text("17"))],
            columns: vec![
                ("role".into(), text("memeber"), text("member")),
                ("updated_at".into(), text("‹masked›"), text("‹masked›")),
            ],
            already_right: false,
        },
        Sample {
            key: vec![("id".into(), text("18"))],
            columns: vec![("role".into(), None, text("member"))],
            already_right: true,
        },
    ]
}

fn transition(from: &str, rows: i64) -> Transition {
    Transition { column: "role".into(), from: Some(from.into()), to: Some("member".into()), rows }
}

fn groups() -> Vec<Group> {
    vec![
        Group { value: Some("NO".into()), changed_rows: 1_900_000, matched_rows: 1_900_300 },
        Group { value: None, changed_rows: 100_000, matched_rows: 100_045 },
    ]
}

fn surroundings() -> Surroundings {
    Surroundings {
        triggers: vec!["users_touch before update for each row, calls touch_updated_at()".into()],
        rules: Vec::new(),
        foreign_keys: vec!["session.user_id refers to users.id: not touched".into()],
        row_security: "none for this role".into(),
        replication: "replica identity is the primary key; published by shop_cdc".into(),
        partitions: Vec::new(),
    }
}

fn rehearsal() -> Rehearsal {
    let batch =
        |place: &str, rows, took_ms| RehearsedBatch { place: place.into(), rows, took_ms, wal_bytes: rows * 367 };
    let touched = |table: &str, updated_rows, inserted_rows, named| TouchedTable {
        table: table.into(),
        inserted_rows,
        updated_rows,
        deleted_rows: 0,
        named,
    };
    Rehearsal {
        batches: vec![batch("first", 500, 38.4), batch("densest", 500, 51.0)],
        touched: vec![touched("users", 1_000, 0, true), touched("audit", 0, 1_000, false)],
        locks: vec!["users: RowExclusiveLock".into()],
        sequences: vec!["audit_id_seq".into()],
    }
}

fn findings() -> Vec<Finding> {
    vec![
        Finding::note("published_table", "every changed row is sent to subscribers of shop_cdc", ""),
        Finding::warning(
            "trigger_writes_elsewhere",
            "trigger users_touch writes to audit, which undo does not restore",
            "read the rows of audit after an undo",
        ),
    ]
}
